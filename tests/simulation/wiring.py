"""The places of the package that the simulation takes over; everything else of it runs as it is."""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from unittest import mock

from django.db import connection

from wechat_token import background, batch, clock, lifecycle, refresh, rows, serving, shelf, transport

from .kernel import Killed, Task

if TYPE_CHECKING:
    from wechat_token.models import Token

    from .world import World

T = TypeVar("T")


@contextmanager
def wired(world: World) -> Iterator[None]:
    """Put the simulation under the package: clocks, sleep, sockets, cache, threads, chance."""
    kernel, patches = world.kernel, mock.patch
    chance = SimpleNamespace(random=random.Random(f"{world.seed}-jitter").random)
    owners = random.Random(f"{world.seed}-owners")
    real_write = rows.write

    def write(token: Token, fields: dict[str, object], *, owner: str = "") -> bool:
        task = kernel.alive()
        task.writing = (token.pk, fields)
        try:
            return real_write(token, fields, owner=owner)
        finally:
            task.writing = None

    with (
        patches.object(clock, "now", lambda: kernel.alive().process.now()),
        patches.object(clock, "monotonic", lambda: kernel.alive().process.monotonic()),
        patches.object(clock, "sleep", world.sleep_of_the_package),
        patches.object(transport, "call", world.network.call),
        patches.object(shelf, "caches", world.cache),
        patches.object(rows, "write", write),
        patches.object(refresh, "random", chance),
        patches.object(refresh, "uuid", SimpleNamespace(uuid4=lambda: uuid.UUID(int=owners.getrandbits(128)))),
        patches.object(batch, "ThreadPoolExecutor", _pool_class(world)),
        patches.object(serving, "Future", _future_class(world)),
        patches.object(background, "run", _background(world)),
        patches.object(lifecycle, "_kick", world.kick),
        connection.execute_wrapper(world.database.execute),
        _quiet(),
    ):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """The package logs every failure; there are thousands, and the history has them."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _background(world: World) -> Callable[[Hashable, Callable[[], object]], None]:
    def run(name: Hashable, work: Callable[[], object]) -> None:
        """:func:`wechat_token.background.run`: soon, in another thread of this process, once per name."""
        process = world.kernel.alive().process
        if name in process.background:
            return
        process.background.add(name)

        def guarded() -> None:
            try:
                background._guarded(name, work)
            finally:
                process.background.discard(name)

        world.kernel.spawn(process, guarded, "background")

    return run


def _future_class(world: World) -> type:
    kernel = world.kernel

    class SimulatedFuture:
        """:class:`concurrent.futures.Future` for tasks: waiting takes virtual time."""

        def __init__(self) -> None:
            self._done = False
            self._result: Any = None
            self._error: BaseException | None = None
            self._waiting: list[Task] = []

        def result(self, timeout: float = 1e6) -> Any:
            if not self._done:
                task, since = kernel.alive(), kernel.now
                self._waiting.append(task)
                kernel.wait(timeout)
                task.blocked += kernel.now - since
                if not self._done:
                    raise FutureTimeout
            if self._error is not None:
                raise self._error
            return self._result

        def set_result(self, result: Any) -> None:
            self._result = result
            self._finish()

        def set_exception(self, error: BaseException) -> None:
            if isinstance(error, Killed):
                return  # the process is dead, and those who wait with it
            self._error = error
            self._finish()

        def _finish(self) -> None:
            self._done = True
            for task in self._waiting:
                kernel.wake(task)

    return SimulatedFuture


def _pool_class(world: World) -> type:
    kernel, future_class = world.kernel, _future_class(world)

    class SimulatedPool:
        """:class:`concurrent.futures.ThreadPoolExecutor` with tasks for threads."""

        def __init__(self, threads: int, **options: object) -> None:
            self._started: list[Any] = []

        def __enter__(self) -> SimulatedPool:
            return self

        def __exit__(self, *exc: object) -> None:
            for future in self._started:
                future.result()

        def submit(self, work: Callable[[], T]) -> Any:
            task, future = kernel.alive(), future_class()

            def thread() -> None:
                try:
                    future.set_result(work())
                except BaseException as exc:
                    future.set_exception(exc)
                    raise

            kernel.spawn(task.process, thread, task.name)
            self._started.append(future)
            return future

    return SimulatedPool
