import threading
import time
from urllib.parse import quote

import requests


class CentralToken:
    """One account's access_token from the token server."""

    def __init__(self, url: str, appid: str, key: str) -> None:
        self._url = f"{url.rstrip('/')}/accounts/{quote(appid, safe='')}/access_token"
        self._http = requests.Session()
        self._http.headers["Authorization"] = f"Bearer {key}"
        self._lock = threading.Lock()
        self._token, self._good_until = "", 0.0

    def get(self) -> str:
        """The token to use now. Use it for one call, then ask again."""
        with self._lock:
            if time.monotonic() >= self._good_until:
                self._keep(self._http.get(self._url, timeout=30))
            return self._token

    def complain(self, refused: str) -> str:
        """WeChat refused this token (40001, 40014, 42001): the one to use now, the same if WeChat accepts it."""
        with self._lock:
            if self._token in ("", refused):
                self._keep(self._http.post(f"{self._url}/refresh", json={"stale_token": refused}, timeout=30))
            return self._token

    def _keep(self, answer: requests.Response) -> None:
        answer.raise_for_status()
        body = answer.json()
        self._token = body["access_token"]
        self._good_until = time.monotonic() + min(body["expires_in"], 30)
