"""``openapi.json``: the description of every call, shipped with the package and served beside the calls."""

from __future__ import annotations

from functools import cache
from importlib import resources

from django.http import HttpRequest, HttpResponse

from .endpoint import endpoint, refuse_in_json
from .refusals import METHOD_NOT_ALLOWED


@cache
def document() -> bytes:
    return resources.files(__package__).joinpath("openapi.json").read_bytes()


@endpoint("GET", "HEAD", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
def openapi(request: HttpRequest) -> HttpResponse:
    return HttpResponse(document(), content_type="application/json")
