"""The REST dialect: ``accounts/<appid>/access_token`` and its ``refresh``."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.debug import sensitive_variables

from .. import clock
from ..engine import Entry
from ..redaction import Secret
from . import service
from .access import authenticate, bearer
from .bodies import read_object
from .endpoint import endpoint, refuse_in_json
from .refusals import INVALID_STALE_TOKEN, METHOD_NOT_ALLOWED, UNSUPPORTED_MEDIA_TYPE, Refusal

MAX_TOKEN_LENGTH: Final = 2048


@endpoint("GET", "HEAD", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
@sensitive_variables()
def access_token(request: HttpRequest, appid: str) -> HttpResponse:
    asker = authenticate(request, bearer(request))
    return JsonResponse(_described(service.read(asker, appid)))


@endpoint("POST", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
@sensitive_variables()
def refresh(request: HttpRequest, appid: str) -> HttpResponse:
    """A complaint. ``refreshed``: the token in the answer is another one than ``stale_token``."""
    asker = authenticate(request, bearer(request))
    if request.content_type != "application/json":
        raise Refusal(UNSUPPORTED_MEDIA_TYPE)
    stale = _stale_token(read_object(request))
    entry = service.complain(asker, appid, stale)
    return JsonResponse({**_described(entry), "refreshed": Secret(entry.value) != stale})


@sensitive_variables()
def _stale_token(body: dict[str, Any]) -> Secret:
    text = body.get("stale_token")
    if isinstance(text, str) and 0 < len(text) <= MAX_TOKEN_LENGTH and text.isascii() and text.isprintable():
        return Secret(text)
    raise Refusal(INVALID_STALE_TOKEN)


def _described(entry: Entry) -> dict[str, Any]:
    """``expires_in`` and ``expires_at`` say the same, for clients with and without a good clock (R12)."""
    now = clock.now()
    seconds = entry.expires_in(now)
    end = (now + dt.timedelta(seconds=seconds)).replace(microsecond=0)
    return {
        "access_token": entry.value,
        "expires_in": seconds,
        "expires_at": end.isoformat().replace("+00:00", "Z"),
    }
