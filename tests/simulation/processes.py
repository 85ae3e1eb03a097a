"""Hosts and processes. The package says itself what a process remembers (:mod:`wechat_token.process`), so each of the
simulated ones gets its own when it runs.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from wechat_token import process as remembered

if TYPE_CHECKING:
    from .kernel import Kernel, Task

EPOCH = dt.datetime(2026, 3, 1, 16, 0, tzinfo=dt.UTC)  # midnight in Beijing


class Host:
    """A machine: its wall clock may be wrong, its link to the cache may be down, its settings may lack a key."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"host-{number}"
        self.skew = 0.0  # seconds its wall clock is ahead
        self.cache_down_until = 0.0
        self.cache_down_since = 0.0
        self.cache_read_only_until = 0.0
        self.has_key = True


class Process:
    """One process: what it remembers dies with it."""

    def __init__(self, kernel: Kernel, host: Host, name: str) -> None:
        self.kernel = kernel
        self.host = host
        self.name = name
        self.alive = True
        self.has_key = host.has_key  # settings are read once
        self.paused_until = 0.0
        self.tasks: dict[Task, None] = {}
        self.served: dict[str, tuple[int, float]] = {}  # by AppID: newest version handed out here, and when
        self.served_tickets: dict[tuple[str, str], tuple[int, float]] = {}
        self._memory = remembered.fresh()

    def lay_out(self) -> None:
        remembered.restore(self._memory)

    def put_away(self) -> None:
        self._memory = remembered.snapshot()

    def wall(self) -> dt.datetime:
        return EPOCH + dt.timedelta(seconds=self.kernel.now + self.host.skew)

    def monotonic(self) -> float:
        return self.kernel.now + 1000.0

    def pause(self, seconds: float) -> None:
        self.paused_until = max(self.paused_until, self.kernel.now + seconds)
        for task in self.tasks:
            task.paused = True

    def die(self) -> None:
        """SIGKILL. Runs as an event of the kernel."""
        self.alive = False
        for task in list(self.tasks):
            self.kernel.throw_killed(task)
        self.tasks.clear()
