"""A WeChat that never answers about some of its accounts, however many other faults come and go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from wechat_token.sandbox import FakeWeChat, Fault
from wechat_token.sandbox.answers import Reply

HANG: Final = Fault("hang_before", seconds=8)  # longer than any deadline here, short enough to end with the run
TOKENS: Final = ("/cgi-bin/token", "/cgi-bin/stable_token")


class Upstream(FakeWeChat):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.hanging: frozenset[str] = frozenset()
        self.hung = 0  # calls that got no answer

    def handle(
        self, method: str, path: str, query: Mapping[str, str], body: bytes = b"", remote_ip: str = "127.0.0.1"
    ) -> Reply:
        if path in TOKENS and any(appid == query.get("appid") or appid.encode() in body for appid in self.hanging):
            self.hung += 1
            return HANG.reply({}, "")
        return super().handle(method, path, query, body, remote_ip)
