"""The async twins: an account that hangs costs nobody but those who wait for it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from .site import AT_ONCE, SLACK, WAIT, Ground, on
from .stage import heard, weixin

HANGS = 2.0
ENOUGH = 0.5  # seconds for an account that has a token


async def aask(appid: str, *, stale: str = "") -> dict[str, Any]:
    """What a coroutine gets, and after how many seconds."""
    from wechat_token import aget_access_token, arefresh_access_token

    began = time.monotonic()
    try:
        token = await (arefresh_access_token(appid, stale_token=stale) if stale else aget_access_token(appid))
    except Exception as exc:
        return heard(exc) | {"seconds": time.monotonic() - began}
    return {"token": token, "seconds": time.monotonic() - began}


async def beats(beaten: list[float]) -> None:
    """How long the loop stood still, each time."""
    while True:
        began = time.monotonic()
        await asyncio.sleep(0.01)
        beaten.append(time.monotonic() - began - 0.01)


async def seen(appid: str, endpoint: str) -> None:
    """Wait until WeChat has been asked."""
    while not await asyncio.to_thread(weixin, "calls_to", appid=appid, endpoint=endpoint):
        await asyncio.sleep(0.02)


def beside(hanging: str, good: str, pause: float) -> dict[str, Any]:
    """Scene: ``hanging`` is asked for first, then ``good``, twice with a pause between."""

    async def run() -> dict[str, Any]:
        beaten: list[float] = []
        heart = asyncio.create_task(beats(beaten))
        first = asyncio.create_task(aask(hanging))
        await asyncio.wait_for(seen(hanging, "stable"), 3)
        answers = [await aask(good)]
        await asyncio.sleep(pause)
        answers += [await aask(good)]
        heart.cancel()
        return {"good": answers, "stood still": max(beaten), "hanging": await first}

    return asyncio.run(run())


@on("postgres", "mariadb", "sqlite")
def test_hanging_account__the_other_one_is_served_at_once(ground: Ground) -> None:
    """``good`` has a token in the database that this process has not seen yet, later one that is due for a look."""
    hanging, good = ground.account(), ground.account(token=True)
    ground.slow(hanging, HANGS)
    told = ground.play(beside, hanging, good, 0.3, wechat={"MEMORY_SECONDS": 0.1})
    for answer in told["good"]:
        assert answer["token"] == ground.stored(good)
        assert answer["seconds"] < ENOUGH, told
    assert told["stood still"] < AT_ONCE, "the loop waited"
    assert told["hanging"]["token"] == ground.stored(hanging)


def fetch_beside(hanging: str, other: str) -> dict[str, Any]:
    """Scene: two accounts without a token."""

    async def run() -> dict[str, Any]:
        first = asyncio.create_task(aask(hanging))
        await asyncio.wait_for(seen(hanging, "stable"), 3)
        return {"other": await aask(other), "hanging": await first}

    return asyncio.run(run())


@on("postgres", "mariadb", "sqlite")
def test_hanging_account__the_other_one_is_fetched_meanwhile(ground: Ground) -> None:
    hanging, other = ground.account(), ground.account()
    ground.slow(hanging, HANGS)
    told = ground.play(fetch_beside, hanging, other)
    assert told["other"]["token"] == ground.stored(other)
    assert told["other"]["seconds"] < ENOUGH, told


def complain_beside(hanging: str, good: str) -> dict[str, Any]:
    """Scene: a complaint is under way about one account, whose probe hangs."""

    async def run() -> dict[str, Any]:
        token = (await aask(hanging))["token"]
        await asyncio.to_thread(weixin, "inject", kind="slow", seconds=HANGS, times=10, appid=hanging)
        complaint = asyncio.create_task(aask(hanging, stale=token))
        await asyncio.sleep(0.3)
        return {"good": await aask(good), "complaint": await complaint, "old": token}

    return asyncio.run(run())


@on("postgres", "mariadb", "sqlite")
def test_complaint__does_not_hold_up_another_account(ground: Ground) -> None:
    hanging, good = ground.account(token=True), ground.account(token=True)
    told = ground.play(complain_beside, hanging, good)
    assert told["good"]["token"] == ground.stored(good)
    assert told["good"]["seconds"] < ENOUGH, told
    assert told["complaint"]["token"] == told["old"], "WeChat accepts it"


def hang_for_good(appid: str, callers: int) -> list[dict[str, Any]]:
    """Scene: coroutines that all want a token which does not come."""

    async def run() -> list[dict[str, Any]]:
        return await asyncio.gather(*(aask(appid) for _ in range(callers)))

    return asyncio.run(run())


@on("sqlite")
def test_hanging_account__its_own_callers_wait_no_longer_than_their_limit(ground: Ground) -> None:
    appid = ground.account()
    ground.hang(appid)
    answers = ground.play(hang_for_good, appid, 12)
    assert all("TokenUnavailable" in answer["error"] for answer in answers), answers
    assert max(answer["seconds"] for answer in answers) < WAIT + SLACK, answers


def cancelled(appid: str) -> dict[str, Any]:
    """Scene: the first who asked gives up; the second waits on."""

    async def run() -> dict[str, Any]:
        first = asyncio.create_task(aask(appid))
        await asyncio.wait_for(seen(appid, "classic"), 3)
        second = asyncio.create_task(aask(appid))
        await asyncio.sleep(0.1)
        first.cancel()
        answer = await second
        return {"first": first.cancelled(), "second": answer, "third": await aask(appid)}

    return asyncio.run(run())


@on("postgres", "mariadb", "sqlite")
def test_cancelled_coroutine__takes_nobody_along(ground: Ground) -> None:
    appid = ground.account("classic")
    ground.slow(appid, 0.6)
    told = ground.play(cancelled, appid)
    assert told["second"].get("token") == ground.stored(appid) == told["third"]["token"], told
    assert ground.fake.calls_to(appid, "classic") == 1
