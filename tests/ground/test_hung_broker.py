"""R7, R33: telling a worker is not renewing, and a process that ends waits for neither."""

from __future__ import annotations

import datetime as dt
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from wechat_token.sandbox import Fault

from .site import SECRET, Ground, on
from .stage import ask, wait_until


@pytest.fixture
def hung_broker() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        yield f"redis://127.0.0.1:{silent.getsockname()[1]}/0"


def edits_and_a_read(appid: str, more: list[str], broker: str) -> dict[str, Any]:
    """Scene: an operator adds accounts, each of which is told to a worker; a caller finds a token overdue."""
    from celery import current_app

    from wechat_token import clock
    from wechat_token.models import Account, Token

    current_app.conf.update(
        broker_url=broker, broker_write_url=broker, broker_transport_options={"socket_timeout": 5, "max_retries": 0}
    )
    began = time.monotonic()
    for added in more:
        Account.objects.create(appid=added, secret=SECRET)
    saved = time.monotonic() - began
    due = Token.objects.filter(account__appid=appid)
    due.update(due_at=clock.now() - dt.timedelta(hours=1))
    answer = ask(appid)
    return {"saved": saved, "answer": answer, "renewed": wait_until(lambda: due.get().due_at > clock.now(), 3)}


@on("sqlite", "postgres")
def test_broker__that_hangs_stops_no_renewal_and_no_exit(ground: Ground, hung_broker: str) -> None:
    appid = ground.account(token=True)
    more = [f"{appid}-{number}" for number in range(6)]
    for added in more:
        ground.fake.add_account(added, SECRET)
    began = time.monotonic()
    played = ground.play(edits_and_a_read, appid, more, hung_broker, seconds=40)
    ended = time.monotonic() - began
    assert "token" in played["answer"]
    assert played["answer"]["seconds"] < 1
    assert played["renewed"] is not None, "nobody renewed"
    assert played["saved"] < 2
    assert ended - played["renewed"] - played["saved"] < 3


def renewal_under_way(appid: str) -> float:
    """Scene: a caller is served an overdue token, and its process ends while the renewal hangs."""
    from wechat_token import clock
    from wechat_token.models import Token

    Token.objects.filter(account__appid=appid).update(due_at=clock.now() - dt.timedelta(hours=1))
    assert "token" in ask(appid)
    time.sleep(0.3)
    return time.time()


@on("sqlite", "postgres")
@pytest.mark.parametrize("endpoint", ["classic", "stable"])
def test_exit__does_not_wait_for_wechat(ground: Ground, endpoint: str) -> None:
    """The intent is in the row: whoever comes next repairs, and the token in hand is served meanwhile."""
    appid = ground.account(endpoint, token=True)
    ground.fake.inject(Fault("hang_before", seconds=8), appid=appid)
    last_word = ground.play(renewal_under_way, appid, wechat={"REQUEST_DEADLINE": 8.0}, seconds=20)
    assert time.time() - last_word < 2.5
    assert ground.fake.is_valid(ground.play(ask, appid)["token"])
