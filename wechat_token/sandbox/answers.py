"""The shape of WeChat's answers: HTTP 200 with JSON, errors as ``errcode`` and ``errmsg`` with a ``rid``.

Which code means what: docs/design.md W9, W10. How errors look on the wire: W2, W11, W18.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

JSON_TYPE: Final = "application/json; encoding=utf-8"  # sic: WeChat writes "encoding" for "charset"
HTML_TYPE: Final = "text/html; charset=gbk"

MESSAGES: Final[Mapping[int, str]] = {
    -1: "system error",
    40001: "invalid credential, access_token is invalid or not latest",
    40002: "invalid grant_type",
    40003: "invalid openid",
    40013: "invalid appid",
    40014: "invalid access_token",
    40066: "invalid url",
    40097: "invalid args",
    40125: "invalid appsecret",
    40243: "appsecret is frozen",
    41001: "access_token missing",
    41002: "appid missing",
    41004: "appsecret missing",
    42001: "access_token expired",
    43001: "require GET method",
    43002: "require POST method",
    44002: "empty post data",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit, must slower, retry next minute",
    47001: "data format error",
    48006: "forbid to clear quota because of reaching the limit",
    50004: "account is barred from this api",
    50007: "account is frozen",
    89501: "this ip is waiting for the administrator to confirm",
    89503: "this ip needs the administrator to confirm",
    89506: "this ip was refused twice within 24 hours",
    89507: "this ip was refused, retry in one hour",
}

WireAction = Literal["reset", "refuse", "hang", "slow", "drip", "pad", "cut"]


@dataclass(frozen=True, slots=True)
class Wire:
    """What goes wrong below HTTP while a reply is sent. Performed by whoever carries the reply.

    ``reset``  close with a TCP reset, send nothing;
    ``refuse`` as if nobody listened (a running server can only reset);
    ``hang``   send nothing for ``seconds``, then close;
    ``slow``   send the whole reply after ``seconds``;
    ``drip``   send the body one byte every ``seconds``;
    ``pad``    put ``size`` blanks before the body: still valid JSON, only far too long;
    ``cut``    announce the full length, send half of the body, close.
    """

    action: WireAction
    seconds: float = 0.0
    size: int = 0

    def duration(self, body_length: int) -> float:
        """Seconds until the last byte is out, ``inf`` if it never is."""
        match self.action:
            case "slow":
                return self.seconds
            case "drip":
                return self.seconds * body_length
            case "hang":
                return float("inf")
            case _:
                return 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply. The body may hold a token and is therefore not shown by ``repr``."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)
    wire: Wire | None = None

    def json(self) -> Any:
        """The parsed body, for tests. Raises ``ValueError`` if it is no JSON."""
        return json.loads(self.body)


class Refusal(Exception):
    """WeChat says no: an ``errcode`` and its text, still without a ``rid``."""

    def __init__(self, errcode: int, errmsg: str = "") -> None:
        self.errcode = errcode
        self.errmsg = errmsg or MESSAGES.get(errcode, "unknown error")
        super().__init__(f"{errcode} {self.errmsg}")

    def payload(self, rid: str) -> dict[str, Any]:
        return {"errcode": self.errcode, "errmsg": f"{self.errmsg} rid: {rid}"}


def json_reply(payload: Any) -> Reply:
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    return Reply(200, {"Content-Type": JSON_TYPE}, body)
