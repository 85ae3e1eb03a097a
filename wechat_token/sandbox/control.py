"""The operator's controls as JSON over HTTP, for demos and tests in other processes: ``/_sandbox/<action>``.

Read with GET (parameters in the query), change with POST (parameters as a JSON object). Parameters are those
of the methods of :class:`FakeWeChat` with the same name; ``inject`` takes the fields of a :class:`Fault`
beside ``times``, ``endpoint`` and ``appid``, ``outage`` a number of ``seconds``.

Answers: 200 with the result, 400 for wrong parameters, 404 for an unknown action or account, 405 for the
wrong method, 409 where WeChat would refuse.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from .answers import Refusal
from .faults import Fault
from .weixin import FakeWeChat

PREFIX: Final = "/_sandbox/"


class Control:
    def __init__(self, fake: FakeWeChat) -> None:
        self._fake = fake
        self._reads: dict[str, Callable[..., Any]] = {
            "state": fake.state,
            "calls": self._calls,
            "issued": fake.issued,
            "calls_to": fake.calls_to,
            "valid_intervals": self._valid_intervals,
        }
        self._changes: dict[str, Callable[..., Any]] = {
            "add_account": fake.add_account,
            "kill_token": fake.kill_token,
            "end_ticket": fake.end_ticket,
            "foreign_refresh": fake.foreign_refresh,
            "reset_secret": fake.reset_secret,
            "freeze": fake.freeze,
            "set_ip_whitelist": fake.set_ip_whitelist,
            "set_life": fake.set_life,
            "outage": self._outage,
            "inject": self._inject,
            "clear_faults": fake.clear_faults,
            "is_valid": fake.is_valid,  # reads, but by POST: a token does not belong into a URL
        }

    def dispatch(self, method: str, action: str, query: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        """HTTP status and JSON-ready answer of one control request."""
        expected, actions = ("GET", self._reads) if action in self._reads else ("POST", self._changes)
        if action not in actions:
            return 404, {"error": f"actions: {', '.join(sorted(self._reads | self._changes))}"}
        if method != expected:
            return 405, {"error": f"use {expected}"}
        try:
            result = actions[action](**(query if expected == "GET" else json.loads(body or b"{}")))
        except LookupError as error:
            return 404, {"error": str(error)}
        except (TypeError, ValueError) as error:
            return 400, {"error": str(error)}
        except Refusal as refusal:
            return 409, {"errcode": refusal.errcode, "error": refusal.errmsg}
        return 200, {"ok": True} if result is None else {"result": result}

    def _calls(self, limit: str = "1000") -> list[dict[str, Any]]:
        """The last ``limit`` calls, oldest first."""
        return [dataclasses.asdict(call) for call in self._fake.calls[-max(1, int(limit)) :]]

    def _valid_intervals(self, appid: str) -> list[dict[str, Any]]:
        return [dataclasses.asdict(validity) for validity in self._fake.valid_intervals(appid)]

    def _outage(self, on: bool = True, seconds: float | None = None, fault: dict[str, Any] | None = None) -> None:
        """``seconds``: how long from now; ``fault``: the fields of a :class:`Fault`."""
        until = None if seconds is None else self._fake.now() + seconds
        self._fake.outage(on, until=until, fault=Fault(**fault) if fault else None)

    def _inject(
        self, kind: str, times: int = 1, endpoint: str | None = None, appid: str | None = None, **figures: Any
    ) -> None:
        """``figures``: the other fields of a :class:`Fault`."""
        self._fake.inject(Fault(kind, **figures), times, endpoint=endpoint, appid=appid)
