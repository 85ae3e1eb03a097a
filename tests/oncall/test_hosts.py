"""What hosts say of themselves: signs of life, what they cannot do, and what they find out by looking."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys

import pytest
from django.core.cache import caches

from tests.conftest import APPID
from tests.outages import database_down
from wechat_token import __version__, clock, process, tasks
from wechat_token.diagnosis import facts, problems, pulse
from wechat_token.engine import host_lives, host_name, note_problem, sign_of_life
from wechat_token.models import Account, Host
from wechat_token.sandbox import Fault


def told():
    return Host.objects.get().problems


def ids():
    return [problem.id for problem in problems.problems(facts.collect())]


@pytest.fixture
def beaten(time, account):
    """A site whose ticks are worked off, so that silence does not hide what a test is about."""
    tasks.refresh_due_tokens()
    sign_of_life("beat_at")
    return account


# -- the row


@pytest.mark.parametrize("sign", ["beat_at", "worker_at", "ticked_at"])
def test_sign__is_written_every_30_s_by_one_process_of_a_host(db, time, sign, django_assert_num_queries):
    sign_of_life(sign)
    first = time.now()
    assert getattr(Host.objects.get(), sign) == first
    for seconds, expected in ((20, first), (9, first), (2, None)):
        time.pass_(seconds)
        process.forget()  # another process of this host
        sign_of_life(sign)
        assert getattr(Host.objects.get(), sign) == (expected or time.now())
    with django_assert_num_queries(0):
        sign_of_life(sign)
    assert Host.objects.get().version == __version__


def test_tick__says_how_long_it_took(account, weixin, time, monkeypatch):
    weixin.inject(Fault("slow", seconds=3))
    tasks.refresh_due_tokens()
    row = Host.objects.get()
    assert row.ticked_at == time.now()
    assert row.tick_seconds >= 0.0
    assert row.drain_until is None


def test_note__is_written_at_once_and_taken_back_at_once(db, time):
    host_lives()
    time.pass_(1)
    note_problem("cache", "refused")
    assert told()["cache"] == {"at": "2026-03-02T04:00:01+00:00", "pid": os.getpid(), "text": "refused"}
    time.pass_(1)
    note_problem("cache", "")
    assert told() == {}


def test_note__of_a_living_process_is_left_alone_by_the_others(db, time):
    note_problem("secrets", "none is readable")
    row = Host.objects.get()
    row.problems["secrets"]["pid"] = os.getppid()
    row.save()
    process.forget()
    time.pass_(31)
    note_problem("cache", "refused")
    assert sorted(told()) == ["cache", "secrets"]


def test_note__of_a_process_that_is_gone_is_over(db, time):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    note_problem("secrets", "none is readable")
    row = Host.objects.get()
    row.problems["secrets"]["pid"] = gone.pid
    row.save()
    process.forget()
    host_lives()
    assert told() == {}


def test_note__that_is_not_met_again_ends_after_ten_minutes(db, time):
    note_problem("EncryptionKeyError", "a lost key")
    for _ in range(21):
        time.pass_(30)
        host_lives()
    assert told() == {}


# -- what a process finds out


def test_pulse__of_a_host_that_is_well_says_nothing(beaten, weixin):
    pulse.go(ticking=True)
    assert told() == {}
    assert ids() == []


def test_pulse__secrets_that_this_host_cannot_read(beaten, settings):
    settings.SECRET_KEY = "another one, without a fallback--"
    pulse.go(ticking=False)
    assert pulse.reads_nothing()
    assert ids() == ["secrets-unreadable"]


def test_pulse__one_unreadable_secret_does_not_take_the_process_away(beaten, settings, time):
    settings.SECRET_KEY = "another one, without a fallback--"
    Account.objects.create(appid="wxother", secret="written with this key")
    pulse.go(ticking=False)
    assert not pulse.reads_nothing()
    assert ids() == ["secrets-unreadable"]


def test_pulse__wechat_is_away_after_two_calls_without_an_answer(beaten, weixin, time):
    weixin.outage(fault=Fault("refused"))
    pulse.go(ticking=True)
    assert ids() == []
    time.pass_(10)
    pulse.go(ticking=True)
    assert ids() == ["wechat-unreachable"]
    weixin.clear_faults()
    time.pass_(10)
    pulse.go(ticking=True)
    assert ids() == []


def test_pulse__a_host_that_only_serves_asks_nothing_of_wechat(beaten, weixin):
    before = len(weixin.calls)
    pulse.go(ticking=False)
    assert len(weixin.calls) == before


def test_pulse__a_clock_that_is_off(beaten, weixin, time):
    for which in (clock.compare, None):
        process.forget()
        if which is not None:
            clock.compare(clock.wall() + dt.timedelta(seconds=90), clock.wall(), clock.wall())
        pulse.go(ticking=False)
        assert ids() == (["clock-off"] if which is not None else [])
        time.pass_(30)
        tasks.refresh_due_tokens()


def test_pulse__a_cache_that_fails(beaten, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache"}}
    settings.CACHES["default"]["LOCATION"] = "127.0.0.1:9"

    class Away:
        def set(self, *args, **kwargs):
            raise OSError("redis://user:canary@cache")

    caches["default"] = Away()
    try:
        pulse.go(ticking=False)
    finally:
        del caches["default"]
    assert ids() == ["cache-down"]
    assert "canary" not in repr(told())


def test_pulse__the_broker_is_asked_only_while_nobody_ticks(beaten, time, monkeypatch):
    asked = []

    class Celery:
        class conf:
            broker_url = "redis://canary"

        def connection_for_write(self, **kwargs):
            asked.append(kwargs)
            raise OSError("redis://user:canary@broker")

    monkeypatch.setattr(pulse, "current_app", Celery())
    pulse.go(ticking=False)
    assert not asked
    time.pass_(60)
    pulse.go(ticking=False)
    assert asked
    Account.objects.update(created_at=time.now() - dt.timedelta(days=1))
    assert "broker-unreachable" in ids()
    assert "canary" not in repr(told())


def test_pulse__with_the_database_away_is_no_error(db, time):
    with database_down():
        pulse.go(ticking=False)


def test_names__are_what_the_rows_are_called(db):
    host_lives()
    assert Host.objects.get().name == host_name()
    assert APPID not in repr(told())
