"""The REST dialect: ``accounts/<appid>/access_token``, the tickets, their ``refresh``, and signatures of pages."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.debug import sensitive_variables

from .. import clock
from ..engine import Entry
from ..models import ACCESS_TOKEN
from ..redaction import Secret
from . import service
from .access import authenticate, bearer
from .bodies import read_object
from .endpoint import endpoint, refuse_in_json
from .refusals import (
    INVALID_STALE_TICKET,
    INVALID_STALE_TOKEN,
    METHOD_NOT_ALLOWED,
    UNSUPPORTED_MEDIA_TYPE,
    Problem,
    Refusal,
)

MAX_TOKEN_LENGTH: Final = 2048


@endpoint("GET", "HEAD", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
@sensitive_variables()
def access_token(request: HttpRequest, appid: str) -> HttpResponse:
    asker = authenticate(request, bearer(request))
    return JsonResponse(_described(service.read(asker, appid), "access_token"))


@endpoint("GET", "HEAD", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
@sensitive_variables()
def ticket(request: HttpRequest, appid: str, kind: str) -> HttpResponse:
    asker = authenticate(request, bearer(request))
    return JsonResponse(_described(service.read(asker, appid, kind), "ticket"))


@endpoint("GET", "HEAD", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
@sensitive_variables()
def jsapi_signature(request: HttpRequest, appid: str) -> HttpResponse:
    """``wx.config`` for the page of ``?url=``. Any page: who has the key decides for whom it asks."""
    asker = authenticate(request, bearer(request))
    return JsonResponse(service.sign(asker, appid, request.GET.get("url", "")))


@endpoint("POST", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
@sensitive_variables()
def refresh(request: HttpRequest, appid: str) -> HttpResponse:
    """A complaint. ``refreshed``: the token in the answer is another one than ``stale_token``."""
    return _complained(request, appid, ACCESS_TOKEN, "token", INVALID_STALE_TOKEN)


@endpoint("POST", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
@sensitive_variables()
def refresh_ticket(request: HttpRequest, appid: str, kind: str) -> HttpResponse:
    """The same about a ticket, ``stale_ticket``."""
    return _complained(request, appid, kind, "ticket", INVALID_STALE_TICKET)


@sensitive_variables()
def _complained(request: HttpRequest, appid: str, kind: str, noun: str, invalid: Problem) -> HttpResponse:
    asker = authenticate(request, bearer(request))
    if request.content_type != "application/json":
        raise Refusal(UNSUPPORTED_MEDIA_TYPE)
    stale = _stale(read_object(request).get(f"stale_{noun}"), invalid)
    entry = service.complain(asker, appid, stale, kind)
    name = "access_token" if kind == ACCESS_TOKEN else noun
    return JsonResponse({**_described(entry, name), "refreshed": Secret(entry.value) != stale})


@sensitive_variables()
def _stale(text: object, invalid: Problem) -> Secret:
    if isinstance(text, str) and 0 < len(text) <= MAX_TOKEN_LENGTH and text.isascii() and text.isprintable():
        return Secret(text)
    raise Refusal(invalid)


def _described(entry: Entry, name: str) -> dict[str, Any]:
    """``expires_in`` and ``expires_at`` say the same, for clients with and without a good clock (R12)."""
    now = clock.now()
    seconds = entry.expires_in(now)
    end = (now + dt.timedelta(seconds=seconds)).replace(microsecond=0)
    return {
        name: entry.value,
        "expires_in": seconds,
        "expires_at": end.isoformat().replace("+00:00", "Z"),
    }
