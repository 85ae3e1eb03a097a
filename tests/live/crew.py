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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .site import Site
from .verdict import Pause

SETTLED: Final = 30.0  # seconds until every worker of a web server has answered once, on a busy machine
CELERY: Final = ("-m", "celery", "-A", "example_project")


@dataclass(frozen=True, slots=True)
class Post:
    """What one process runs, with which environment beside the site's, and whether its output is a history."""

    command: tuple[str, ...]
    reads: bool = False
    env: dict[str, str] = field(default_factory=dict)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


class Crew:
    """Everybody who is on duty, by name; in the order in which they are started."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._posts: dict[str, Post] = {}
        self._urls: dict[str, str] = {}
        self._started: dict[str, int] = {}
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._latest: dict[str, float] = {}  # when they, or a child of theirs, were started
        self.pauses: list[Pause] = []

    def add(self, name: str, *command: str, reads: bool = False, env: dict[str, str] | None = None) -> None:
        self._posts[name] = Post(command, reads, env or {})

    def add_celery(self, pool: str) -> None:
        self.add("worker", *CELERY, "worker", "--pool", pool, "--concurrency", "2", "--loglevel", "warning")
        for beat in ("beat-1", "beat-2"):
            self.add(beat, *CELERY, "beat", "--pidfile=")

    def add_readers(self, appids: list[str], readers: int) -> None:
        for number in range(1, readers + 1):
            command = ("-m", "tests.live.readers", "loop", ",".join(appids), "86400", "0.03")
            self.add(f"reader-{number}", *command, reads=True)

    def add_web(
        self, appids: list[str], name: str = "web", reader: str = "http", *, workers: int = 2,
        env: dict[str, str] | None = None,
    ) -> str:  # fmt: skip
        """gunicorn, and a reader over HTTP; the URL."""
        port = free_port()
        url = self._urls[name] = f"http://127.0.0.1:{port}"
        self.add(
            name, "-m", "gunicorn", "example_project.wsgi", "--bind", f"127.0.0.1:{port}",
            "--workers", str(workers), "--threads", "4", "--log-level", "warning", env=env,
        )  # fmt: skip
        self.add(reader, "-m", "tests.live.readers", "http", ",".join(appids), "86400", "0.05", url, reads=True)
        return url

    def start_all(self) -> None:
        over_http = [name for name in self._posts if name.startswith("http")]
        for name in self._posts:
            if name not in over_http:
                self.start(name)
        for url in self._urls.values():
            self._await_web(url)
        for name in over_http:
            self.start(name)

    def _await_web(self, url: str) -> None:
        give_up_at = time.monotonic() + 30
        while time.monotonic() < give_up_at:
            try:
                urllib.request.urlopen(f"{url}/wechat/health", timeout=5).close()
                return
            except urllib.error.HTTPError:  # up, and has something to say
                return
            except OSError:
                pass
            time.sleep(0.2)
        raise RuntimeError("gunicorn does not come up")

    @property
    def names(self) -> list[str]:
        return list(self._posts)

    @property
    def readers(self) -> list[str]:
        """Whoever writes down what it read."""
        return [name for name, post in self._posts.items() if post.reads]

    def histories(self) -> list[Path]:
        """The files with what the readers read, one for each time that one was started."""
        return sorted(file for name in self.readers for file in self._site.folder.glob(f"{name}.*.log"))

    def start(self, name: str) -> None:
        count = self._started[name] = self._started.get(name, 0) + 1
        log, errors = (self._site.folder / f"{name}.{count}.{end}" for end in ("log", "err"))
        self._latest[name] = time.time()
        with log.open("w") as out, errors.open("w") as err:
            post = self._posts[name]
            self._running[name] = self._site.start(*post.command, env=post.env, stdout=out, stderr=err)

    def newcomers(self) -> frozenset[str]:
        return frozenset(name for name, since in self._latest.items() if time.time() - since < SETTLED)

    def kill(self, *names: str) -> None:
        """SIGKILL with all children; nobody has time to tidy up."""
        for name in names:
            child = self._running.pop(name)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            self._site.children.remove(child)

    def leave(self, name: str, patience: float = 30) -> float:
        """SIGTERM: it goes in its own time; how many seconds that took. Killed if it takes all of ``patience``."""
        child = self._running[name]
        began = time.monotonic()
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=patience)
        took = time.monotonic() - began
        self.kill(name)
        return took

    def kill_one_child(self, name: str) -> None:
        """SIGKILL one of its children, such as one worker of gunicorn, which replaces it."""
        pid = self._running[name].pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._latest[name] = time.time()
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
