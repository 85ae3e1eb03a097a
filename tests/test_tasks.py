"""Celery's way in, without Celery: what the tasks do when they are called."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db.models import F

from tests.conftest import APPID, row
from wechat_token import clock, tasks
from wechat_token.engine.schedule import seconds
from wechat_token.models import Account, Host, RefreshLog, Token, TokenRead
from wechat_token.sandbox.testing import fake_wechat


def test_refresh_due_tokens__renews_what_is_due(account, weixin, time):
    assert tasks.refresh_due_tokens() == {"renewed": 1}
    assert tasks.refresh_due_tokens() == {}
    time.pass_until(row(account).due_at)
    assert tasks.refresh_due_tokens() == {"renewed": 1}
    assert weixin.issued(APPID) == 2


def test_refresh_due_tokens__nothing_due_is_one_query(account, weixin, django_assert_num_queries):
    """R17: and this host's heartbeat, once in 30 s."""
    tasks.refresh_due_tokens()
    with django_assert_num_queries(1):
        tasks.refresh_due_tokens()


def test_refresh_due_tokens__says_that_this_host_lives(account, time):
    tasks.refresh_due_tokens()
    first = Host.objects.get().seen_at
    time.pass_(29)
    tasks.refresh_due_tokens()
    assert Host.objects.get().seen_at == first
    time.pass_(2)
    tasks.refresh_due_tokens()
    assert Host.objects.get().seen_at == time.now()


def test_refresh_due_tokens__one_batch_a_host_at_a_time(account, weixin, time):
    """R35."""
    tasks.refresh_due_tokens()
    Host.objects.update(drain_until=time.now() + seconds(20))
    Token.objects.update(due_at=time.now())
    assert tasks.refresh_due_tokens() == {}
    time.pass_(20)
    assert tasks.refresh_due_tokens() == {"unchanged": 1}


def test_refresh_due_tokens__finds_an_edit_nobody_heard_of(account, weixin, time):
    """R10: the process that saved the account was killed before it could say so."""
    tasks.refresh_due_tokens()
    Account.objects.update(edition=F("edition") + 1)
    time.pass_(900)
    assert tasks.refresh_due_tokens() == {}
    time.pass_(140)  # once an hour, at 17 minutes past
    assert tasks.refresh_due_tokens() == {"unchanged": 1}


def test_refresh_due_tokens__paused_site_does_nothing(account, weixin, settings):
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "PAUSED": True}
    assert tasks.refresh_due_tokens() == {}
    assert not weixin.calls


def test_refresh_token__renews_the_one_it_names(account, weixin):
    assert tasks.refresh_token(row(account).pk) == {"renewed": 1}
    assert tasks.refresh_token(10_000) == {}


def test_refresh_due_tokens__one_bad_account_does_not_hold_up_others(account, weixin, time):
    weixin.add_account("wxbad00000000000", "right")
    Account.objects.create(appid="wxbad00000000000", secret="wrong")
    assert tasks.refresh_due_tokens() == {"renewed": 1, "failed": 1}


def test_refresh_due_tokens__leaves_inactive_accounts_alone(account, weixin):
    Account.objects.update(is_active=False)  # behind the model's back: the row is still due
    assert tasks.refresh_due_tokens() == {}
    assert not weixin.calls


@pytest.mark.usefixtures("own_connections")
def test_refresh_due_tokens__many_in_threads(settings):
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "BATCH_THREADS": 4}
    appids = [f"wxmany{number:010}" for number in range(12)]
    with fake_wechat(seed=1) as fake:
        for appid in appids:
            fake.add_account(appid, "s")
        Account.objects.bulk_create([Account(appid=appid, ref=appid, secret="s") for appid in appids])
        Token.objects.bulk_create([Token(account=account, due_at=clock.now()) for account in Account.objects.all()])
        assert tasks.refresh_due_tokens() == {"renewed": 12}
    assert {fake.issued(appid) for appid in appids} == {1}


def test_prune_refresh_log__by_age(account, time):
    for age in (0, 29, 31, 400):
        RefreshLog.objects.create(
            ref=account.ref, kind="access_token", at=time.now() - dt.timedelta(days=age), reason="schedule",
            endpoint="stable", outcome="renewed", duration_ms=1,
        )  # fmt: skip
    assert tasks.prune_refresh_log() == 2
    assert RefreshLog.objects.count() == 2


def test_prune_refresh_log__takes_the_records_of_readers_along(db, time):
    """Where tokens are read by people in the admin alone, nobody else would."""
    for age in (0, 29, 31, 400):
        TokenRead.objects.create(
            fingerprint=str(age), reader="somebody", ref="wx-a", kind="access_token", version=1,
            at=time.now() - dt.timedelta(days=age),
        )  # fmt: skip
    tasks.prune_refresh_log()
    assert {read.fingerprint for read in TokenRead.objects.all()} == {"0", "29"}


@pytest.mark.parametrize("name", ["refresh_due_tokens", "refresh_token", "prune_refresh_log"])
def test_tasks__have_stable_names_and_expire(name):
    task = getattr(tasks, name)
    assert task.name == f"wechat_token.{name}"
    assert task.expires > 0
    assert task.ignore_result


def test_due__follows_now(account, time):
    assert Token.objects.due(time.now()).count() == 1
    assert Token.objects.due(time.now() - seconds(1)).count() == 0
