"""Hosts and processes. The package keeps its state in modules; each process gets its own when it runs."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from wechat_token import directory, serving, shelf

if TYPE_CHECKING:
    from .kernel import Kernel, Task

EPOCH = dt.datetime(2026, 3, 1, 16, 0, tzinfo=dt.UTC)  # midnight in Beijing


class Host:
    """A machine: its wall clock may be wrong, its link to the cache may be down."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.skew = 0.0  # seconds its wall clock is ahead
        self.cache_down_until = 0.0
        self.cache_down_since = 0.0


class Process:
    """One process: what it remembers dies with it."""

    def __init__(self, kernel: Kernel, host: Host, name: str) -> None:
        self.kernel = kernel
        self.host = host
        self.name = name
        self.alive = True
        self.paused_until = 0.0
        self.tasks: dict[Task, None] = {}
        self.background: set[Any] = set()
        self._memory: dict[Any, Any] = {}
        self._cache_rests_until = 0.0
        self._revalidating: dict[Any, float] = {}
        self._flights: dict[Any, Any] = {}
        self._default: Any = None

    def lay_out(self) -> None:
        shelf._memory = self._memory
        shelf._cache_rests_until = self._cache_rests_until
        serving._revalidating = self._revalidating
        serving._flights = self._flights
        directory._default = self._default

    def put_away(self) -> None:
        """The plain values; the tables are the same objects all the time."""
        self._cache_rests_until = shelf._cache_rests_until
        self._default = directory._default

    def now(self) -> dt.datetime:
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

    def remembered(self, appid: str) -> Any:
        return self._memory.get((appid, "access_token"))
