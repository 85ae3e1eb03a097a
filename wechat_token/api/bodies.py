"""Reading a JSON body that may be too large, not JSON, or full of surprises."""

from __future__ import annotations

import json
from typing import Any, Final

from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from .refusals import BODY_TOO_LARGE, EMPTY_BODY, INVALID_JSON, Refusal

MAX_BYTES: Final = 16_384  # a token has about 200 characters and may grow to 512 (docs/design.md W2)


@sensitive_variables()
def read_object(request: HttpRequest) -> dict[str, Any]:
    """The body's JSON object. Raises ``Refusal``; a body announced as too large is not read at all."""
    if _announced_length(request) > MAX_BYTES:
        raise Refusal(BODY_TOO_LARGE)
    body = _read(request)
    if not body.strip():
        raise Refusal(EMPTY_BODY)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):  # also bytes that are no text, and brackets nested without end
        value = None
    if not isinstance(value, dict):
        raise Refusal(INVALID_JSON)
    return value


def _announced_length(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


def _read(request: HttpRequest) -> bytes:
    # Not request.body: with chunked encoding (ASGI) that would read whatever comes.
    try:
        body: bytes = request.read(MAX_BYTES + 1)
    except OSError:  # the client hung up
        body = b""
    if len(body) > MAX_BYTES:
        raise Refusal(BODY_TOO_LARGE)
    return body
