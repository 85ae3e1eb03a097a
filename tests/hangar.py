"""Flights by hand: what the engine starts waits here until a test lets it go, and whoever waits makes time pass."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError

from wechat_token.engine.ground import Flight, Waiter

# Waits without an end are to fail a test, not to hang it. A caller's longest wait has 150 slices.
PATIENCE = 1000


class Hangar:
    """Stands in for ``wechat_token.engine.threads``."""

    def __init__(self, pass_time: Callable[[float], None]) -> None:
        self.ready: deque[Callable[[], object]] = deque()
        self.started: list[str] = []
        self.meanwhile: Callable[[], object] = lambda: None  # done in every slice that somebody waits
        self._pass_time = pass_time
        self._slices = 0

    def start(self, work: Callable[[], object], name: str) -> None:
        self.started.append(name)
        self.ready.append(work)

    def wait(self, future: Any, seconds: float) -> bool:
        return self.wait_any([future], seconds)

    def wait_any(self, futures: Collection[Any], seconds: float) -> bool:
        if not any(future.done() for future in futures):
            self._slices += 1
            assert self._slices < PATIENCE, "somebody waits without an end"
            self._pass_time(max(seconds, 0.001))
            self.meanwhile()
        return any(future.done() for future in futures)

    def let_go(self) -> None:
        """Everything that was started, and what that starts, in turn."""
        while self.ready:
            self.ready.popleft()()


@contextmanager
def awaited(flight: Flight, *, in_transaction: bool = True) -> Iterator[None]:
    """As if a caller waited for it."""
    me = Waiter(in_transaction=in_transaction)
    flight.waiting.append(me)
    yield
    flight.waiting.remove(me)


def locked() -> OperationalError:
    """What Django raises where somebody else holds the lock."""
    cause = sqlite3.OperationalError("database is locked")
    cause.sqlite_errorcode = sqlite3.SQLITE_BUSY
    error = OperationalError("database is locked")
    error.__cause__ = cause
    return error
