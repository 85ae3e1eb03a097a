"""wechatpy 1.8 on tokens from here: ``WeChatTokenClient`` in place of ``wechatpy.WeChatClient``.

wechatpy's own client answers a dead token by fetching a new one with the AppSecret, and starts over as long as
the answer is the same. Here its calls go through :class:`wechat_token.WeChatSession`: a dead token becomes one
complaint about that very token and one repetition, with upload files sent again whole.
"""

from __future__ import annotations

import copy
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from wechatpy import WeChatClient
from wechatpy.client.api.jsapi import WeChatJSAPI

from .. import clock
from ..conf import get_settings
from ..engine import AccountRef, current_entry, get_access_token, get_ticket, resolve
from ..platforms.transport import base_url
from ..session import TIMEOUT, WeChatSession

# wechatpy has this host in every module; API_BASE_URL takes its place.
_WECHAT: Final = "https://api.weixin.qq.com"


class _JSAPI(WeChatJSAPI):  # type: ignore[misc]  # as below
    """Tickets from here: one for all processes, and none counted from an answer that says 7200 each time (W17)."""

    def get_ticket(self, type: str = "jsapi") -> dict[str, Any]:
        entry = current_entry(resolve(self.appid, f"{type}_ticket"))
        return {"errcode": 0, "errmsg": "ok", "ticket": entry.value, "expires_in": entry.expires_in(clock.now())}

    def get_jsapi_ticket(self) -> str:
        return get_ticket(self.appid)

    def get_jsapi_card_ticket(self) -> str:
        return get_ticket(self.appid, "wx_card")


class WeChatTokenClient(WeChatClient):  # type: ignore[misc]  # wechatpy ships no types
    """``wechatpy.WeChatClient`` without an AppSecret::

        client = WeChatTokenClient("wx0123456789abcdef")
        client.message.send_text(openid, "hello")

    Calls raise what :class:`wechat_token.WeChatSession` raises besides wechatpy's own exceptions; a token that
    is refused twice is a ``WeChatClientException``. ``timeout``: seconds in total for one request.
    ``session``: wechatpy's storage, which nothing here needs. Works in remote mode too.
    """

    jsapi = _JSAPI()  # wechatpy gives each client its own

    def __init__(self, appid: AccountRef, *, session: Any = None, timeout: float = TIMEOUT) -> None:
        appid = resolve(appid)[0]
        # Without auto_retry: repeating is the session's business, and wechatpy's way has no end.
        super().__init__(appid, "", session=session, timeout=timeout, auto_retry=False)
        self._http = _Session(appid, timeout=timeout)

    @property
    def access_token(self) -> str:
        """The token to use now, for calls of your own."""
        return get_access_token(self.appid)

    def fetch_access_token(self) -> dict[str, Any]:
        """The current token in WeChat's shape. Nothing is renewed: that is done ahead of time and on complaints."""
        entry = current_entry(resolve(self.appid))
        return {"access_token": entry.value, "expires_in": entry.expires_in(clock.now())}

    def _request(self, method: str, url_or_endpoint: str, **kwargs: Any) -> Any:
        params = kwargs.get("params") or {}
        if isinstance(params, dict):
            # Else wechatpy would put the token there, where every traceback of the call shows it (S2).
            kwargs["params"] = {**params, "access_token": ""}
        return super()._request(method, url_or_endpoint, **kwargs)


class _Session(WeChatSession):
    """Takes URLs as wechatpy writes them: with WeChat's host, and some with a token."""

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        request = copy.copy(request)
        if request.url.startswith(f"{_WECHAT}/"):
            request.url = base_url(get_settings()) + request.url.removeprefix(_WECHAT)
        prepared = super().prepare_request(request)
        parts = urlsplit(str(prepared.url))
        kept = [pair for pair in parts.query.split("&") if not pair.startswith("access_token=")]
        prepared.url = parts._replace(query="&".join(kept)).geturl()
        return prepared
