"""A caller in a transaction of its own asks for a token, and holds what the engine needs."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.live.readers import at_once

from .site import AT_ONCE, SLACK, WAIT, Ground, on
from .stage import CACHE_TABLE, add_key, aside, ask, make_cache_table, stored, wait_until, weixin

OWN_LOCK = 3.5  # seconds; about 2 s of a lock that is the caller's own, and what a busy machine adds
FETCH = 0.3  # seconds that WeChat takes
HEALS = 5.0


def take(lock: str, appid: str) -> None:
    from wechat_token.models import Account, Token

    match lock:
        case "nothing":
            assert Account.objects.filter(appid=appid).exists()
        case "account saved":
            account = Account.objects.get(appid=appid)
            account.name = "renamed in a transaction"
            account.save()
        case "account locked":
            Account.objects.select_for_update().get(appid=appid)
        case "token locked":  # on SQLite by taking the one write lock
            token = Token.objects.select_for_update().get(account__appid=appid)
            Token.objects.filter(pk=token.pk).update(egress_ip=token.egress_ip)


def inside(appid: str, lock: str, end: str = "roll back", calls: int = 1) -> dict[str, Any]:
    """Scene: ask while holding a lock, end the transaction, and do nothing more."""
    from django.db import transaction

    from wechat_token.models import RefreshLog

    with transaction.atomic():
        take(lock, appid)
        answers = [ask(appid) for _ in range(calls)]
        transaction.set_rollback(end == "roll back")
    heals = wait_until(lambda: stored(appid), HEALS)
    logged = wait_until(RefreshLog.objects.filter(ref=appid, outcome="renewed").exists, 2)
    return {"answers": answers, "heals": heals, "logged": logged is not None, "stored": stored(appid)}


def assert_answered(answer: dict[str, Any]) -> None:
    """R30: a token, or an error that names the lock, within about two seconds of a lock that is the caller's own."""
    assert answer["seconds"] < OWN_LOCK, answer
    if "token" not in answer:
        assert "TokenUnavailable" in answer["error"], answer
        assert "lock" in answer["text"].lower(), answer


def assert_nothing_is_lost(ground: Ground, appid: str, told: dict[str, Any]) -> None:
    """What WeChat issued last is in the database, without anybody asking again, and is what the next caller gets."""
    assert told["heals"] is not None, told
    assert told["logged"], "the refresh left no row in the log"
    assert ground.fake.issued(appid) == 1
    calls = ground.fake.calls_to(appid, "classic") + ground.fake.calls_to(appid, "stable")
    again = ground.play(ask, appid)
    assert again["token"] == told["stored"]
    assert ground.fake.is_valid(again["token"])
    assert ground.fake.calls_to(appid, "classic") + ground.fake.calls_to(appid, "stable") == calls


@on("postgres", "mariadb")  # on SQLite every lock is the one write lock: see the next test
@pytest.mark.parametrize("endpoint", ["classic", "stable"])
@pytest.mark.parametrize("lock", ["nothing", "account saved", "account locked"])
def test_lock_on_the_account__does_not_keep_a_token_away(ground: Ground, lock: str, endpoint: str) -> None:
    """A refresh writes the token's row, and its row in the log waits for nobody."""
    appid = ground.account(endpoint)
    ground.slow(appid, FETCH)
    told = ground.play(inside, appid, lock)
    [answer] = told["answers"]
    assert_answered(answer)
    assert ground.fake.is_valid(answer["token"])
    assert_nothing_is_lost(ground, appid, told)


@on("postgres", "mariadb", "sqlite", "sqlite-journal")
@pytest.mark.parametrize(
    ("endpoint", "end"), [("classic", "roll back"), ("classic", "commit"), ("stable", "roll back")]
)
def test_lock_on_the_token__ends_in_a_token_or_an_error_that_names_it(ground: Ground, endpoint: str, end: str) -> None:
    """The one lock a refresh needs: without it a stable call may leave, a classic one never."""
    appid = ground.account(endpoint)
    ground.slow(appid, FETCH)
    told = ground.play(inside, appid, "token locked", end, calls=2)
    for answer in told["answers"]:
        assert_answered(answer)
    tokens = {answer["token"] for answer in told["answers"] if "token" in answer}
    if endpoint == "stable":
        assert len(tokens) == 1
        assert told["answers"][1]["seconds"] < AT_ONCE, "the second call in the same transaction waited again"
    assert tokens <= {told["stored"]}
    assert_nothing_is_lost(ground, appid, told)


