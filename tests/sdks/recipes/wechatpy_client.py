from typing import Any

from wechatpy import WeChatClient
from wechatpy.exceptions import WeChatClientException

from .central_token import CentralToken


class CentralTokenMixin:
    tokens: CentralToken

    @property
    def access_token(self) -> str:
        return self.tokens.get()

    def _request(self, method: str, url_or_endpoint: str, **kwargs: Any) -> Any:
        params = kwargs.pop("params", None) or {}
        if isinstance(params, str):  # customservice.delete_account brings its token along
            return super()._request(method, url_or_endpoint, params=params, **kwargs)
        refused = self.tokens.get()
        params = {**params, "access_token": refused}
        try:
            return super()._request(method, url_or_endpoint, params=params, **kwargs)
        except WeChatClientException as error:
            if error.errcode not in (40001, 40014, 42001):
                raise
            params = {**params, "access_token": self.tokens.complain(refused)}
            if params["access_token"] == refused:
                raise
        for file in (kwargs.get("files") or {}).values():
            file.seek(0)
        return super()._request(method, url_or_endpoint, params=params, **kwargs)


class CentralWeChatClient(CentralTokenMixin, WeChatClient):
    def __init__(self, appid: str, tokens: CentralToken, url: str, **options: Any) -> None:
        # Without auto_retry: wechatpy would fetch with an AppSecret, and repeat without end.
        super().__init__(appid, "", auto_retry=False, **options)
        self.tokens = tokens
        self.jsapi.API_BASE_URL = f"{url.rstrip('/')}/cgi-bin/"  # tickets, too, are the token server's
