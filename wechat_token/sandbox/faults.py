"""Faults the sandbox can be told to commit: what the code under test must survive (R11, R13)."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from .answers import HTML_TYPE, JSON_TYPE, Refusal, Reply, Wire, json_reply


class FaultKind(enum.StrEnum):
    # Not obeyed: the request changes nothing at WeChat.
    ERROR = "error"  # errcode, errmsg
    STATUS = "status"  # an HTML error page with HTTP ``status``
    REDIRECT = "redirect"  # 307 to ``location``
    REFUSED = "refused"  # no connection
    LOST_BEFORE = "lost_before"  # connection reset before WeChat read the request
    HANG_BEFORE = "hang_before"  # no answer for ``seconds``, request not read
    # Obeyed: a token may have been issued and another one displaced, only the answer is bad.
    LOST_AFTER = "lost_after"  # connection reset instead of the answer
    HANG_AFTER = "hang_after"  # no answer for ``seconds``
    CUT = "cut"  # half of the announced body
    SLOW = "slow"  # the answer after ``seconds``
    DRIP = "drip"  # the body one byte every ``seconds``
    HUGE = "huge"  # ``size`` blanks before the JSON
    EMPTY = "empty"  # HTTP 200, no body, text/html
    HTML = "html"  # HTTP 200, a page
    TRUNCATED = "truncated"  # half of the JSON, its length announced honestly
    GARBAGE = "garbage"  # bytes that are no text
    # expires_in:
    LIFE_NAN = "life_nan"
    LIFE_NEGATIVE = "life_negative"
    LIFE_MISSING = "life_missing"
    LIFE_HUGE = "life_huge"
    # The token or ticket in the answer:
    VALUE_NULL = "value_null"
    VALUE_EMPTY = "value_empty"
    VALUE_NUMBER = "value_number"
    VALUE_HUGE = "value_huge"  # ``size`` characters
    VALUE_CONTROL = "value_control"  # with CR, LF and NUL inside


_NOT_OBEYED: Final = frozenset(
    {
        FaultKind.ERROR,
        FaultKind.STATUS,
        FaultKind.REDIRECT,
        FaultKind.REFUSED,
        FaultKind.LOST_BEFORE,
        FaultKind.HANG_BEFORE,
    }
)
_PAGE: Final = b"<html><head><title>%s</title></head><body><h1>%s</h1></body></html>\n"


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of misbehaviour and its figures; fields the kind does not use are ignored.

    ``obeyed`` says whether WeChat does what was asked before it spoils the answer. Left out, it follows from
    the kind (see :class:`FaultKind`); ``Fault("status", obeyed=True)`` is a 502 that still issued a token.
    Raises ``ValueError`` for an unknown kind.
    """

    kind: str
    errcode: int = -1
    errmsg: str = ""
    status: int = 502
    seconds: float = 30.0
    size: int = 1_000_000
    location: str = "http://127.0.0.1:9/redirected"  # the discard port: nobody answers there
    obeyed: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", FaultKind(self.kind))
        if not (self.seconds >= 0 and self.size >= 0):
            raise ValueError("seconds and size must not be negative")

    @property
    def is_obeyed(self) -> bool:
        return self.kind not in _NOT_OBEYED if self.obeyed is None else self.obeyed

    def reply(self, payload: dict[str, Any], rid: str) -> Reply:
        """The spoiled form of the answer ``payload`` (empty where the request was not obeyed)."""
        match FaultKind(self.kind):
            case FaultKind.ERROR:
                return json_reply(Refusal(self.errcode, self.errmsg).payload(rid))
            case FaultKind.STATUS:
                return _page(self.status, b"%d Bad Gateway" % self.status)
            case FaultKind.REDIRECT:
                return Reply(307, {"Content-Type": HTML_TYPE, "Location": self.location}, b"")
            case FaultKind.EMPTY:
                return Reply(200, {"Content-Type": HTML_TYPE}, b"")
            case FaultKind.HTML:
                return _page(200, b"System busy")
            case FaultKind.TRUNCATED:
                body = json_reply(payload).body
                return Reply(200, {"Content-Type": JSON_TYPE}, body[: len(body) // 2])
            case FaultKind.GARBAGE:
                return Reply(200, {"Content-Type": JSON_TYPE}, bytes(range(128, 256)))
            case _:
                wire = self._wire()
                plain = json_reply(payload if wire else self._spoiled(payload))
                return Reply(plain.status, plain.headers, plain.body, wire)

    def _wire(self) -> Wire | None:
        match FaultKind(self.kind):
            case FaultKind.REFUSED:
                return Wire("refuse")
            case FaultKind.LOST_BEFORE | FaultKind.LOST_AFTER:
                return Wire("reset")
            case FaultKind.HANG_BEFORE | FaultKind.HANG_AFTER:
                return Wire("hang", seconds=self.seconds)
            case FaultKind.CUT:
                return Wire("cut")
            case FaultKind.SLOW:
                return Wire("slow", seconds=self.seconds)
            case FaultKind.DRIP:
                return Wire("drip", seconds=self.seconds)
            case FaultKind.HUGE:
                return Wire("pad", size=self.size)
            case _:
                return None

    def _spoiled(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The payload with a bad token or life; untouched where it carries neither."""
        key = next((key for key in ("access_token", "ticket") if key in payload), None)
        if key is None:
            return payload
        text = payload[key]
        match FaultKind(self.kind):
            case FaultKind.LIFE_NAN:
                return payload | {"expires_in": float("nan")}
            case FaultKind.LIFE_NEGATIVE:
                return payload | {"expires_in": -1}
            case FaultKind.LIFE_HUGE:
                return payload | {"expires_in": 10**18}
            case FaultKind.LIFE_MISSING:
                return {name: value for name, value in payload.items() if name != "expires_in"}
            case FaultKind.VALUE_NULL:
                return payload | {key: None}
            case FaultKind.VALUE_EMPTY:
                return payload | {key: ""}
            case FaultKind.VALUE_NUMBER:
                return payload | {key: 12345}
            case FaultKind.VALUE_HUGE:
                return payload | {key: (text * (self.size // len(text) + 1))[: self.size]}
            case _:
                return payload | {key: f"{text[:20]}\r\nX-Injected: 1\0{text[20:]}"}


def _page(status: int, title: bytes) -> Reply:
    return Reply(status, {"Content-Type": HTML_TYPE}, _PAGE % (title, title))


@dataclass(slots=True, eq=False)
class PlannedFault:
    """A fault waiting for the next ``times`` requests that fit; None fits every endpoint, every account."""

    fault: Fault
    times: int
    endpoint: str | None
    appid: str | None


class FaultQueue:
    """Planned faults in order of injection. The first that fits a request is committed and counted down."""

    def __init__(self) -> None:
        self._planned: deque[PlannedFault] = deque()

    def __bool__(self) -> bool:
        return bool(self._planned)

    def __len__(self) -> int:
        return sum(planned.times for planned in self._planned)

    def add(self, planned: PlannedFault) -> None:
        if planned.times < 1:
            raise ValueError("times must be at least 1")
        self._planned.append(planned)

    def clear(self) -> None:
        self._planned.clear()

    def take(self, endpoints: tuple[str, ...], appid: str) -> Fault | None:
        for planned in self._planned:
            if planned.endpoint not in (None, *endpoints) or planned.appid not in (None, appid):
                continue
            planned.times -= 1
            if not planned.times:
                self._planned.remove(planned)
            return planned.fault
        return None
