"""What was asked of the fake and what it said, without a secret in it."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``endpoint``: see :data:`wechat_token.sandbox.ENDPOINTS`.

    ``errcode`` is 0 for success, None where a fault kept WeChat from reading the request. ``serial`` is the
    number of the token handed out or used, 0 if none. ``fault`` is the kind of fault committed, '' if none.
    """

    t: float
    appid: str
    endpoint: str
    forced: bool
    errcode: int | None
    serial: int
    remote: str
    fault: str = ""


class History:
    """Counts every call, and keeps the last ``limit`` of them (none if 0)."""

    def __init__(self, limit: int) -> None:
        self._calls: deque[Call] = deque(maxlen=limit)
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, call: Call) -> None:
        self._counts[call.appid, call.endpoint] += 1
        if call.forced:
            self._counts[call.appid, f"{call.endpoint}_forced"] += 1
        self._calls.append(call)

    def count(self, appid: str, endpoint: str) -> int:
        return self._counts[appid, endpoint]

    def counts(self, appid: str) -> dict[str, int]:
        return {endpoint: count for (owner, endpoint), count in self._counts.items() if owner == appid}

    def calls(self) -> list[Call]:
        return list(self._calls)
