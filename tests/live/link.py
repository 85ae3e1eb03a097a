"""A loopback port in front of a service, to be cut, hung and restored: "Redis is down" without stopping Redis."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

CHUNK = 65_536


class Link:
    """Forwards ``127.0.0.1:port`` to a service, in a thread of its own. The service itself is never touched."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="link", daemon=True)
        self._flowing = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.Task[None]] = set()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]

    def __enter__(self) -> Self:
        self._thread.start()
        self.up()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- what can happen to a service --------------------------------------------------------------

    def up(self) -> None:
        """Serve, or go on serving what hung."""
        self._do(self._up())

    def down(self) -> None:
        """End every connection and refuse new ones."""
        self._do(self._down())

    def hang(self) -> None:
        """Accept connections, keep the open ones, and let nothing through."""
        self._do(self._hang())

    def cut(self) -> None:
        """End every connection; new ones work."""
        self._do(self._cut())

    # -- in the thread -----------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(timeout=10)

    async def _up(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)
        self._flowing.set()

    async def _down(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._flowing.set()
        await self._cut()

    async def _hang(self) -> None:
        await self._up()
        self._flowing.clear()

    async def _cut(self) -> None:
        for pair in self._pairs:
            pair.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        ends = [writer]
        try:
            await self._flowing.wait()
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            ends.append(far_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, far_writer))
                pumps.create_task(self._pump(far_reader, writer))
            for end in ends:
                end.close()
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            for end in ends:  # one end hung up, or we were told to cut
                end.transport.abort()
        finally:
            self._pairs.discard(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK):
            await self._flowing.wait()
            sink.write(data)
            await sink.drain()
        with contextlib.suppress(OSError):
            sink.write_eof()
