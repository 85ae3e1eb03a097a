"""``openapi.json``: the description of every call, shipped with the package and served beside the calls."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, JsonResponse

from ..conf import get_settings
from .endpoint import endpoint, refuse_in_json
from .refusals import METHOD_NOT_ALLOWED

SWITCHED_OFF: Final[dict[str, tuple[str, ...]]] = {
    "on": (),
    "stable": ("/cgi-bin/token",),
    "off": ("/cgi-bin/token", "/cgi-bin/ticket/getticket", "/cgi-bin/stable_token"),
}


@cache
def document() -> dict[str, Any]:
    """The description as shipped; its only server is the folder it lies in."""
    description: dict[str, Any] = json.loads(resources.files(__package__).joinpath("openapi.json").read_bytes())
    return description


@endpoint("GET", "HEAD", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
def openapi(request: HttpRequest) -> HttpResponse:
    """Names the prefix the calls are mounted under: not every tool resolves a relative server. Without what is switched
    off here.
    """
    prefix = request.path.removesuffix("/openapi.json")
    off = SWITCHED_OFF[get_settings().wechat_dialect]
    paths = {path: calls for path, calls in document()["paths"].items() if path not in off}
    return JsonResponse({**document(), "paths": paths, "servers": [{"url": prefix or "/"}]})
