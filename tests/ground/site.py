"""One site a database for all tests here: a scratch database, a fake WeChat, and a stage for processes."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from tests.live import services
from tests.live.site import SECRET, Site, live_site
from wechat_token.sandbox import FakeWeChat, Fault

from . import stage

WAIT: Final = 3.0  # seconds; WAIT_TIMEOUT of the site
SLACK: Final = 0.7  # seconds that a busy machine may add to a wait
AT_ONCE: Final = 0.3  # likewise, to what takes milliseconds
SETTINGS: Final = {"WAIT_TIMEOUT": WAIT, "REQUEST_DEADLINE": 2.5, "LEASE_MARGIN": 2.5}

DATABASES: Final = {"sqlite": "", "sqlite-journal": "", "postgres": "postgres", "mariadb": "mariadb"}
SERVED: Final = ("postgres", "mariadb")


def on(*databases: str) -> pytest.MarkDecorator:
    """Run a test with its fixture ``ground`` on these databases; the services among them, where they answer."""

    # The first that is here runs with the quick tests; the others are proof that they are no different.
    here = next((database for database in databases if not _missing(DATABASES[database])), databases[0])

    def param(database: str) -> Any:
        service = DATABASES[database]
        missing = _missing(service)
        marks = [pytest.mark.services] if service else []
        marks += [pytest.mark.skip(reason=missing)] if missing else []
        marks += [pytest.mark.proof] if database != here else []
        return pytest.param(database, id=database, marks=marks)

    return pytest.mark.parametrize("ground", [param(database) for database in databases], indirect=True)


@functools.cache
def _missing(service: str) -> str:
    return services.missing(service) if service else ""


class Hung(AssertionError):
    """A process of a scene did not end in time; it was killed."""


@dataclass
class Play:
    """A scene under way."""

    connection: socket.socket
    seconds: float
    name: str
    pid: int = 0

    def __post_init__(self) -> None:
        self.connection.settimeout(self.seconds)
        self._lines = self.connection.makefile("rw")
        self._give_up_at = time.monotonic() + self.seconds
        self._closed = False

    def order(self, what: dict[str, Any]) -> None:
        self._tell(json.dumps(what))
        self.pid = self._hear()["pid"]

    def paused(self) -> Any:
        """Wait until the scene pauses; what it says then."""
        return self._hear()["paused"]

    def go_on(self) -> None:
        self._tell("go on")

    def result(self) -> Any:
        """What the scene returned, once its process has ended. Raises ``Hung``, and what went wrong in the scene."""
        said = self._hear()["result"]
        self.connection.settimeout(max(self._give_up_at - time.monotonic(), 0.1))
        try:
            while self._lines.readline():
                pass
        except TimeoutError:
            self.kill()
            raise Hung(f"{self.name}: its process does not end; it had returned {said}") from None
        self._close()
        return said

    def kill(self) -> None:
        """SIGKILL for its process and those it started. Harmless when it has ended."""
        if not self._closed:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._close()

    def _close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._lines.close()
        self.connection.close()

    def _tell(self, line: str) -> None:
        self._lines.write(line + "\n")
        self._lines.flush()

    def _hear(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except TimeoutError:
            self.kill()
            raise Hung(f"{self.name} hangs: nothing after {self.seconds:g} s") from None
        said: dict[str, Any] = json.loads(line) if line else {"failure": "its process ended without a word"}
        if "failure" in said:
            self._close()
            raise AssertionError(f"{self.name} failed:\n{said['failure']}")
        return said


@dataclass(frozen=True)
class Ground:
    """A site on one database. ``database``: changes to its settings that hold for every scene."""

    vendor: str
    site: Site
    door: str
    database: dict[str, Any] = field(default_factory=dict)
    plays: list[Play] = field(default_factory=list)

    @property
    def fake(self) -> FakeWeChat:
        return self.site.fake

    def start(
        self, scene: Callable[..., Any], *args: Any, seconds: float = 10.0, databases: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None, wechat: dict[str, Any] | None = None, **kwargs: Any,
    ) -> Play:  # fmt: skip
        """Start a scene in a fresh process, which is killed if it has not ended after so many seconds.

        ``databases``: changes to settings by alias; ``wechat``: to the WECHAT_TOKEN setting.
        """
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.door)
        play = Play(connection, seconds, scene.__name__)
        self.plays.append(play)
        changes = dict(databases or {})
        if self.database and changes.get("default") != {}:
            changes["default"] = {**self.database, **changes.get("default", {})}
        play.order(
            {
                "scene": f"{scene.__module__}:{scene.__qualname__}", "args": args, "kwargs": kwargs,
                "databases": changes, "settings": settings or {}, "wechat": wechat or {},
            }
        )  # fmt: skip
        return play

    def play(self, scene: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Play a scene to its end; see :meth:`start`."""
        return self.start(scene, *args, **options).result()

    def account(self, endpoint: str = "stable", *, token: bool = False, **fields: Any) -> str:
        """The AppID of a new account that nobody has fetched a token for; with ``token``, that has a good one."""
        [appid] = self.accounts(1, endpoint, token=token, **fields)
        return appid

    def accounts(self, count: int, endpoint: str = "stable", *, token: bool = False, **fields: Any) -> list[str]:
        appids = [f"wx{number:016x}" for number in itertools.islice(_numbers, count)]
        for appid in appids:
            self.fake.add_account(appid, SECRET)
        self.play(add_accounts, appids, endpoint=endpoint, token=token, fields=fields)
        return appids

    def slow(self, appid: str, seconds: float, *, times: int = 1000) -> None:
        """WeChat takes this long for each call about the account."""
        self.fake.inject(Fault("slow", seconds=seconds), times=times, appid=appid)

    def hang(self, appid: str, seconds: float = 30.0, *, times: int = 1000) -> None:
        """WeChat reads no call about the account."""
        self.fake.inject(Fault("hang_before", seconds=seconds), times=times, appid=appid)

    def end(self) -> None:
        """Leave nothing of a test behind that failed in the middle."""
        self.fake.clear_faults()
        for play in self.plays:
            play.kill()
        self.plays.clear()

    def stored(self, appid: str) -> str:
        return str(self.play(stage.stored, appid))

    def clear(self) -> None:
        """Delete every account, for tests about all there are."""
        self.play(delete_accounts)

    def connections(self) -> int:
        """How many connections to the database are open now."""
        with services.admin(self.vendor) as execute:
            if self.vendor == "postgres":
                query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
                return int(execute(query, [self.site.database.name]).fetchone()[0])
        with services.cursor_of_mariadb(services.MARIADB) as cursor:
            cursor.execute(
                "SELECT count(*) FROM information_schema.processlist WHERE db = %s", [self.site.database.name]
            )
            return int(cursor.fetchone()[0])

    def quiet(self) -> None:
        """Wait until the last connection of the scenes before is closed."""
        assert stage.wait_until(lambda: not self.connections()) is not None

    @contextmanager
    def counting(self) -> Iterator[list[int]]:
        """How many connections are open, looked at all the time within."""
        counts: list[int] = []
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.06):
                counts.append(self.connections())

        looker = threading.Thread(target=look)
        looker.start()
        try:
            yield counts
        finally:
            over.set()
            looker.join()


