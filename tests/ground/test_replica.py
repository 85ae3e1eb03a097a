"""A site that reads from a replica which lags: a copy of the database, taken once and not brought up to date."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

from tests.live import services

from .site import SLACK, WAIT, Ground, on
from .stage import aside, ask, wait_until, weixin

ROUTERS = {"DATABASE_ROUTERS": ["tests.ground.test_replica.Router"]}


class Router:
    """The usual recipe of a primary and its replica."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"

    def allow_relation(self, *objects: Any, **hints: Any) -> bool:
        return True


@contextmanager
def replica_of(ground: Ground) -> Iterator[dict[str, Any]]:
    """Database settings with a ``replica``: a copy of the tables as they are now."""
    source = ground.site.database.name
    if ground.vendor == "sqlite":
        copy = f"{source}.replica{uuid.uuid4().hex}"
        with closing(sqlite3.connect(source)) as file:
            file.execute("VACUUM INTO ?", [copy])
        yield {"default": {}, "replica": {"NAME": copy}}
        return
    with services.scratch_database(ground.vendor) as url:
        copy = urlsplit(url).path.removeprefix("/")
        if ground.vendor == "postgres":
            with services.admin("postgres") as execute:  # no process of the site is connected between two scenes
                execute(f"DROP DATABASE {copy}")
                execute(f"CREATE DATABASE {copy} TEMPLATE {source}")
        else:
            with services.cursor_of_mariadb(services.MARIADB) as cursor:
                cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = %s", [source])
                for (table,) in cursor.fetchall():
                    cursor.execute(f"CREATE TABLE {copy}.{table} LIKE {source}.{table}")
                    cursor.execute(f"INSERT INTO {copy}.{table} SELECT * FROM {source}.{table}")
        yield {"replica": {"NAME": copy, "USER": urlsplit(url).username}}


def play(ground: Ground, replica: dict[str, Any], scene: Any, *args: Any, **options: Any) -> Any:
    databases = {alias: changes for alias, changes in replica.items() if changes}
    return ground.play(scene, *args, databases=databases, settings=ROUTERS, **options)


def killed(appid: str) -> dict[str, Any]:
    """Scene: the token dies and is replaced; then read it until long after this process has forgotten it."""
    token = ask(appid)["token"]
    weixin("kill_token", appid=appid)
    answer = ask(appid, stale=token)
    later: list[Any] = []
    wait_until(lambda: later.append(ask(appid)), 0.5)
    return {"old": token, "new": answer, "later": later}


@on("postgres", "mariadb", "sqlite")
def test_killed_token__is_not_read_from_the_replica_again(ground: Ground) -> None:
    appid = ground.account("classic", token=True)
    with replica_of(ground) as replica:
        told = play(ground, replica, killed, appid, wechat={"MEMORY_SECONDS": 0.05, "CACHE_SECONDS": 0})
        fresh = play(ground, replica, ask, appid)
    token = told["new"].get("token")
    assert token != told["old"], told["new"]
    assert ground.fake.is_valid(token)
    assert {answer.get("token") for answer in told["later"]} == {token}
    assert fresh.get("token") == token, "a new process gets the dead one"
    assert ground.fake.calls_to(appid, "classic") == 2


@on("postgres", "mariadb", "sqlite")
def test_new_account__is_found(ground: Ground) -> None:
    """The operator has just added it; the replica does not know it yet."""
    with replica_of(ground) as replica:
        appid = ground.account()
        named = play(ground, replica, ask, appid)
        ground.play(make_default, appid)
        unnamed = play(ground, replica, ask)
    assert named.get("token") == ground.stored(appid), named
    assert unnamed.get("token") == named["token"], unnamed


def make_default(appid: str) -> None:
    """Scene."""
    from wechat_token.models import Account

    Account.objects.update(is_default=False)
    Account.objects.filter(appid=appid).update(is_default=True)


def overtaken(appid: str) -> dict[str, Any]:
    """Scene: while WeChat is asked, another host takes the lease. Counts the UPDATEs of this process."""
    from django.db.backends.signals import connection_created
    from django.db.models import F

    from wechat_token import clock
    from wechat_token.models import Token

    updates: list[str] = []
    lock = threading.Lock()

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("UPDATE"):
            with lock:
                updates.append(sql)
        return execute(sql, params, many, context)

    def opened(connection: Any, **kwargs: Any) -> None:
        connection.execute_wrappers.append(watch)

    connection_created.connect(opened)
    said: list[dict[str, Any]] = []
    caller = aside(lambda: said.append(ask(appid)))
    assert wait_until(lambda: weixin("calls_to", appid=appid, endpoint="classic")) is not None
    rows = Token.objects.using("default").filter(account__appid=appid)
    rows.update(
        lease_owner="another host", lease_until=clock.now() + clock.dt.timedelta(seconds=4), revision=F("revision") + 1
    )
    caller.join(WAIT + SLACK)
    return {"hung": caller.is_alive(), "answers": said, "updates": len(updates)}


@on("postgres", "mariadb", "sqlite")
def test_overtaken_refresh__ends(ground: Ground) -> None:
    """Its row is another host's now. A replica that does not know that yet must not make it try for ever."""
    appid = ground.account("classic")
    ground.slow(appid, 0.6, times=1)
    with replica_of(ground) as replica:
        told = play(ground, replica, overtaken, appid)
    assert not told["hung"], f"{told['updates']} UPDATEs"
    assert told["updates"] < 20


@on("postgres", "mariadb", "sqlite")
def test_tick__is_about_the_primary(ground: Ground) -> None:
    """What is due is decided where it is written: a replica that lags has nothing renewed twice, and misses nothing."""
    ground.clear()
    with replica_of(ground) as replica:
        appids = ground.accounts(3, "classic")
        ticks = play(ground, replica, tick_twice, wechat={"DRAIN_DEADLINE": 3.0})
    assert [ground.fake.calls_to(appid, "classic") for appid in appids] == [1, 1, 1], ticks
    assert all(ground.stored(appid) for appid in appids)


def tick_twice() -> list[dict[str, int]]:
    """Scene."""
    from wechat_token.tasks import refresh_due_tokens

    return [refresh_due_tokens(), refresh_due_tokens()]
