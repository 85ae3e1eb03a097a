"""``openapi.json``: the description of every call, shipped with the package and served beside the calls."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from .endpoint import endpoint, refuse_in_json
from .refusals import METHOD_NOT_ALLOWED


@cache
def document() -> dict[str, Any]:
    """The description as shipped; its only server is the folder it lies in."""
    description: dict[str, Any] = json.loads(resources.files(__package__).joinpath("openapi.json").read_bytes())
    return description


@endpoint("GET", "HEAD", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
def openapi(request: HttpRequest) -> HttpResponse:
    """Names the prefix the calls are mounted under: not every tool resolves a relative server."""
    prefix = request.path.removesuffix("/openapi.json")
    return JsonResponse({**document(), "servers": [{"url": prefix or "/"}]})
