"""``sign_jsapi`` and ``sign_card``: the account's ticket, a nonce and the time. Nothing is cached but the ticket."""

from __future__ import annotations

import secrets
from typing import Final, TypedDict

from ... import clock
from ...engine import AccountRef, Entry, Key, acurrent_entry, aresolve, current_entry, resolve
from ...platforms.signatures import host_of, host_of_origin, page_url, sign_page, sign_values

JSAPI: Final = "jsapi_ticket"
CARD: Final = "wx_card_ticket"

NONCE_BYTES: Final = 12  # 16 characters, as WeChat's own examples have


class JSAPIConfig(TypedDict):
    """What ``wx.config`` takes, besides ``debug`` and ``jsApiList``."""

    appId: str
    timestamp: int
    nonceStr: str
    signature: str


class CardExt(TypedDict):
    """The fields of ``cardExt`` for ``wx.addCard``, which takes them as a string of JSON."""

    code: str
    openid: str
    timestamp: str
    nonce_str: str
    signature: str


def sign_jsapi(url: str, account: AccountRef = None) -> JSAPIConfig:
    """Sign a page for the JS-SDK: ``{"appId", "timestamp", "nonceStr", "signature"}``, what ``wx.config`` takes.

    ``url``: of the page, as the browser has it (``location.href``); it is cut at ``#`` and otherwise signed as it is.
    Sign anew for every page: a signature kept is one for another URL sooner or later. Raises as
    :func:`wechat_token.get_ticket` does, and ``URLNotSignable`` for what is no address of a page.
    """
    return sign_for(resolve(account, JSAPI), page_url(url))


async def asign_jsapi(url: str, account: AccountRef = None) -> JSAPIConfig:
    """:func:`sign_jsapi` for async code."""
    url = page_url(url)
    key = await aresolve(account, JSAPI)
    return config(key[0], await acurrent_entry(key), url)


def sign_for(key: Key, url: str, *, over_http: bool = False) -> JSAPIConfig:
    """:func:`sign_jsapi` with its parameters resolved; ``over_http``: by a thread of the web server (R33)."""
    return config(key[0], current_entry(key, over_http=over_http), url)


def config(ref: str, ticket: Entry, url: str) -> JSAPIConfig:
    """Signed with ``ticket`` now. The ref of an account that has JSAPI tickets is its AppID."""
    nonce, timestamp = secrets.token_urlsafe(NONCE_BYTES), int(clock.now().timestamp())
    signature = sign_page(ticket.secret, url, nonce, timestamp)
    return {"appId": ref, "timestamp": timestamp, "nonceStr": nonce, "signature": signature}


def sign_card(
    card_id: str, account: AccountRef = None, code: str | None = None, openid: str | None = None
) -> CardExt:  # fmt: skip
    """Sign a card (卡券) for ``wx.addCard``, with the account's ``wx_card_ticket``.

    ``code``: for cards with codes of your own; ``openid``: for cards that only one user may take. What is left out is
    ``""`` and not signed. Raises as :func:`wechat_token.get_ticket` does, and ``ValueError`` without ``card_id``.
    """
    key = resolve(account, CARD)
    return _card(current_entry(key), card_id, code or "", openid or "")


async def asign_card(
    card_id: str, account: AccountRef = None, code: str | None = None, openid: str | None = None
) -> CardExt:  # fmt: skip
    """:func:`sign_card` for async code."""
    key = await aresolve(account, CARD)
    return _card(await acurrent_entry(key), card_id, code or "", openid or "")


def _card(ticket: Entry, card_id: str, code: str, openid: str) -> CardExt:
    if not card_id:
        raise ValueError("card_id is empty")
    nonce, timestamp = secrets.token_urlsafe(NONCE_BYTES), str(int(clock.now().timestamp()))
    signature = sign_values(ticket.secret, timestamp, card_id, code, openid, nonce)
    return {"code": code, "openid": openid, "timestamp": timestamp, "nonce_str": nonce, "signature": signature}


__all__ = [
    "asign_card",
    "asign_jsapi",
    "host_of",
    "host_of_origin",
    "page_url",
    "sign_card",
    "sign_for",
    "sign_jsapi",
]
