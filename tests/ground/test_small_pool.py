"""More requests in transactions than the site has connections to give."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from .site import AT_ONCE, SLACK, Ground, on
from .stage import CACHE_TABLE, ask, make_cache_table, pause, stored, together, wait_until, weixin

CALLERS = 8
CROWD = 60
IN_TIME = 1.0 + SLACK  # seconds that each of them may take, the wait for a connection of its own included

REPEATABLE_READ = {"postgres": 3, "mariadb": "repeatable read"}  # 3: psycopg.IsolationLevel


def options(ground: Ground, *, pool: bool, isolation: str) -> dict[str, Any]:
    """Database settings: a pool of four (psycopg alone has one), and an isolation level."""
    options: dict[str, Any] = {"connect_timeout": 3}
    if pool and ground.vendor == "postgres":
        options["pool"] = {"min_size": 1, "max_size": 4, "timeout": 10}
    if isolation:
        options["isolation_level"] = REPEATABLE_READ[ground.vendor]
    return {"default": {"OPTIONS": options, "CONN_MAX_AGE": 0}}


def requests(appid: str, callers: int) -> list[dict[str, Any]]:
    """Scene: requests at one moment, each in a transaction that has read something before it needs the token."""
    from django.db import connections, transaction

    from wechat_token.models import Account

    def request() -> dict[str, Any]:
        began = time.monotonic()
        with transaction.atomic():
            assert Account.objects.exists()
            answer = ask(appid)
            assert Account.objects.exists(), "the transaction does not go on"
        connections.close_all()
        return answer | {"request": time.monotonic() - began}

    answers = together(callers, request, patience=8)
    pools = getattr(connections["default"], "pool", None)
    if pools is not None:
        connections["default"].close_pool()
    return answers


@on("postgres", "mariadb")
@pytest.mark.parametrize("isolation", ["", "repeatable read"])
def test_good_token__eight_requests_in_transactions_get_it_at_once(ground: Ground, isolation: str) -> None:
    """A fresh process reads it on the connections that the requests have already, or on few others."""
    appid = ground.account(token=True)
    databases = options(ground, pool=True, isolation=isolation)
    ground.quiet()
    with ground.counting() as connections:
        answers = ground.play(requests, appid, CALLERS, databases=databases)
    assert all(answers), "some hang"
    assert [answer.get("token") for answer in answers] == [ground.stored(appid)] * CALLERS, answers
    assert max(answer["request"] for answer in answers) < IN_TIME
    assert ground.fake.calls_to(appid, "stable") == 1, "the one that made the token"
    if ground.vendor == "postgres":
        assert max(connections) <= 4 + 4, "the pool's, and four of ours"


@on("postgres", "mariadb")
@pytest.mark.parametrize("isolation", ["", "repeatable read"])
def test_no_token__eight_requests_in_transactions_make_one_call(ground: Ground, isolation: str) -> None:
    appid = ground.account("classic")
    ground.slow(appid, 0.2)
    answers = ground.play(requests, appid, CALLERS, databases=options(ground, pool=True, isolation=isolation))
    assert all(answers), "some hang"
    assert [answer.get("token") for answer in answers] == [ground.stored(appid)] * CALLERS, answers
    assert max(answer["request"] for answer in answers) < IN_TIME
    assert ground.fake.calls_to(appid, "classic") == 1


@on("postgres", "mariadb", "sqlite")
def test_many_callers__of_a_cold_process_all_get_the_token(ground: Ground) -> None:
    """None is refused and none takes a connection while the first second of a fetch passes."""
    appid = ground.account("classic")
    ground.slow(appid, 0.2)
    if ground.vendor == "sqlite":
        answers = ground.play(crowd, appid)
    else:
        ground.quiet()
        with ground.counting() as connections:
            answers = ground.play(crowd, appid)
        assert max(connections) <= 8
    assert [answer.get("token") for answer in answers] == [ground.stored(appid)] * CROWD
    assert max(answer["seconds"] for answer in answers) < 1.5
    assert ground.fake.calls_to(appid, "classic") == 1


def crowd(appid: str) -> list[dict[str, Any]]:
    """Scene."""
    return together(CROWD, lambda: ask(appid))


def one_after_another(appids: list[str]) -> list[dict[str, Any]]:
    """Scene: a process that fetches one token after another, and then goes on with its own work."""
    from django.db import connections

    from wechat_token.models import Account

    answers = [ask(appid) for appid in appids]
    connections.close_all()
    answers += together(4, lambda: {"count": Account.objects.count()}, patience=4)
    connections["default"].close_pool()
    return answers


@on("postgres")
def test_cache_table__takes_no_connection_of_the_pool_for_good(ground: Ground) -> None:
    """DatabaseCache uses the site's own connections, also in threads of ours, which must give them back."""
    ground.play(make_cache_table)
    answers = ground.play(
        one_after_another, ground.accounts(8), databases=options(ground, pool=True, isolation=""),
        settings={"CACHES": CACHE_TABLE}, seconds=20,
    )  # fmt: skip
    assert all(answers), "the pool is empty"
    assert all(answer.keys() & {"token", "count"} for answer in answers), answers
    assert max(answer.get("seconds", 0.0) for answer in answers) < IN_TIME


