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
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wechat_token.sandbox import FakeWeChatServer

from . import services
from .databases import Database
from .link import Link
from .replica import Replica
from .upstream import Upstream

ROOT = Path(__file__).resolve().parents[2]
SECRET = "live-secret-0123456789abcdef0123"


@dataclass
class Site:
    """``links``: the ways to ``database``, ``cache`` and ``broker``, if the site was made with them."""

    fake: Upstream
    env: dict[str, str]
    folder: Path
    database: Database
    links: dict[str, Link] = field(default_factory=dict)
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *command: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start a child with the site's environment, and ``env`` on top, in a process group of its own."""
        child = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=self.env | (env or {}), text=True, start_new_session=True,
            **options,
        )  # fmt: skip
        self.children.append(child)
        return child

    def serve(self, name: str, *command: str) -> subprocess.Popen[str]:
        """Start a child that runs until the end, with its output in the folder."""
        with (self.folder / f"{name}.log").open("w") as log:
            return self.start(*command, stdout=log, stderr=subprocess.STDOUT)

    def run(
        self, *command: str, stdin: str | None = None, timeout: float = 60, env: dict[str, str] | None = None
    ) -> str:
        """Run a child to its end; its standard output. Raises with its error output if it fails."""
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=self.env | (env or {}), text=True, input=stdin,
            capture_output=True, timeout=timeout, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def add_account(self, appid: str, endpoint: str, secret: str = SECRET) -> None:
        self.fake.add_account(appid, secret)
        self.shell(
            "from wechat_token.models import Account;"
            f"Account.objects.create(appid={appid!r}, secret={secret!r}, endpoint={endpoint!r})"
        )

    def shell(self, code: str) -> str:
        """Run a line of Python in a process of the site; what it prints."""
        return self.run("manage.py", "shell", "-v", "0", "-c", code)

    def add_key(self, name: str, *scope: str) -> str:
        """A new client key. ``scope``: arguments of the command, such as ``--all-accounts``."""
        return self.run("manage.py", "wechat_token", "add-key", name, *scope).strip()

    @contextmanager
    def replica(self) -> Iterator[dict[str, str]]:
        """A copy of the database that lags behind it; the environment of whoever is to read there."""
        with services.scratch_database(self.database.vendor) as url:
            self.run("manage.py", "migrate", "--verbosity", "0", env={"DATABASE_URL": url})
            with Replica(self.database.vendor, self.database.url, url):
                yield {"WECHAT_TOKEN_LIVE_REPLICA": url}

    @cached_property
    def site_id(self) -> str:
        """Names this site's entries in the cache."""
        return self.shell("from wechat_token.models import Site; print(Site.objects.get().site_id)").strip()

    @property
    def run_name(self) -> str:
        """Begins every key of this run in Redis and names its queue."""
        return self.env["WECHAT_TOKEN_LIVE_RUN"]

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
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()


PORTS = {"postgres": 5432, "mysql": 3306, "redis": 6379, "amqp": 5672}


@contextmanager
def live_site(
    database: str = "sqlite", *, redis: bool = False, broker: str = "", life: float = 7200, overlap: float = 300,
    settings: dict[str, Any] | None = None, seed: int | str | None = 1, linked: bool = False, isolation: str = "",
) -> Iterator[Site]:  # fmt: skip
    """A migrated site on ``sqlite``, ``postgres`` or ``mariadb``; ``broker``: '', ``redis`` or ``rabbitmq``.

    ``linked``: its processes reach each service through a :class:`Link` that can be cut. ``isolation``: the
    isolation level of its database connections, such as ``serializable``; '' leaves Django's default.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wechat-token-live-")))
        fake = Upstream(life=life, overlap=overlap, seed=seed)
        server = stack.enter_context(FakeWeChatServer(fake))
        if database == "sqlite":
            direct = f"sqlite:///{folder / 'db.sqlite3'}"
        else:
            direct = stack.enter_context(services.scratch_database(database))
        brokers = {"": "", "redis": services.REDIS, "rabbitmq": services.RABBITMQ}
        links: dict[str, Link] = {}

        def way_to(name: str, url: str) -> str:
            parts = urlsplit(url)
            if not linked or parts.scheme not in PORTS:
                return url
            link = Link(parts.hostname or "127.0.0.1", parts.port or PORTS[parts.scheme])
            links[name] = stack.enter_context(link)
            return services.through(url, link.port)

        env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.live.settings",
            "DJANGO_SECRET_KEY": uuid.uuid4().hex,
            "DATABASE_URL": way_to("database", direct),
            "REDIS_URL": way_to("cache", services.REDIS) if redis else "",
            "CELERY_BROKER_URL": way_to("broker", brokers[broker]),
            "WECHAT_API_BASE_URL": server.url,
            "WECHAT_TOKEN_DATA_DIR": str(folder),
            "WECHAT_TOKEN_LIVE_RUN": f"live{uuid.uuid4().hex[:12]}",
            "WECHAT_TOKEN_LIVE_SETTINGS": json.dumps(settings or {}),
            "WECHAT_TOKEN_LIVE_ISOLATION": isolation,
            "PYTHONUNBUFFERED": "1",
        }
        site = Site(fake, env, folder, Database(database, direct), links)
        try:
            site.run("manage.py", "migrate", "--verbosity", "0")
            yield site
        finally:
            for link in links.values():
                link.up()
            site.stop()
            services.forget_run(site.run_name, redis=redis, broker=broker)