@on("sqlite-journal")
@pytest.mark.parametrize("endpoint", ["classic", "stable"])
def test_rollback_journal__a_reader_in_a_transaction_keeps_everybody_from_committing(
    ground: Ground, endpoint: str
) -> None:
    appid = ground.account(endpoint)
    ground.slow(appid, FETCH)
    told = ground.play(inside, appid, "nothing")
    assert_answered(told["answers"][0])
    assert_nothing_is_lost(ground, appid, told)


def store_locked_out(appid: str) -> dict[str, Any]:
    """Scene: a thread fetches; meanwhile another one locks the token's row and asks as well."""
    from django.db import transaction

    first: list[dict[str, Any]] = []
    leader = aside(lambda: first.append(ask(appid)))
    assert wait_until(lambda: weixin("calls_to", appid=appid, endpoint="classic")) is not None
    with transaction.atomic():
        take("token locked", appid)
        answer = ask(appid)
        held_until = time.monotonic()
        leader.join(10)
        transaction.set_rollback(True)
    heals = wait_until(lambda: stored(appid), HEALS)
    return {"answer": answer, "first": first, "late": time.monotonic() - held_until, "heals": heals,
            "stored": stored(appid)}  # fmt: skip


@on("postgres", "mariadb", "sqlite", "sqlite-journal")
def test_store_locked_out__both_get_the_token_after_the_first_attempt(ground: Ground) -> None:
    """WeChat has answered and the store waits for the lock of a caller that waits for the answer."""
    appid = ground.account("classic")
    ground.slow(appid, 0.6)
    told = ground.play(store_locked_out, appid)
    for answer in (told["answer"], *told["first"]):
        assert_answered(answer)
        assert answer["token"] == told["stored"]
    assert ground.fake.issued(appid) == 1
    assert ground.fake.is_valid(ground.play(ask, appid)["token"])


def locked_by_another_session(appid: str, seconds: float) -> dict[str, Any]:
    """Scene: ask in autocommit while a transaction of another session holds the token's row."""
    from django.db import transaction

    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            take("token locked", appid)
            taken.set()
            over.wait(seconds)

    holder = aside(hold)
    taken.wait(5)
    answer = ask(appid)
    over.set()
    holder.join()
    return {"answer": answer, "heals": wait_until(lambda: stored(appid), HEALS), "logged": True,
            "stored": stored(appid)}  # fmt: skip


@on("postgres", "mariadb", "sqlite")
@pytest.mark.parametrize("endpoint", ["classic", "stable"])
def test_lock_of_another_session__error_in_time_then_the_account_heals(ground: Ground, endpoint: str) -> None:
    appid = ground.account(endpoint)
    told = ground.play(locked_by_another_session, appid, 12, seconds=16)
    answer = told["answer"]
    assert answer["seconds"] < WAIT + SLACK, answer
    if "token" not in answer:
        assert "lock" in answer["text"].lower(), answer
    assert_nothing_is_lost(ground, appid, told)


def table_locked(appid: str, seconds: float) -> dict[str, Any]:
    """Scene: a migration of another session holds the whole table; this caller sits in a transaction."""
    from django.db import connection, transaction

    from wechat_token.models import Account

    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            how = "WRITE" if connection.vendor == "mysql" else "IN ACCESS EXCLUSIVE MODE"
            noun = "TABLES" if connection.vendor == "mysql" else "TABLE"
            cursor.execute(f"LOCK {noun} wechat_token_token {how}")
            taken.set()
            over.wait(seconds)
            if connection.vendor == "mysql":
                cursor.execute("UNLOCK TABLES")

    holder = aside(hold)
    taken.wait(5)
    with transaction.atomic():
        Account.objects.exists()
        answer = ask(appid)
        goes_on = Account.objects.filter(appid=appid).exists()
    over.set()
    holder.join()
    return {"answer": answer, "goes on": goes_on, "later": ask(appid)}


@on("postgres", "mariadb")
def test_table_locked_by_a_migration__error_in_time_and_the_transaction_goes_on(ground: Ground) -> None:
    appid = ground.account(token=True)
    told = ground.play(table_locked, appid, 10, seconds=16)
    assert told["answer"]["seconds"] < WAIT + SLACK, told["answer"]
    assert "lock" in told["answer"]["text"].lower(), told["answer"]
    assert told["goes on"]
    assert told["later"]["token"] == ground.stored(appid)


def several_processes(appid: str, processes: int) -> list[dict[str, Any]]:
    """Scene: processes at one moment, each in a transaction."""
    from django.db import transaction

    def work() -> dict[str, Any]:
        with transaction.atomic():
            take("nothing", appid)
            answer = ask(appid)
        time.sleep(1.0)  # a process that serves requests lives longer than one of them
        return answer

    return at_once(processes, work)


