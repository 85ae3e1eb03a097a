"""WeChat's own dialect, so that an SDK becomes a client by changing its host: the ``secret`` is a client key.

As at WeChat, the HTTP status is 200 whatever happens and the verdict is in ``errcode`` (docs/design.md W2, W9).
The requests are those of docs/design.md W1; a missing parameter is reported in WeChat's order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.debug import sensitive_variables

from .. import clock
from ..conf import get_settings
from ..engine import Entry, current_entry
from ..redaction import Secret
from . import service
from .access import Asker, Way, authenticate, token_holder
from .bodies import read_object
from .endpoint import endpoint, set_retry_after
from .refusals import (
    APPID_MISSING,
    INVALID_GRANT_TYPE,
    INVALID_JSON,
    INVALID_TICKET_TYPE,
    METHOD_NOT_ALLOWED,
    POST_REQUIRED,
    SECRET_MISSING,
    SWITCHED_OFF,
    Refusal,
)

GRANT_TYPE: Final = "client_credential"
TICKET_TYPES: Final = {"jsapi": "jsapi_ticket", "wx_card": "wx_card_ticket"}


def refuse(refusal: Refusal) -> HttpResponse:
    """``{"errcode", "errmsg"}``. Why there is no token stands in ``errmsg``, where SDKs log it."""
    problem, details = refusal.problem, refusal.details
    errmsg = problem.errmsg
    if details.get("class"):
        errmsg += f" (class {details['class']}, errcode {details.get('errcode')})"
    response = JsonResponse({"errcode": problem.errcode, "errmsg": errmsg}, headers=dict(refusal.headers))
    set_retry_after(response, refusal)
    return response


@endpoint("GET", "HEAD", refuse=refuse, wrong_method=METHOD_NOT_ALLOWED)
@sensitive_variables()
def token(request: HttpRequest) -> HttpResponse:
    """``GET cgi-bin/token``: the current token; unlike WeChat's own, this call displaces nothing."""
    if get_settings().wechat_dialect != "on":
        raise Refusal(SWITCHED_OFF)
    asker, appid = _admitted(request, request.GET, Way.URL)
    return _answer(service.read(asker, appid))


@endpoint("POST", refuse=refuse, wrong_method=POST_REQUIRED)
@sensitive_variables()
def stable_token(request: HttpRequest) -> HttpResponse:
    """``POST cgi-bin/stable_token``; ``force_refresh: true`` is a complaint about the current token (R8,
    R9).
    """
    if get_settings().wechat_dialect == "off":
        raise Refusal(SWITCHED_OFF)
    body = read_object(request)  # whatever its Content-Type: SDKs differ, and WeChat does not look either
    force_refresh = body.get("force_refresh") or False
    if not isinstance(force_refresh, bool):
        raise Refusal(INVALID_JSON)
    asker, appid = _admitted(request, body, Way.BODY)
    return _answer(service.complain(asker, appid, None) if force_refresh else service.read(asker, appid))


@endpoint("GET", "HEAD", refuse=refuse, wrong_method=METHOD_NOT_ALLOWED)
@sensitive_variables()
def getticket(request: HttpRequest) -> HttpResponse:
    """``GET cgi-bin/ticket/getticket``, opened by a living access_token: its holder could ask WeChat with it (W17)."""
    if get_settings().wechat_dialect == "off":
        raise Refusal(SWITCHED_OFF)
    kind = TICKET_TYPES.get(request.GET.get("type", ""))
    appid = token_holder(request, Secret(request.GET.get("access_token", "")))
    if kind is None:
        raise Refusal(INVALID_TICKET_TYPE)
    entry = current_entry((appid, kind), over_http=True)
    answer = {"errcode": 0, "errmsg": "ok", "ticket": entry.value, "expires_in": entry.expires_in(clock.now())}
    return JsonResponse(answer)


@sensitive_variables()
def _admitted(request: HttpRequest, parameters: Mapping[str, Any], way: Way) -> tuple[Asker, str]:
    grant_type, appid, secret = (parameters.get(name) or "" for name in ("grant_type", "appid", "secret"))
    if not (isinstance(appid, str) and isinstance(secret, str)):
        raise Refusal(INVALID_JSON)
    if grant_type != GRANT_TYPE:
        raise Refusal(INVALID_GRANT_TYPE)
    if not appid:
        raise Refusal(APPID_MISSING)
    if not secret:
        raise Refusal(SECRET_MISSING)
    return authenticate(request, Secret(secret), way), appid


def _answer(entry: Entry) -> HttpResponse:
    return JsonResponse({"access_token": entry.value, "expires_in": entry.expires_in(clock.now())})
