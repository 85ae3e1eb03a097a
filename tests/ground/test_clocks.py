"""Hosts whose clocks differ."""

from __future__ import annotations

from typing import Any

import pytest

from .site import Ground, on
from .stage import add_key, ask, pause, shift_clock, wait_until

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


def reading(appid: str, key: str, by: float, ends_in: float) -> int:
    """Scene: a host whose clock is wrong reads over HTTP by a key that ends so many seconds from now."""
    import datetime as dt

    from django.test import Client

    from wechat_token.models import ClientKey

    ClientKey.objects.update(expires_at=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=ends_in))
    shift_clock(by)
    path = f"/wechat/accounts/{appid}/access_token"
    return Client(SERVER_NAME="localhost").get(path, headers={"Authorization": f"Bearer {key}"}).status_code


@on("postgres", "mariadb")
@pytest.mark.parametrize(("by", "ends_in", "status"), [(3600, 1800, 200), (-3600, -1800, 401)])
def test_key__ends_by_the_sites_time_not_the_hosts(ground: Ground, by: float, ends_in: float, status: int) -> None:
    appid = ground.account("stable")
    key = ground.play(add_key, "--account", appid)
    assert ground.play(reading, appid, key, by, ends_in) == status