@on("postgres", "mariadb")
@pytest.mark.parametrize("endpoint", ["classic", "stable"])
def test_four_processes__in_transactions_make_one_call(ground: Ground, endpoint: str) -> None:
    appid = ground.account(endpoint)
    ground.slow(appid, FETCH)
    answers = ground.play(several_processes, appid, 4)
    assert {answer["token"] for answer in answers} == {ground.stored(appid)}
    assert ground.fake.calls_to(appid, endpoint) == 1
    assert max(answer["seconds"] for answer in answers) < WAIT


@on("sqlite-journal")
@pytest.mark.parametrize("endpoint", ["classic", "stable"])
def test_four_processes__on_one_file_end_with_one_token(ground: Ground, endpoint: str) -> None:
    """All four read inside a transaction, so none of them can write: classic must not call, stable may."""
    appid = ground.account(endpoint)
    ground.slow(appid, FETCH)
    answers = ground.play(several_processes, appid, 4)
    for answer in answers:
        assert_answered(answer)
    assert ground.fake.issued(appid) == 1
    assert ground.play(ask, appid)["token"] == ground.stored(appid)
    if endpoint == "stable":
        assert {answer["token"] for answer in answers} == {ground.stored(appid)}
    else:
        assert ground.fake.calls_to(appid, "classic") == 1


def cache_row(appid: str) -> dict[str, Any]:
    """Scene: the site's cache is a table of the same database, and the token dies within the caller's transaction."""
    from django.db import transaction

    with transaction.atomic():
        token = ask(appid)["token"]
        weixin("kill_token", appid=appid)
        answer = ask(appid, stale=token)
        transaction.set_rollback(True)
    return {"answer": answer, "old": token, "again": ask(appid, stale=token)}


@on("postgres", "mariadb", "sqlite")
def test_cache_table__a_row_written_in_the_callers_transaction_holds_up_nobody(ground: Ground) -> None:
    """DatabaseCache: what a read wrote there is locked until the caller's transaction ends."""
    appid = ground.account(token=True)
    ground.play(make_cache_table)
    told = ground.play(cache_row, appid, settings={"CACHES": CACHE_TABLE}, wechat={"CACHE_SECONDS": 0})
    assert_answered(told["answer"])
    if ground.vendor != "sqlite":  # whose one lock is the caller's
        assert told["answer"]["token"] == told["again"]["token"]
    assert told["again"]["token"] == ground.stored(appid) != told["old"]
    assert ground.fake.is_valid(told["again"]["token"])


def new_account(appid: str) -> dict[str, Any]:
    """Scene: ask for an account that this very transaction has made."""
    from django.db import transaction

    from wechat_token.models import Account

    with transaction.atomic():
        Account.objects.create(appid=appid, secret="whatever-the-form-said", endpoint="stable")
        answer = ask(appid)
        transaction.set_rollback(True)
    return answer


@on("postgres", "mariadb", "sqlite")
def test_account_of_the_same_transaction__is_not_found_and_no_call_leaves(ground: Ground) -> None:
    """WeChat's answer must be stored whatever becomes of the transaction, and there is no row yet to store it in."""
    appid = "wxnotyetcommitted0"
    answer = ground.play(new_account, appid)
    assert "AccountNotFound" in answer["error"], answer
    assert answer["seconds"] < OWN_LOCK
    assert ground.fake.calls_to(appid, "stable") == 0


def http_view_in_a_transaction(appid: str, key: str) -> dict[str, Any]:
    """Scene: ATOMIC_REQUESTS, and a middleware of the site that has locked the account's row."""
    from django.test import Client

    began = time.monotonic()
    answer = Client().get(f"/wechat/accounts/{appid}/access_token", headers={"Authorization": f"Bearer {key}"})
    return {"status": answer.status_code, "seconds": time.monotonic() - began, **answer.json()}


@on("postgres", "mariadb", "sqlite")
def test_atomic_requests__the_http_service_fetches(ground: Ground) -> None:
    appid = ground.account("stable")
    key = ground.play(add_key, "--account", appid)
    answer = ground.play(
        http_view_in_a_transaction, appid, key,
        databases={"default": {"ATOMIC_REQUESTS": True}}, settings={"ALLOWED_HOSTS": ["testserver"]},
    )  # fmt: skip
    assert answer["status"] == 200, answer
    assert answer["access_token"] == ground.stored(appid)
    assert answer["seconds"] < OWN_LOCK
