"""R32: whichever write fails or comes late, nothing brings back an older version or a rejected token."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest

from tests.conftest import APPID, SECRET, row
from wechat_token import get_access_token, refresh_access_token
from wechat_token.exceptions import TokenUnavailable
from wechat_token.models import Account, Token
from wechat_token.sandbox import FakeWeChat, FakeWeChatServer
from wechat_token.sandbox.testing import fake_wechat

from .caches import SETTING, SharedCache

days = itertools.count(1)  # no test is before another one: what a process means to do later is over by then


@pytest.fixture
def wechat(transactional_db, time, settings):
    """A site with a shared cache and a WeChat of its own."""
    SharedCache.clear_all()
    settings.CACHES = SETTING
    time.pass_(86_400 * next(days))
    fake = FakeWeChat(time.timestamp, seed=1)
    fake.add_account(APPID, SECRET)
    with FakeWeChatServer(fake) as server:
        settings.WECHAT_TOKEN = {"API_BASE_URL": server.url}
        yield fake
    SharedCache.clear_all()


@pytest.fixture(params=["stable", "classic"])
def account(request, wechat):
    return Account.objects.create(appid=APPID, secret=SECRET, endpoint=request.param)


def another_process():
    """From here on this is a process that knows nothing yet: the end of ``fake_wechat`` forgets."""
    with fake_wechat():
        pass


def read(time, seconds, step=0.25):
    """What this process serves in the next ``seconds``."""
    served = set()
    for _ in range(int(seconds / step)):
        served.add(get_access_token(APPID))
        time.pass_(step)
    return served


# -- writes that fail


@pytest.mark.parametrize("fails", [("delete",), ("delete", "set"), ("delete", "set", "get")], ids="-".join)
def test_complaint__cache_that_fails_meanwhile_brings_nothing_back(account, wechat, time, fails):
    dead = get_access_token(APPID)
    time.pass_(0.5)
    wechat.kill_token(APPID)
    with SharedCache.fails(*fails):
        new = refresh_access_token(APPID, stale_token=dead)
    assert new != dead
    assert read(time, 90) == {new}


@pytest.mark.parametrize("fails", [("delete",), ("delete", "set")], ids="-".join)
def test_complaint__others_get_the_new_token_once_the_cache_is_back(account, wechat, time, fails):
    dead = get_access_token(APPID)
    wechat.kill_token(APPID)
    with SharedCache.fails(*fails):
        new = refresh_access_token(APPID, stale_token=dead)
        time.pass_(1)
    assert read(time, 10) == {new}
    another_process()
    assert read(time, 10) == {new}


def test_complaint__refused_token_of_a_dead_account_is_served_by_nobody_again(account, wechat, time):
    """There is no successor to overwrite it: only the DELETE could have removed it, and that failed."""
    dead = get_access_token(APPID)
    time.pass_(5)
    wechat.kill_token(APPID)
    wechat.freeze(APPID)
    with SharedCache.fails("delete"), pytest.raises(TokenUnavailable):
        refresh_access_token(APPID, stale_token=dead)
    for _ in range(100):
        with suppress(TokenUnavailable):
            assert get_access_token(APPID) != dead
        time.pass_(0.5)


# -- writes that come late


def late_publish(wechat, time):
    """A process read the old token, and its write arrives when another has replaced it. (old, new, the write)"""
    old = get_access_token(APPID)
    SharedCache.stored.clear()
    another_process()
    with SharedCache.slow_process() as under_way:
        assert get_access_token(APPID) == old
    another_process()
    wechat.kill_token(APPID)
    new = refresh_access_token(APPID, stale_token=old)
    assert new != old
    return old, new, under_way


def test_late_publish__is_not_believed_by_whoever_replaced_the_token(account, wechat, time):
    _old, new, under_way = late_publish(wechat, time)
    assert under_way
    SharedCache.arrive(under_way)
    assert read(time, 90) == {new}


def test_late_publish__is_not_believed_by_a_process_that_starts(account, wechat, time):
    _old, new, under_way = late_publish(wechat, time)
    SharedCache.arrive(under_way)
    assert get_access_token(APPID) == new  # of the process that knows
    time.pass_(2)
    assert get_access_token(APPID) == new
    another_process()
    assert read(time, 90) == {new}


# -- versions


def renew(time):
    time.pass_until(max(time.now(), row(Account.objects.get()).due_at))
    time.pass_(30)
    get_access_token(APPID)
    time.pass_(2)
    return row(Account.objects.get()).version


def test_version__grows_across_a_restore_of_yesterdays_database(account, wechat, time):
    get_access_token(APPID)
    yesterday = Token.objects.values().get()
    versions = [row(account).version, *(renew(time) for _ in range(3))]
    Token.objects.update(**yesterday)
    time.pass_(60)  # until then the cache vouches for today's, which is as good
    after = renew(time)
    assert after > max(versions)
    assert versions == sorted(set(versions))
    assert wechat.is_valid(get_access_token(APPID))
