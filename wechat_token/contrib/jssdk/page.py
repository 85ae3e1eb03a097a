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

from ... import clock, process
from ...engine import AccountRef, entry_within
from ...exceptions import WeChatTokenError
from ...redaction import Secret
from . import algorithms
from .signing import JSAPI, JSAPIConfig, config

logger = logging.getLogger("wechat_token")

SAID_KEPT: Final = 1000
SECONDS: Final = 0.9  # how long a page may wait for a ticket; with all else it is to be below a second

_said_until: dict[str, float]  # (monotonic) by account: why its pages have no signature
process.keep(globals(), _said_until=dict)


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
        url = algorithms.page_url(url_of(request))
        entry = entry_within(account, JSAPI, SECONDS)
        return config(entry.ref, Secret(entry.value), url), url
    except (WeChatTokenError, SuspiciousOperation) as exc:  # no ticket; a Host header that Django refuses
        why = str(exc) if isinstance(exc, WeChatTokenError) else type(exc).__name__
    except Exception as exc:  # a page never fails for its share button
        why = type(exc).__name__  # its text may hold anything (S2)
    _say(_ref(account), why)
    return None, url


def _say(ref: str, why: str) -> None:
    """Once a minute, however many pages there are."""
    now = clock.monotonic()
    if now >= _said_until.get(ref, 0.0):
        if len(_said_until) >= SAID_KEPT:
            _said_until.clear()
        _said_until[ref] = now + 60.0
        logger.warning("A page is rendered without its signature for WeChat: %s", why)


def _ref(account: AccountRef) -> str:
    return str(getattr(account, "ref", account) or "")


def _address(ref: str) -> str:
    """Where the script can ask again; '' where ``wechat_token.public_urls`` is not mounted."""
    try:
        return reverse("wechat_token_public:jssdk", args=[ref]) if ref else ""
    except NoReverseMatch:
        return ""