_numbers = itertools.count(1)


def add_accounts(appids: list[str], *, endpoint: str, token: bool, fields: dict[str, Any]) -> None:
    """Scene. ``bulk_create`` sends no signal: nobody fetches before a test does."""
    from wechat_token import clock, get_access_token
    from wechat_token.models import Account, Token

    names = {field.name for field in Account._meta.get_fields()}
    for appid in appids:
        more = {"ref": appid} if "ref" in names else {}
        Account.objects.bulk_create([Account(appid=appid, secret=SECRET, endpoint=endpoint, **more, **fields)])
    due_at = clock.now() - clock.dt.timedelta(minutes=1)
    Token.objects.bulk_create(
        [Token(account=account, due_at=due_at) for account in Account.objects.filter(appid__in=appids)]
    )
    for appid in appids if token else ():
        get_access_token(appid)


def delete_accounts() -> None:
    """Scene."""
    from wechat_token.models import Account

    Account.objects.all().delete()


@contextmanager
def ground_on(vendor: str) -> Iterator[Ground]:
    with ExitStack() as stack:
        site = stack.enter_context(live_site(vendor, settings=SETTINGS))
        door = site.folder / "stage"
        child = site.start("-m", "tests.ground.stage", str(door), stdin=subprocess.DEVNULL)
        give_up_at = time.monotonic() + 30
        while not _answers(str(door)):
            if child.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError("the stage does not come up")
            time.sleep(0.02)
        yield Ground(vendor, site, str(door))


def _answers(door: str) -> bool:
    if not os.path.exists(door):
        return False
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(ConnectionRefusedError):
        probe.connect(door)
        probe.sendall(json.dumps({"scene": "builtins:bool", "args": [], "kwargs": {}, "databases": {},
                                  "settings": {}, "wechat": {}}).encode() + b"\n")  # fmt: skip
        return bool(probe.recv(1))
    return False


def in_journal_mode(ground: Ground) -> Ground:
    """The same site on a copy of its SQLite file, as Django's own defaults have it: rollback journal, no IMMEDIATE."""
    import sqlite3

    path = str(ground.site.folder / "journal.sqlite3")
    with contextlib.closing(sqlite3.connect(ground.site.database.name)) as source:
        source.execute("VACUUM INTO ?", [path])  # a copy is in journal mode DELETE
    return replace(ground, database={"NAME": path, "OPTIONS": {}})
