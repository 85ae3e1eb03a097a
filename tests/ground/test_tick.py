"""Beat's tick, as a task function of Celery, while WeChat is slow or does not answer."""

from __future__ import annotations

import threading
import time
from typing import Any

from tests.live.readers import at_once
from wechat_token.sandbox import Fault

from .site import Ground, on
from .stage import all_asked, ask, pause, shift_clock, stored, together, wait_until

DEADLINE = 2.0
TICK = {"DRAIN_DEADLINE": DEADLINE, "BATCH_THREADS": 4}


def tick() -> dict[str, Any]:
    """Scene."""
    from wechat_token.tasks import refresh_due_tokens

    began = time.monotonic()
    try:
        outcomes = refresh_due_tokens()
    except Exception as exc:
        return {"error": repr(exc), "seconds": time.monotonic() - began}
    return {"outcomes": outcomes, "seconds": time.monotonic() - began}


@on("postgres", "mariadb", "sqlite")
def test_hung_weixin__a_tick_ends_at_its_deadline(ground: Ground) -> None:
    """It holds a Celery child, which the site's other tasks wait for."""
    ground.clear()
    ground.accounts(24, "classic")
    ground.fake.outage(fault=Fault("hang_before", seconds=30))
    told = ground.play(tick, wechat=TICK, seconds=18)
    assert told["seconds"] < DEADLINE + 1.0, told


@on("postgres", "mariadb", "sqlite")
def test_hung_account__the_others_are_renewed_in_the_same_tick(ground: Ground) -> None:
    """R33: more hanging accounts than threads, all of them due before the others."""
    ground.clear()
    hanging = ground.accounts(6, "classic")
    for appid in hanging:
        ground.hang(appid)
    good = ground.accounts(6, "classic")
    told = ground.play(tick, wechat=TICK | {"DRAIN_DEADLINE": 4.0}, seconds=18)
    assert told["seconds"] < 5.0, told
    assert all(ground.play(all_stored, good)), told


def all_stored(appids: list[str]) -> list[str]:
    """Scene."""
    return [stored(appid) for appid in appids]


def watched_tick(appids: list[str]) -> dict[str, Any]:
    """Scene: a tick in a thread, as in a Celery child; what is open while WeChat is asked about all accounts."""
    from django.db import connections

    results = []

    def run() -> None:
        results.append(tick())
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    asked = wait_until(lambda: all_asked(appids, "classic"))
    time.sleep(0.15)
    pause(asked)
    thread.join()
    return results[0]


@on("postgres", "mariadb")
def test_waiting_for_weixin__a_tick_holds_no_connection_but_its_callers(ground: Ground) -> None:
    """R35."""
    ground.clear()
    appids = ground.accounts(8, "classic")
    for appid in appids:
        ground.slow(appid, 1.5)
    ground.quiet()
    play = ground.start(watched_tick, appids, wechat={"DRAIN_DEADLINE": 5.0, "BATCH_THREADS": 8})
    assert play.paused() is not None, "not all accounts were asked about at the same time"
    during = ground.connections()
    play.go_on()
    told = play.result()
    assert during <= 1, told
    assert all(ground.play(all_stored, appids)), told


def watched_callers(appids: list[str]) -> list[Any]:
    """Scene: callers without a token, one for each account; what is open while WeChat is asked."""
    answers: list[Any] = []
    waiting = list(appids)

    def run() -> None:
        answers.extend(together(len(appids), lambda: ask(waiting.pop())))

    thread = threading.Thread(target=run)
    thread.start()
    asked = wait_until(lambda: all_asked(appids, "stable"))
    time.sleep(0.15)
    pause(asked)
    thread.join()
    return answers


@on("postgres", "mariadb")
def test_waiting_for_weixin__callers_hold_no_connection(ground: Ground) -> None:
    appids = ground.accounts(8)
    for appid in appids:
        ground.slow(appid, 1.5)
    ground.quiet()
    play = ground.start(watched_callers, appids)
    assert play.paused() is not None
    during = ground.connections()
    play.go_on()
    answers = play.result()
    assert all("token" in answer for answer in answers), answers
    assert during == 0