def one_reader(appid: str) -> dict[str, Any]:
    """Scene: in a transaction; every connection that this process opens is counted."""
    from django.db import transaction
    from django.db.backends.signals import connection_created

    from wechat_token.models import Account

    opened: list[object] = []

    def count(connection: object, **kwargs: object) -> None:
        opened.append(connection)

    connection_created.connect(count)
    with transaction.atomic():
        assert Account.objects.exists()
        answer = ask(appid)
    return answer | {"opened": len(opened)}


@on("postgres", "mariadb")
def test_good_token__is_read_on_the_callers_own_connection(ground: Ground) -> None:
    """A connection more for each reader in a transaction is what a pool of the database's size runs out of."""
    appid = ground.account(token=True)
    told = ground.play(one_reader, appid)
    assert told["token"] == ground.stored(appid)
    assert told["opened"] == 1
    assert told["seconds"] < AT_ONCE


def old_snapshot(appid: str) -> dict[str, Any]:
    """Scene: this transaction's picture of the database is older than the token in use."""
    from django.db import transaction

    from wechat_token.models import Account

    with transaction.atomic():
        assert Account.objects.exists()
        pause()
        answer = ask(appid)
    return answer


def replace_token(appid: str) -> str:
    """Scene: the token dies at WeChat, and this process has it replaced."""
    token = ask(appid)["token"]
    weixin("kill_token", appid=appid)
    answer = ask(appid, stale=token)
    assert answer["token"] != token
    assert wait_until(lambda: stored(appid) == answer["token"]) is not None
    return str(answer["token"])


SQLITE_WAL = {"OPTIONS": {"timeout": 5, "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"}}


def old_snapshots(ground: Ground) -> dict[str, Any]:
    if ground.vendor == "sqlite":
        return {"default": SQLITE_WAL}
    return options(ground, pool=False, isolation="repeatable read")


def isolated_by_the_server(ground: Ground) -> dict[str, Any]:
    """The role or the database has another default than Django believes."""
    return {"default": {"OPTIONS": {"options": "-c default_transaction_isolation=repeatable\\ read"}}}


@on("postgres", "mariadb", "sqlite")
def test_old_snapshot__the_dead_token_in_it_is_not_served(ground: Ground) -> None:
    """REPEATABLE READ, and SQLite's WAL, show a transaction the token as it was when the transaction began."""
    assert_served_the_new_one(ground, old_snapshots(ground))


@on("postgres")
def test_old_snapshot__of_a_server_whose_default_it_is(ground: Ground) -> None:
    assert_served_the_new_one(ground, isolated_by_the_server(ground))


def assert_served_the_new_one(ground: Ground, databases: dict[str, Any]) -> None:
    appid = ground.account(token=True)
    play = ground.start(old_snapshot, appid, databases=databases)
    play.paused()
    token = ground.play(replace_token, appid)
    play.go_on()
    answer = play.result()
    assert answer["token"] == token, answer
    assert answer["seconds"] < AT_ONCE


def broken_transaction(appid: str) -> dict[str, Any]:
    """Scene: a statement of the caller's has failed, and its transaction takes no other."""
    from django.db import DatabaseError, connection, transaction

    answers = {}
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            with contextlib.suppress(DatabaseError):
                cursor.execute("SELECT no_such_column FROM wechat_token_token")
            answers["aborted"] = ask(appid)
            raise RuntimeError
    except RuntimeError:
        pass
    with transaction.atomic():
        transaction.set_rollback(True)
        answers["needs rollback"] = ask(appid)
    return answers


@on("postgres", "mariadb")
def test_broken_transaction__a_good_token_is_served_within_it(ground: Ground) -> None:
    appid = ground.account(token=True)
    told = ground.play(broken_transaction, appid, wechat={"MEMORY_SECONDS": 0})
    token = ground.stored(appid)
    assert {name: answer.get("token") for name, answer in told.items()} == {"aborted": token, "needs rollback": token}
