"""The processes of a site under chaos, by name: killed, frozen and replaced while the others go on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .site import Site
from .verdict import Pause

CELERY: Final = ("-m", "celery", "-A", "example_project")


class Crew:
    """``appids``: whose tokens the readers read; ``pool``: Celery's; ``web``: whether gunicorn serves them too."""

    def __init__(self, site: Site, appids: list[str], *, pool: str, readers: int, web: bool) -> None:
        self._site = site
        self._started: dict[str, int] = {}
        self._running: dict[str, subprocess.Popen[str]] = {}
        self.pauses: list[Pause] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        watched = ("-m", "tests.live.readers", "loop", ",".join(appids), "86400", "0.03")
        url = f"http://127.0.0.1:{self._port}"
        self._commands: dict[str, tuple[str, ...]] = {
            "worker": (*CELERY, "worker", "--pool", pool, "--concurrency", "2", "--loglevel", "warning"),
            **{f"beat-{n}": (*CELERY, "beat", "--pidfile=") for n in (1, 2)},
            **{f"reader-{n}": watched for n in range(1, readers + 1)},
        }
        if web:
            self._commands["web"] = (
                "-m", "gunicorn", "example_project.wsgi", "--bind", f"127.0.0.1:{self._port}",
                "--workers", "2", "--threads", "4", "--log-level", "warning",
            )  # fmt: skip
            self._commands["http"] = ("-m", "tests.live.readers", "http", ",".join(appids), "86400", "0.05", url)

    def start_all(self) -> None:
        for name in self._commands:
            if name != "http":
                self.start(name)
        if "http" in self._commands:
            self._await_web()
            self.start("http")

    def _await_web(self) -> None:
        give_up_at = time.monotonic() + 30
        while time.monotonic() < give_up_at:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/wechat/health", timeout=5).close()
                return
            time.sleep(0.2)
        raise RuntimeError("gunicorn does not come up")

    @property
    def names(self) -> list[str]:
        return list(self._commands)

    @property
    def readers(self) -> list[str]:
        return [name for name in self._commands if name.startswith("reader") or name == "http"]

    def histories(self) -> list[Path]:
        """The files with what the readers read, one for each time that one was started."""
        return sorted(file for name in self.readers for file in self._site.folder.glob(f"{name}.*.log"))

    def start(self, name: str) -> None:
        count = self._started[name] = self._started.get(name, 0) + 1
        log, errors = (self._site.folder / f"{name}.{count}.{end}" for end in ("log", "err"))
        with log.open("w") as out, errors.open("w") as err:
            self._running[name] = self._site.start(*self._commands[name], stdout=out, stderr=err)

    def kill(self, *names: str) -> None:
        """SIGKILL with all children; nobody has time to tidy up."""
        for name in names:
            child = self._running.pop(name)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            self._site.children.remove(child)

    def kill_one_child(self, name: str) -> None:
        """SIGKILL one of its children, such as one worker of gunicorn, which replaces it."""
        pid = self._running[name].pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(children[0]), signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        """SIGSTOP within, with all children."""
        began = time.time()
        for name in names:
            os.killpg(self._running[name].pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for name in names:
                os.killpg(self._running[name].pid, signal.SIGCONT)
                self.pauses.append(Pause(name, began, time.time()))

    def fallen(self) -> list[str]:
        """Who ended by itself; nobody should."""
        return [name for name, child in self._running.items() if child.poll() is not None]

    def stop(self) -> None:
        self.kill(*self._running)
