"""Virtual time and cooperative tasks. The clock jumps to the next event; nothing ever really waits."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import greenlet

if TYPE_CHECKING:
    from .processes import Process


class Killed(greenlet.GreenletExit):
    """SIGKILL, as far as a frame can tell: ``except Exception`` does not see it, and it is never handled.

    ``finally`` blocks do run while it unwinds; every I/O they try is answered with another ``Killed``, so nothing
    happens that a killed process could not have done.
    """


class Task:
    """One thread of a simulated process."""

    __slots__ = (
        "blocked", "claimed_at", "dead", "executed_at", "fetched", "green", "in_transaction", "name", "paused",
        "process", "starter", "turn", "writing",
    )  # fmt: skip

    def __init__(self, name: str, process: Process, starter: Task | None) -> None:
        self.name = name
        self.process = process
        self.starter = starter  # the thread of the package that started this one
        self.green: greenlet.greenlet | None = None
        self.dead = False
        self.turn = 0  # grows with every resumption, so that an outdated wake-up is recognised
        # What the witness wants to know about the work under way:
        self.blocked = 0.0  # seconds spent waiting for other people's work
        self.fetched = 0  # HTTP requests made, by itself or by a thread it started
        self.paused = False  # whether the process stood still meanwhile
        self.claimed_at = 0.0  # when it last wrote a lease
        self.in_transaction = False  # of the site's own, around whatever it asks of the package
        self.executed_at = 0.0  # when the database executed its latest statement
        self.writing: tuple[int, dict[str, object]] | None = None


class Kernel:
    def __init__(self, rng: random.Random) -> None:
        self.now = 0.0
        self.rng = rng
        self.task: Task | None = None
        self.events = 0
        self.crashed: Callable[[Task, Exception], None] = lambda task, exc: None
        self._heap: list[tuple[float, float, int, Task | Callable[[], None], int]] = []
        self._order = itertools.count()
        self._main = greenlet.getcurrent()
        self._horizon = 0.0
        self.transaction: Task | None = None  # whose transaction is open: events from outside wait for its end
        self._context: Process | None = None

    # -- events ------------------------------------------------------------------------------------

    def at(self, time: float, callback: Callable[[], None], *, first: bool = False) -> None:
        """Run ``callback`` at a time, outside every process. It must not block."""
        tie = -1.0 if first else self.rng.random()
        heapq.heappush(self._heap, (max(time, self.now), tie, next(self._order), callback, 0))

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        self.at(self.now + seconds, callback)

    def run(self, until: float) -> None:
        self._horizon = until
        heap = self._heap
        while heap and (heap[0][0] <= until or self.transaction is not None):
            time, tie, _order, what, turn = heapq.heappop(heap)
            if isinstance(what, Task):
                if what.dead or what.turn != turn:
                    continue
                self.now = max(self.now, time)
                self._resume(what)
            elif self.transaction is not None and tie >= 0.0:
                self.at(time + 0.001, what)
            else:
                self.now = max(self.now, time)
                self.events += 1
                what()
        self.now = max(self.now, until)

    # -- tasks -------------------------------------------------------------------------------------

    def spawn(
        self, process: Process, work: Callable[[], object], name: str, *, delay: float = 0.0,
        starter: Task | None = None,
    ) -> Task:  # fmt: skip
        task = Task(name, process, starter)

        def body() -> None:
            try:
                work()
            except Killed:
                raise
            except Exception as exc:
                self.crashed(task, exc)
            finally:
                task.dead = True
                process.tasks.pop(task, None)

        task.green = greenlet.greenlet(body, parent=self._main)
        process.tasks[task] = None
        self._push(task, self.now + delay)
        return task

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass for the current task."""
        task = self._current()
        wake_at = self.now + max(seconds, 0.0)
        heap = self._heap
        if (not heap or heap[0][0] > wake_at) and wake_at <= self._horizon and wake_at >= task.process.paused_until:
            self.now = wake_at  # nobody else has anything to do before
            return
        self._push(task, wake_at)
        self._switch(task)

    def wait(self, timeout: float) -> None:
        """Suspend the current task until :meth:`wake` or for ``timeout`` seconds."""
        task = self._current()
        self._push(task, self.now + timeout)
        self._switch(task)

    def wake(self, task: Task) -> None:
        if not task.dead:
            self._push(task, self.now)

    def alive(self) -> Task:
        """The current task; raises ``Killed`` in one that only unwinds any more."""
        return self._current()

    def kill(self, process: Process) -> None:
        """End a process here and now; called by one of its own tasks, it does not return."""
        self.at(self.now, process.die, first=True)
        if self.task is not None and self.task.process is process:
            self._switch(self.task)

    def throw_killed(self, task: Task) -> None:
        """Unwind a task. Only from the kernel's own events."""
        task.dead = True
        if task.green is not None and task.green:
            self._enter(task)
            task.green.throw(Killed)
            self._leave()

    def _current(self) -> Task:
        task = self.task
        if task is None:
            raise RuntimeError("I/O outside a simulated process")
        if task.dead:
            raise Killed
        return task

    def _push(self, task: Task, time: float) -> None:
        heapq.heappush(self._heap, (time, self.rng.random(), next(self._order), task, task.turn))

    def _switch(self, task: Task) -> None:
        self._main.switch()
        if task.dead:
            raise Killed

    def _resume(self, task: Task) -> None:
        if self.now < task.process.paused_until and task is not self.transaction:
            task.paused = True
            self._push(task, task.process.paused_until)
            return
        task.turn += 1
        self.events += 1
        self._enter(task)
        assert task.green is not None
        task.green.switch()
        self._leave()

    def _enter(self, task: Task) -> None:
        if task.process is not self._context:
            if self._context is not None:
                self._context.put_away()
            task.process.lay_out()
            self._context = task.process
        self.task = task

    def _leave(self) -> None:
        self.task = None
