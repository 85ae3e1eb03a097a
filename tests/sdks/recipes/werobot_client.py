from typing import Any

from werobot.client import Client, ClientException

from .central_token import CentralToken


class CentralClient(Client):
    def __init__(self, config: Any, tokens: CentralToken) -> None:
        super().__init__(config)
        self.tokens = tokens

    def get_access_token(self) -> str:
        return self.tokens.get()

    def request(self, method: str, url: str, **kwargs: Any) -> Any:
        params = {**(kwargs.pop("params", None) or {}), "access_token": self.tokens.get()}
        refused = params["access_token"]
        try:
            return super().request(method, url, params=params, **kwargs)
        except ClientException as error:
            if not str(error).startswith(("40001:", "40014:", "42001:")):
                raise
            params["access_token"] = self.tokens.complain(refused)
            if params["access_token"] == refused:
                raise
        for _name, file in (kwargs.get("files") or {}).values():
            file.seek(0)
        return super().request(method, url, params=params, **kwargs)
