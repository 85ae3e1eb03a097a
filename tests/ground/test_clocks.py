"""Hosts whose clocks differ."""

from __future__ import annotations

from typing import Any

import pytest

from .site import Ground, on
from .stage import ask, pause, shift_clock, wait_until

LEASE = {"REQUEST_DEADLINE": 10.0, "LEASE_MARGIN": 5.0, "WAIT_TIMEOUT": 8.0}  # the defaults: 15 s


def shifted(appid: str, by: float) -> dict[str, Any]:
    """Scene: a host whose clock is wrong by so many seconds."""
    shift_clock(by)
    pause()
    return ask(appid)


@on("postgres", "mariadb")  # processes that share an SQLite file share their host's clock
@pytest.mark.parametrize("by", [16.0, -16.0])
def test_clocks_apart_by_more_than_a_lease__one_classic_call(ground: Ground, by: float) -> None:
    """A second call would kill the first one's token: the lease of a host must hold for one with another time."""
    appid = ground.account("classic")
    ground.slow(appid, 1.2)
    right = ground.start(shifted, appid, 0.0, wechat=LEASE)
    wrong = ground.start(shifted, appid, by, wechat=LEASE)
    for play in (right, wrong):
        play.paused()
    right.go_on()
    assert wait_until(lambda: ground.fake.calls_to(appid, "classic")) is not None
    wrong.go_on()
    answers = [right.result(), wrong.result()]
    assert [answer.get("token") for answer in answers] == [ground.stored(appid)] * 2, answers
    assert ground.fake.calls_to(appid, "classic") == 1
