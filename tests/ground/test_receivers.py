"""R30, R33: who listens to a signal, and who gives up waiting, costs only itself."""

from __future__ import annotations

import ctypes
import threading
import time
from typing import Any

import pytest

from wechat_token.sandbox import Fault

from .site import Ground, on
from .stage import aside, ask, heard, together, wait_until


def receiver_that_asks(appid: str, name: str) -> dict[str, Any]:
    """Scene: a receiver wants the very token whose refresh it hears of."""
    from wechat_token import signals

    told: list[dict[str, Any]] = []

    def receiver(**payload: Any) -> None:
        told.append(ask(appid))

    getattr(signals, name).connect(receiver)
    answer = ask(appid)
    wait_until(lambda: told, 10)
    return {"answer": answer, "told": told}


@on("sqlite")
@pytest.mark.parametrize("signal", ["attention_needed", "refresh_finished"])
def test_receiver__that_asks_for_the_token_does_not_wait_for_itself(ground: Ground, signal: str) -> None:
    appid = ground.account()
    ground.fake.freeze(appid)
    played = ground.play(receiver_that_asks, appid, signal, seconds=20)
    [told] = played["told"]
    assert told["seconds"] < 1.5
    assert "TokenUnavailable" in told["error"]
    assert "frozen" in told["text"]
    assert played["answer"]["seconds"] < 2


@on("sqlite")
def test_receiver__that_asks_gets_the_new_token_at_once(ground: Ground) -> None:
    appid = ground.account("classic", token=True)
    ground.fake.kill_token(appid)
    played = ground.play(receiver_that_complains, appid, ground.stored(appid), seconds=20)
    assert [told.get("token") for told in played["told"]] == [played["answer"]["token"]]
    assert played["told"][0]["seconds"] < 1.5


def receiver_that_complains(appid: str, stale: str) -> dict[str, Any]:
    """Scene: as a receiver does that tries the token it hears of, and finds the one it knew refused."""
    from wechat_token import signals

    told: list[dict[str, Any]] = []

    def receiver(**payload: Any) -> None:
        told.append(ask(appid, stale=stale))

    signals.refresh_finished.connect(receiver)
    answer = ask(appid, stale=stale)
    wait_until(lambda: told, 10)
    return {"answer": answer, "told": told}


SLEEP = 4.0


def slow_receiver(appids: list[str]) -> list[dict[str, Any]]:
    """Scene: cold callers of some accounts, while a receiver sleeps."""
    from wechat_token import signals

    def receiver(**payload: Any) -> None:
        time.sleep(SLEEP)

    signals.refresh_finished.connect(receiver)
    asking = iter(appids * 3)
    return together(3 * len(appids), lambda: ask(next(asking)))


@on("sqlite", "postgres", "mariadb")
def test_receiver__that_sleeps_holds_up_nobody(ground: Ground) -> None:
    """Neither who asked first nor who came later, nor the process at its end."""
    appids = ground.accounts(2)
    began = time.monotonic()
    answers = ground.play(slow_receiver, appids)
    assert [answer for answer in answers if "token" not in answer] == []
    assert max(answer["seconds"] for answer in answers) < 2
    assert time.monotonic() - began < SLEEP


class Abandoned(BaseException):
    """As gevent's Timeout: raised in a caller from outside, and no ``Exception``."""


def abandoned_caller(appid: str) -> list[dict[str, Any]]:
    """Scene: the first caller is told to give up while WeChat is slow; others wait for the same token."""

    def caller() -> dict[str, Any]:
        try:
            return ask(appid)
        except Abandoned as exc:
            return heard(exc)

    first = aside(caller)
    time.sleep(0.2)
    threading.Timer(0.2, raise_in, (first.ident,)).start()
    return together(3, caller)


def raise_in(thread: int | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread or 0), ctypes.py_object(Abandoned))


@on("sqlite", "postgres", "mariadb")
@pytest.mark.parametrize("endpoint", ["classic", "stable"])
def test_caller__that_is_abandoned_takes_nobody_with_it(ground: Ground, endpoint: str) -> None:
    """The others get the token of the one call that left, and it is stored."""
    appid = ground.account(endpoint)
    ground.fake.inject(Fault("slow", seconds=0.8), appid=appid)
    answers = ground.play(abandoned_caller, appid, seconds=20)
    assert [answer for answer in answers if "token" not in answer] == []
    assert len({answer["token"] for answer in answers}) == 1
    assert ground.fake.is_valid(answers[0]["token"])
    assert ground.stored(appid) == answers[0]["token"]
    assert ground.fake.calls_to(appid, endpoint) == 1
