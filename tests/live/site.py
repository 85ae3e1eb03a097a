"""A site of real processes around one fake WeChat: scratch database, optional Redis, children that end with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wechat_token.sandbox import FakeWeChat, FakeWeChatServer

from . import services

ROOT = Path(__file__).resolve().parents[2]
SECRET = "live-secret-0123456789abcdef0123"


@dataclass
class Site:
    fake: FakeWeChat
    env: dict[str, str]
    folder: Path
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a child with the site's environment in a process group of its own."""
        child = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=self.env, text=True, start_new_session=True, **options
        )
        self.children.append(child)
        return child

    def serve(self, name: str, *command: str) -> subprocess.Popen[str]:
        """Start a child that runs until the end, with its output in the folder."""
        with (self.folder / f"{name}.log").open("w") as log:
            return self.start(*command, stdout=log, stderr=subprocess.STDOUT)

    def run(self, *command: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Run a child to its end; its standard output. Raises with its error output if it fails."""
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=self.env, text=True, input=stdin,
            capture_output=True, timeout=timeout, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def add_account(self, appid: str, endpoint: str) -> None:
        self.fake.add_account(appid, SECRET)
        self.shell(
            "from wechat_token.models import Account;"
            f"Account.objects.create(appid={appid!r}, secret={SECRET!r}, endpoint={endpoint!r})"
        )

    def shell(self, code: str) -> str:
        """Run a line of Python in a process of the site; what it prints."""
        return self.run("manage.py", "shell", "-v", "0", "-c", code)

    def stop(self) -> None:
        for child in self.children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGCONT)
                os.killpg(child.pid, signal.SIGTERM)
        for child in self.children:
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


@contextmanager
def live_site(
    database: str = "sqlite", *, redis: bool = False, broker: str = "", life: float = 7200, overlap: float = 300,
    settings: dict[str, Any] | None = None, seed: int | None = 1,
) -> Iterator[Site]:  # fmt: skip
    """A migrated site on ``sqlite``, ``postgres`` or ``mariadb``; ``broker``: '', ``redis`` or ``rabbitmq``."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wechat-token-live-")))
        fake = FakeWeChat(life=life, overlap=overlap, seed=seed)
        server = stack.enter_context(FakeWeChatServer(fake))
        if database == "sqlite":
            url = f"sqlite:///{folder / 'db.sqlite3'}"
        else:
            url = stack.enter_context(services.scratch_database(database))
        brokers = {"": "", "redis": services.REDIS, "rabbitmq": services.RABBITMQ}
        env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.live.settings",
            "DJANGO_SECRET_KEY": uuid.uuid4().hex,
            "DATABASE_URL": url,
            "REDIS_URL": services.REDIS if redis else "",
            "CELERY_BROKER_URL": brokers[broker],
            "WECHAT_API_BASE_URL": server.url,
            "WECHAT_TOKEN_DATA_DIR": str(folder),
            "WECHAT_TOKEN_LIVE_RUN": f"live{uuid.uuid4().hex[:12]}",
            "WECHAT_TOKEN_LIVE_SETTINGS": json.dumps(settings or {}),
            "PYTHONUNBUFFERED": "1",
        }
        site = Site(fake, env, folder)
        site.run("manage.py", "migrate", "--verbosity", "0")
        try:
            yield site
        finally:
            site.stop()
