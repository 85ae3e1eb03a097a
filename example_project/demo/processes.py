"""The demo's child processes, each with its output in a file, and the ways in which a demo ends."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

from django.conf import settings
from django.core.management.base import CommandError

STOP_SECONDS: Final = 8.0  # Celery finishes what it is doing; a call to WeChat may take that long
TAIL_LINES: Final = 15


class StopRequest:
    """Notes SIGINT, SIGTERM and SIGHUP instead of dying of them, so that everything is put away first."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            # Under nohup, SIGHUP is ignored on purpose.
            if number is not None and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        # A plain flag: taking the lock of an Event here could wait for the very code that was interrupted.
        self.requested = True


@dataclass(frozen=True, slots=True)
class Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").rstrip().splitlines()
        return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])


class Children:
    """Starts processes and, as a context manager, ends them: by their ids, and only its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.running: list[Child] = []

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, *arguments: str, debug: bool = False) -> None:
        """Run Python with ``arguments`` in the project's folder."""
        environ = {name: value for name, value in os.environ.items() if name != "WECHAT_SECRET"}
        log = self._folder / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  our own interpreter, with arguments of this file's callers
                [sys.executable, *arguments],
                cwd=settings.BASE_DIR,
                env=environ | {"DJANGO_DEBUG": "1" if debug else "0"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which then ends its children
            )
        self.running.append(Child(name, process, log))

    def check(self) -> None:
        """Raise ``CommandError``, with the end of its log, if a child has ended by itself."""
        for child in self.running:
            code = child.process.poll()
            if code is not None:
                raise CommandError(
                    f"The {child.name} ended by itself (exit code {code}). Its last words:\n{child.tail()}"
                )

    def last_words(self) -> str:
        return "\n".join(f"{child.name}:\n{child.tail()}" for child in self.running)

    def stop(self) -> None:
        """Ask every child to end, and make those that have not after ``STOP_SECONDS``."""
        children, self.running = self.running, []
        for child in children:
            child.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for child in children:
            try:
                child.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def celery(*arguments: str) -> Sequence[str]:
    return ("-m", "celery", "-A", "example_project", *arguments, "--loglevel", "INFO")


def answers(host: str, port: int, path: str) -> bool:
    """Whether a web server answers ``path`` with 200 now."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status == 200
    return False
