"""Fixtures of the whole suite: a fake WeChat on a clock that tests move, and nothing left over between tests."""

from __future__ import annotations

import datetime as dt
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.apps import apps
from django.db import connections
from django.db.models import Model

from tests.hangar import Hangar
from wechat_token import clock, process
from wechat_token.engine import ground, in_place, lifecycle, settle, threads
from wechat_token.engine.refresh import Complaint, Outcome, begin
from wechat_token.engine.schedule import Reason
from wechat_token.models import ACCESS_TOKEN, Account, Token
from wechat_token.platforms import http_adapter
from wechat_token.redaction import Secret
from wechat_token.sandbox import FakeWeChat
from wechat_token.sandbox.testing import fake_wechat

# Some machines are told to write no bytecode; then each of the processes started here would compile the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

APPID = "wx0123456789abcdef"
SECRET = "canary-app-secret-4f9a7c1e"
START = dt.datetime(2026, 3, 2, 4, 0, tzinfo=dt.UTC)


# Tests that mostly wait, for processes and services: first, so that the quick ones fill the gaps.
WAITING = ("test_live", "test_demo", "test_secrecy", "simulation", "tests/ground/")
# Of the simulation, the runs that are no proof.
SIMULATED = ("usual_faults[11]", "other_seeds")


@pytest.hookimpl(tryfirst=True)  # before pytest looks which are to be left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "simulation" in item.path.parts and not any(name in item.name for name in SIMULATED):
            item.add_marker(pytest.mark.proof)
    items.sort(key=lambda item: not any(name in item.nodeid for name in WAITING))


@pytest.hookimpl(optionalhook=True)  # a hook of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As ``--dist loadfile``, but what plays on the site of one database is one worker's, which sets it up once."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class BySite(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            site = re.search(r"^tests/ground/.*(?:\[|-)(postgres|mariadb|sqlite)(-journal)?\]$", nodeid)
            return f"ground on {site[1]}" if site else str(super()._split_scope(nodeid))

    return BySite(config, log)


class Time:
    """Both clocks of the package and the fake's, moved by hand."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def now(self) -> dt.datetime:
        return START + dt.timedelta(seconds=self.elapsed)

    def timestamp(self) -> float:
        return self.now().timestamp()

    def monotonic(self) -> float:
        return 1000.0 + self.elapsed

    def pass_(self, seconds: float) -> None:
        self.elapsed += seconds

    def pass_until(self, moment: dt.datetime) -> None:
        self.elapsed = (moment - START).total_seconds()


@pytest.fixture(scope="session", autouse=True)
def _trust_is_read_once() -> Iterator[None]:
    """New settings make a new adapter, hundreds of times here; reading the certificates takes it 20 ms."""
    with mock.patch.object(http_adapter, "_tls_context", cache(http_adapter._tls_context)):
        yield


@pytest.fixture(autouse=True)
def _new_process() -> Iterator[None]:
    """Nothing of what a process keeps survives a test."""
    process.forget()
    yield
    process.forget()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(clock, "now", time.now)
    monkeypatch.setattr(clock, "monotonic", time.monotonic)
    monkeypatch.setattr(clock, "sleep", time.pass_)
    return time


@pytest.fixture
def hangar(time: Time, monkeypatch: pytest.MonkeyPatch) -> Hangar:
    """Flights, lanes and jobs start when the test says so, on its own thread and connection."""
    hangar = Hangar(time.pass_)
    for name in ("start", "wait", "wait_any"):
        monkeypatch.setattr(threads, name, getattr(hangar, name))
    monkeypatch.setattr(ground, "in_place", lambda: False)
    monkeypatch.setattr(ground, "caller_is_in_transaction", lambda: False)
    return hangar


@pytest.fixture
def weixin(time: Time) -> Iterator[FakeWeChat]:
    with fake_wechat(FakeWeChat(time.timestamp, seed=1)) as fake:
        yield fake


@pytest.fixture
def own_connections(transactional_db: None, tmp_path: Path) -> Iterator[None]:
    """As a running site: flights on threads and private connections of their own. On in-memory SQLite there is only the
    one connection, so the tables move into a file for the time of this test.
    """
    memory = connections["default"]
    if not in_place():
        yield
        return
    memory.ensure_connection()
    file = tmp_path / "db.sqlite3"
    with closing(sqlite3.connect(file)) as copy:
        memory.connection.backup(copy)
        copy.execute("PRAGMA journal_mode=WAL")
    settings, name = connections.settings["default"], connections.settings["default"]["NAME"]
    settings["NAME"] = str(file)
    connections["default"] = connections.create_connection("default")
    try:
        yield
        settle(10.0)
    finally:
        connections["default"].close()
        settings["NAME"] = name
        connections["default"] = memory


@pytest.fixture
def account(db: None, weixin: FakeWeChat) -> Account:
    weixin.add_account(APPID, SECRET)
    return Account.objects.create(appid=APPID, secret=SECRET, name="shop")


@pytest.fixture
def classic(account: Account) -> Account:
    account.endpoint = "classic"
    account.save()
    return account


def row(account: Account) -> Token:
    return Token.objects.select_related("account").get(account=account)


def renew(
    account: Account, reason: Reason = Reason.SCHEDULE, *, stale: Secret | None = None, client: str = ""
) -> Outcome:
    """One refresh through the engine's one door, and what became of it."""
    complaint = Complaint(stale, client) if stale is not None else None
    return begin((account.ref, ACCESS_TOKEN), reason, complaint=complaint, client=client).result.result()


@pytest.fixture
def own_database(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch, django_db_blocker: Any
) -> Iterator[str]:
    """The package's tables in a file of their own, as a site's router may put them. There, unlike in a test case,
    flights are threads and connections are private; the clock is the real one. Yields the alias.
    """
    name = "tokens"
    own = {
        **connections.settings["default"], "ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "tokens.db"),
        "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"},
    }  # fmt: skip
    monkeypatch.setitem(connections.settings, name, own)
    monkeypatch.setattr(lifecycle, "tell_worker", lambda token_id: None)
    settings.DATABASE_ROUTERS = [_ToOwnDatabase()]
    with django_db_blocker.unblock():
        with connections[name].schema_editor() as editor:
            for model in apps.get_app_config("wechat_token").get_models():
                editor.create_model(model)
        yield name
        ground.settle(5)
        connections[name].close()
    del connections[name]


class _ToOwnDatabase:
    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        return "tokens" if model._meta.app_label == "wechat_token" else None

    db_for_write = db_for_read
