"""Tickets asked for by many at once, and inside transactions, on threads and connections as a running site has them."""

from __future__ import annotations

import threading
import time as real_time
from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import Group
from django.db import connections, transaction

from tests.conftest import APPID, SECRET
from wechat_token import get_access_token, get_ticket
from wechat_token.engine import ground, lifecycle, settle
from wechat_token.exceptions import TokenUnavailable
from wechat_token.models import Account, Token
from wechat_token.platforms import transport
from wechat_token.sandbox import FakeWeChat
from wechat_token.sandbox.testing import fake_wechat

pytestmark = pytest.mark.usefixtures("own_connections")


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWeChat]:
    monkeypatch.setattr(lifecycle, "tell_worker", lambda token_id: None)
    with fake_wechat(FakeWeChat(seed=1)) as fake:
        fake.add_account(APPID, SECRET)
        yield fake


def at_once(*works: Callable[[], str]) -> list[str | Exception]:
    """What each of them gets, asked at one moment on a thread of its own."""
    start, got = threading.Barrier(len(works)), []

    def run(work: Callable[[], str]) -> None:
        start.wait()
        try:
            got.append(work())
        except Exception as exc:
            got.append(exc)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_get_ticket__a_crowd_without_a_token_makes_two_calls(sandbox):
    Account.objects.create(appid=APPID, secret=SECRET)
    works = [lambda: get_ticket(APPID), lambda: get_ticket(APPID, "wx_card"), lambda: get_access_token(APPID)] * 4
    got = at_once(*works)
    assert len(set(got)) == 3
    assert (sandbox.calls_to(APPID, "stable"), sandbox.calls_to(APPID, "ticket")) == (1, 2)


def test_get_ticket__as_many_accounts_as_may_fetch_at_once(sandbox):
    """Each of these flights waits for another one: those must not be the ones that have no place any more (R20)."""
    appids = [f"wx{number:016x}" for number in range(ground.CALLERS_FLIGHTS)]
    for appid in appids:
        sandbox.add_account(appid, SECRET)
        Account.objects.create(appid=appid, secret=SECRET)
    got = at_once(*[lambda appid=appid: get_ticket(appid) for appid in appids])
    assert [each for each in got if isinstance(each, Exception)] == []
    assert len(set(got)) == len(appids)


def test_get_ticket__while_the_token_is_waited_for_no_connection_is_held(sandbox, monkeypatch):
    """R35: more hung accounts than the process has private connections, and others get their tokens all the same."""
    call, hung, go_on = transport.call, [], threading.Event()
    appids = [f"wx{number:016x}" for number in range(6)]

    def hangs(method, path, **options):
        if (options.get("json") or {}).get("appid") in appids:
            hung.append(path)
            go_on.wait(20)
        return call(method, path, **options)

    monkeypatch.setattr(transport, "call", hangs)
    for appid in appids:
        sandbox.add_account(appid, SECRET)
        Account.objects.create(appid=appid, secret=SECRET)
    Account.objects.create(appid=APPID, secret=SECRET)
    waiting = threading.Thread(target=at_once, args=[lambda appid=appid: get_ticket(appid) for appid in appids])
    waiting.start()
    try:
        end = real_time.monotonic() + 10
        while len(hung) < len(appids) and real_time.monotonic() < end:
            real_time.sleep(0.01)
        begun = real_time.monotonic()
        assert sandbox.is_valid(get_ticket(APPID))
        assert real_time.monotonic() - begun < 3
    finally:
        go_on.set()
        waiting.join()
    assert sandbox.calls_to(appids[0], "ticket") == 1


@pytest.mark.parametrize("wrote", [False, True])
def test_get_ticket__inside_the_callers_transaction(sandbox, wrote):
    """On SQLite its lock keeps everybody from writing: plain requests that displace nothing go first (R1)."""
    Account.objects.create(appid=APPID, secret=SECRET)
    get_ticket(APPID)
    settle(5)
    Token.objects.all().delete()
    Account.objects.all().delete()
    other = "wx00000000000other"[:18]
    sandbox.add_account(other, SECRET)
    account = Account.objects.create(appid=other, secret=SECRET)
    Token.objects.create(account=account, kind="jsapi_ticket", edition=account.edition)
    begun = real_time.monotonic()
    with transaction.atomic():
        if wrote:
            Group.objects.create(name="the caller's own")
        ticket = get_ticket(other)
        assert sandbox.is_valid(ticket)
    assert real_time.monotonic() - begun < 10
    settle(10)
    assert Token.objects.get(kind="jsapi_ticket").value.reveal() == ticket
    assert (sandbox.calls_to(other, "stable"), sandbox.calls_to(other, "ticket")) == (1, 1)


def test_get_ticket__a_need_that_hangs_is_named_within_the_callers_limit(sandbox, monkeypatch, settings):
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "WAIT_TIMEOUT": 0.5}
    Account.objects.create(appid=APPID, secret=SECRET)
    call, go_on = transport.call, threading.Event()

    def hangs(method, path, **options):
        go_on.wait(20)
        return call(method, path, **options)

    monkeypatch.setattr(transport, "call", hangs)
    begun = real_time.monotonic()
    try:
        with pytest.raises(TokenUnavailable, match="access_token"):
            get_ticket(APPID)
        assert real_time.monotonic() - begun < 3
    finally:
        go_on.set()
