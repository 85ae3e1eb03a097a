"""R33: one client that complains without pause does not crowd out another that is right."""

from __future__ import annotations

import datetime as dt
import threading
import time
from contextlib import suppress
from typing import Any

from .site import Ground, on
from .stage import aside, weixin


def hammered(appid: str) -> dict[str, Any]:
    """Scene: many threads of one client go on complaining when its allowance is used up, and then it is true."""
    from wechat_token import clock, get_access_token, refresh_access_token
    from wechat_token.exceptions import RefreshRateLimited, TokenUnavailable

    token, now, passed = get_access_token(appid), clock.now, 0.0
    clock.now = lambda: now() + dt.timedelta(seconds=passed)
    for _ in range(12):
        passed += 11.0
        with suppress(RefreshRateLimited):
            refresh_access_token(appid, stale_token=token, client="A")
    over = threading.Event()

    def hammer() -> None:
        while not over.is_set():
            with suppress(TokenUnavailable):
                refresh_access_token(appid, stale_token=token, client="A")

    for _ in range(6):
        aside(hammer)
    time.sleep(0.3)
    weixin("kill_token", appid=appid)
    try:
        return {"token": refresh_access_token(appid, stale_token=token, client="B")}
    except TokenUnavailable as exc:
        return {"error": repr(exc)}
    finally:
        over.set()


@on("sqlite")
def test_false_complaints__without_pause_do_not_crowd_out_anothers(ground: Ground) -> None:
    """Complaints of one process about one token are answered together; a refusal is its client's alone."""
    appid = ground.account("classic")
    played = ground.play(hammered, appid, seconds=20)
    assert "token" in played, played["error"]
    assert ground.fake.is_valid(played["token"])
