"""Tasks of the simulated process in place of threads: stands in for :mod:`wechat_token.engine.threads`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from .kernel import Killed, Task

if TYPE_CHECKING:
    from .kernel import Kernel


class Threads:
    """Its four members carry the names of what they replace. Waiting takes virtual time."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def start(self, work: Callable[[], object], name: str) -> None:
        starter = self.kernel.alive()
        self.kernel.spawn(starter.process, work, name, starter=starter)

    def Future(self) -> Future:
        return Future(self.kernel)

    def wait(self, future: Future, seconds: float) -> bool:
        return self.wait_any([future], seconds)

    def wait_any(self, futures: Collection[Future], seconds: float) -> bool:
        if not any(future.done() for future in futures):
            task, since = self.kernel.alive(), self.kernel.now
            for future in futures:
                future.waiting.append(task)
            self.kernel.wait(max(seconds, 0.0))
            for future in futures:
                if task in future.waiting:
                    future.waiting.remove(task)
            task.blocked += self.kernel.now - since
        return any(future.done() for future in futures)


class Future:
    """The part of :class:`concurrent.futures.Future` that the package uses."""

    __slots__ = ("_done", "_error", "_kernel", "_result", "waiting")

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._done = False
        self._result: Any = None
        self._error: BaseException | None = None
        self.waiting: list[Task] = []

    def set_running_or_notify_cancel(self) -> bool:
        return True

    def done(self) -> bool:
        return self._done

    def result(self) -> Any:
        assert self._done, "whoever asks has waited"
        if self._error is not None:
            raise self._error
        return self._result

    def set_result(self, result: Any) -> None:
        self._result = result
        self._finish()

    def set_exception(self, error: BaseException) -> None:
        if not isinstance(error, Killed):
            self._error = error
            self._finish()

    def _finish(self) -> None:
        if self._kernel.task is not None and self._kernel.task.dead:
            return  # the process was killed, and those who wait with it
        assert not self._done, "answered twice"
        self._done = True
        for task in self.waiting:
            self._kernel.wake(task)
        self.waiting.clear()
