"""``public/jssdk/<ref>?url=``: signatures for browsers, which hold no key. Mounted by ``wechat_token.public_urls``.

It signs pages of hosts in the account's ``js_domains`` and of no other, and never gives a ticket. What it would sign
for a stranger is worth nothing to them: WeChat checks a signature against the page that it is used on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.cache import patch_vary_headers

from .. import clock, process
from ..client_keys.networks import client_address, neighbourhood
from ..conf import get_settings
from ..contrib.jssdk.signing import JSAPI, host_of, host_of_origin, page_url, sign_for
from ..engine import js_hosts
from ..exceptions import AccountError
from ..throttle import Throttle
from .endpoint import endpoint, refuse_in_json
from .refusals import (
    METHOD_NOT_ALLOWED,
    ORIGIN_NOT_ALLOWED,
    SIGNATURES_OFF,
    TOO_MANY_SIGNATURES,
    URL_NOT_ALLOWED,
    Refusal,
)

_asked: Throttle
process.keep(globals(), _asked=Throttle)


def refuse(refusal: Refusal) -> HttpResponse:
    """As to clients with a key, without the causes of failures, which are nobody's business out there."""
    return refuse_in_json(Refusal(refusal.problem, refusal.retry_after, headers=refusal.headers))


def _across_origins(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """CORS for the origin that the view has let in, also where it refuses after that."""

    @wraps(view)
    def answer(request: HttpRequest, ref: str) -> HttpResponse:
        response = view(request, ref)
        patch_vary_headers(response, ["Origin"])
        origin = getattr(request, "wechat_token_origin", "")
        if origin:
            response["Access-Control-Allow-Origin"] = origin
        return response

    return answer


@_across_origins
@endpoint("GET", "HEAD", refuse=refuse, wrong_method=METHOD_NOT_ALLOWED)
def jssdk(request: HttpRequest, ref: str) -> HttpResponse:
    """``wx.config`` for the page of ``?url=``. Its host must be listed, and that of ``Origin``, where there is one."""
    settings = get_settings()
    address = client_address(request, settings.trusted_proxies)
    count = _asked.hit(neighbourhood(address), clock.monotonic())
    if count.number > settings.signatures_per_minute:
        raise Refusal(TOO_MANY_SIGNATURES, count.seconds_left)
    listed = js_hosts(ref)
    if not listed:
        raise Refusal(SIGNATURES_OFF)
    _admit(request, listed)
    url = page_url(request.GET.get("url", ""))
    if host_of(url) not in listed:
        raise Refusal(URL_NOT_ALLOWED)
    try:
        return JsonResponse(sign_for((ref, JSAPI), url, over_http=True))
    except AccountError:  # one without this kind of ticket, or deactivated just now
        raise Refusal(SIGNATURES_OFF) from None


def _admit(request: HttpRequest, listed: frozenset[str]) -> None:
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None:  # a page of this very host, or no browser
        return
    if host_of_origin(origin) not in listed:
        raise Refusal(ORIGIN_NOT_ALLOWED)
    request.wechat_token_origin = origin  # type: ignore[attr-defined]  # for :func:`_across_origins`