def two_ticks() -> list[dict[str, Any]]:
    """Scene: two Celery children of one host get the same tick; how many statements each sends."""
    from django.db.backends.signals import connection_created

    statements: list[str] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append(sql)
        return execute(sql, params, many, context)

    def opened(connection: Any, **kwargs: Any) -> None:
        connection.execute_wrappers.append(watch)

    connection_created.connect(opened)
    return at_once(2, lambda: tick() | {"statements": len(statements)})


@on("postgres", "mariadb", "sqlite")
def test_overlapping_ticks__of_one_host_do_not_do_the_same_work(ground: Ground) -> None:
    ground.clear()
    appids = ground.accounts(24, "classic")
    for appid in appids:
        ground.slow(appid, 0.2)
    ticks = ground.play(two_ticks, wechat={"BATCH_THREADS": 8, "DRAIN_DEADLINE": 8.0}, seconds=15)
    assert [ground.fake.calls_to(appid, "classic") for appid in appids] == [1] * 24
    assert sum(sum(told["outcomes"].values()) for told in ticks) == 24, ticks
    idle, _busy = sorted(ticks, key=lambda told: told["statements"])
    assert idle["statements"] < 16, ticks
    assert idle["seconds"] < 1.0, ticks


def late_tick() -> dict[str, Any]:
    """Scene: a tick that looked at the clock a moment ago and gets to the database only now."""
    shift_clock(-1.5)
    return tick()


@on("postgres", "mariadb", "sqlite")
def test_second_tick__that_looked_at_the_clock_earlier_does_not_take_over(ground: Ground) -> None:
    """Of two processes that start at one moment, the first to read the clock need not be the first to write."""
    ground.clear()
    appids = ground.accounts(2, "classic")
    for appid in appids:
        ground.slow(appid, 1.6)
    first = ground.start(tick, wechat={"BATCH_THREADS": 1})
    assert wait_until(lambda: sum(ground.fake.calls_to(appid, "classic") for appid in appids)) is not None
    second = ground.play(late_tick, wechat={"BATCH_THREADS": 1})
    assert second["outcomes"] == {}, "both work on what is due"
    assert first.result()["outcomes"] == {"renewed": 2}


@on("sqlite")
def test_more_than_a_batch__one_tick_goes_on_until_nothing_is_due(ground: Ground) -> None:
    ground.clear()
    appids = ground.accounts(12, "classic")
    told = ground.play(tick, wechat={"BATCH_SIZE": 5})
    assert all(ground.play(all_stored, appids)), told


@on("postgres", "sqlite")
def test_killed_tick__another_one_takes_over_when_its_deadline_has_passed(ground: Ground) -> None:
    """Celery's child was killed; the host must not be kept from renewing by what it said of itself."""
    ground.clear()
    appids = ground.accounts(4, "classic")
    ground.fake.outage(fault=Fault("hang_before", seconds=30))
    play = ground.start(tick, wechat=TICK)
    assert wait_until(lambda: ground.fake.calls_to(appids[0], "classic")) is not None
    play.kill()
    ground.fake.clear_faults()
    told = ground.play(ticks_until_stored, appids, wechat=TICK, seconds=20)
    assert told is not None
    assert told < DEADLINE + 5.0 + 1.0, "the deadline of a drain, a lease, and a tick"


def ticks_until_stored(appids: list[str]) -> float | None:
    """Scene: beat ticks on."""

    def all_are() -> bool:
        tick()
        time.sleep(0.2)
        return all(all_stored(appids))

    return wait_until(all_are, 12)


def add_odd_row(appid: str) -> None:
    """Scene: a row of a kind that this version does not know, as a newer version on another host makes them."""
    from wechat_token import clock
    from wechat_token.models import Account, Token

    account = Account.objects.get(appid=appid)
    Token.objects.create(account=account, kind="ticket_of_tomorrow", due_at=clock.now() - clock.dt.timedelta(hours=1))


@on("postgres", "mariadb", "sqlite")
def test_row_of_an_unknown_kind__does_not_stop_the_tick(ground: Ground) -> None:
    ground.clear()
    appids = ground.accounts(3, "classic")
    ground.play(add_odd_row, appids[0])
    for _ in range(2):
        told = ground.play(tick, wechat={"BATCH_THREADS": 1})
        assert "error" not in told, told
    assert all(ground.play(all_stored, appids)), told
    assert ground.play(ask, appids[0])["token"]
