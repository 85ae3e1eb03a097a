"""A client of the HTTP service that is no Django process: one connection a request, no wait without end."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from .asking import GIVE_UP, SLACK, WAIT

PATIENCE: Final = WAIT + SLACK + GIVE_UP  # as in :mod:`asking`: by then it is a hang


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any] = field(repr=False)
    retry_after: float = 0.0

    @property
    def code(self) -> str:
        return str(self.body.get("error", {}).get("code", ""))

    @property
    def token(self) -> str:
        """Raises ``RuntimeError`` with the status where there is none."""
        if self.status != 200:
            raise RuntimeError(f"HTTP {self.status}: {self.code}")
        return str(self.body["access_token"])


class Service:
    """``key``: the client key to present at the site at ``url``."""

    def __init__(self, url: str, key: str) -> None:
        self._address = urlsplit(url).netloc
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def read(self, appid: str) -> Answer:
        return self._request("GET", f"/wechat/accounts/{appid}/access_token")

    def complain(self, appid: str, stale_token: str) -> Answer:
        return self._request("POST", f"/wechat/accounts/{appid}/access_token/refresh", {"stale_token": stale_token})

    def _request(self, method: str, path: str, body: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        try:
            connection.request(method, path, json.dumps(body) if body else None, self._headers)
            answer = connection.getresponse()
            return Answer(answer.status, json.loads(answer.read()), float(answer.getheader("Retry-After") or 0))
        finally:
            connection.close()
