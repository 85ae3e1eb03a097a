"""What a rendered page carries for the JS-SDK: its own URL, signed, and where its script can ask again."""

from __future__ import annotations

import logging
import string
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from ...conf import get_settings
from ...engine import AccountRef, entry_or_why, tell_rarely
from .signing import JSAPI, JSAPIConfig, config, page_url

logger = logging.getLogger("wechat_token")

SECONDS: Final = 0.9  # how long a page may wait for a ticket; with all else it is to be below a second


def weixins_script() -> str:
    """Where WeChat's own script is loaded from."""
    return get_settings().jssdk_url


def page_data(
    request: HttpRequest, account: AccountRef, apis: Sequence[str], tags: Sequence[str], *, debug: bool
) -> dict[str, Any]:  # fmt: skip
    """For ``jssdk.js``. Never raises for want of a ticket: without ``config`` the script asks, or says so."""
    signed, url = _signed(request, account)
    ref = signed["appId"] if signed is not None else _ref(account)
    data: dict[str, Any] = {"apis": list(apis), "url": url, "ask": _address(ref)}
    if signed is not None:
        data["config"] = signed
    if tags:
        data["tags"] = list(tags)
    if debug:
        data["debug"] = True
    return data


def url_of(request: HttpRequest) -> str:
    """The URL that the browser asked for, without its ``#``, as far as the server still knows it.

    Scheme and host by Django's rules (``SECURE_PROXY_SSL_HEADER``, ``USE_X_FORWARDED_HOST``). The path as it was sent
    where the server tells: PATH_INFO is decoded, and ``%2F``, ``%7E`` or ``%e4`` cannot be had back from it.
    """
    return f"{request.scheme}://{request.get_host()}{_as_sent(request) or request.get_full_path()}"


def _as_sent(request: HttpRequest) -> str:
    scope: Mapping[str, Any] | None = getattr(request, "scope", None)
    if scope is not None:  # ASGI
        path = scope.get("raw_path") or b""
        query = scope.get("query_string") or b""
        sent = path.partition(b"?")[0].decode("latin-1")  # some servers leave the query in
        return f"{sent}?{query.decode('latin-1')}" if query and sent else sent
    # gunicorn; uWSGI and mod_wsgi. As latin-1, like all of WSGI.
    sent = request.META.get("RAW_URI") or request.META.get("REQUEST_URI") or ""
    if sent.startswith(("http://", "https://")):  # a proxy may ask with the whole URL
        sent = "/" + sent.split("/", 3)[3] if sent.count("/") > 2 else ""
    # Sent raw, against the rules, by programs: a browser has it encoded in location.href.
    return quote(sent.encode("latin-1"), safe=string.punctuation)


def _signed(request: HttpRequest, account: AccountRef) -> tuple[JSAPIConfig | None, str]:
    url = ""
    try:
        url = page_url(url_of(request))
        found = entry_or_why(account, JSAPI, SECONDS)
    except (ValueError, SuspiciousOperation) as exc:  # a Host header that Django refuses; a path no browser writes
        found = type(exc).__name__
    if not isinstance(found, str):
        return config(found.ref, found, url), url
    tell_rarely(logger, f"page {_ref(account)}", "A page is rendered without its signature for WeChat: %s", found)
    return None, url


def _ref(account: AccountRef) -> str:
    return str(getattr(account, "ref", account) or "")


def _address(ref: str) -> str:
    """Where the script can ask again; '' where ``wechat_token.public_urls`` is not mounted."""
    try:
        return reverse("wechat_token_public:jssdk", args=[ref]) if ref else ""
    except NoReverseMatch:
        return ""
