"""Celery's way in, without Celery: what the tasks do when they are called."""

from __future__ import annotations

import datetime as dt

import pytest
from django.core.management import call_command
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from tests.conftest import APPID, row
from wechat_token import tasks
from wechat_token.models import Account, RefreshLog
from wechat_token.schedule import seconds

TICK = "wechat_token.refresh_due_tokens"


def test_refresh_due_tokens__renews_what_is_due(account, weixin, time):
    assert tasks.refresh_due_tokens() == {"renewed": 1}
    assert tasks.refresh_due_tokens() == {}
    time.pass_until(row(account).due_at)
    assert tasks.refresh_due_tokens() == {"renewed": 1}
    assert weixin.issued(APPID) == 2


def test_refresh_due_tokens__nothing_due_is_one_query(account, weixin, django_assert_num_queries):
    """R17."""
    tasks.refresh_due_tokens()
    with django_assert_num_queries(1):
        tasks.refresh_due_tokens()


def test_refresh_due_tokens__one_bad_account_does_not_hold_up_others(account, weixin, time):
    weixin.add_account("wxbad00000000000", "right")
    Account.objects.create(appid="wxbad00000000000", secret="wrong")
    assert tasks.refresh_due_tokens() == {"renewed": 1, "failed": 1}


def test_refresh_due_tokens__leaves_inactive_accounts_alone(account, weixin):
    Account.objects.update(is_active=False)  # behind the model's back: the row is still due
    assert tasks.refresh_due_tokens() == {}
    assert not weixin.calls


@pytest.mark.django_db(transaction=True)
def test_refresh_due_tokens__many_in_threads(weixin, settings):
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "BATCH_THREADS": 4}
    for number in range(12):
        weixin.add_account(f"wxmany{number:010}", "s")
        Account.objects.create(appid=f"wxmany{number:010}", secret="s")
    assert tasks.refresh_due_tokens() == {"renewed": 12}
    assert {weixin.issued(f"wxmany{number:010}") for number in range(12)} == {1}


def test_prune_refresh_log__by_age(account, time):
    for age in (0, 29, 31, 400):
        RefreshLog.objects.create(
            account=account, kind="access_token", at=time.now() - dt.timedelta(days=age), reason="schedule",
            endpoint="stable", outcome="renewed", duration_ms=1,
        )  # fmt: skip
    assert tasks.prune_refresh_log() == 2
    assert RefreshLog.objects.count() == 2


# -- the periodic tasks


def test_periodic_tasks__made_by_migrate(db):
    assert PeriodicTask.objects.get(task=TICK).interval.every == 5
    assert PeriodicTask.objects.filter(task="wechat_token.prune_refresh_log").exists()


def test_periodic_tasks__an_operators_edit_survives_migrate(db):
    task = PeriodicTask.objects.get(task=TICK)
    task.interval = IntervalSchedule.objects.create(every=42, period="seconds")
    task.enabled, task.name = False, "ours"
    task.save()
    call_command("migrate", verbosity=0)
    task = PeriodicTask.objects.get(task=TICK)
    assert (task.interval.every, task.enabled, task.name) == (42, False, "ours")


@pytest.mark.parametrize("name", ["refresh_due_tokens", "refresh_token", "prune_refresh_log"])
def test_tasks__have_stable_names_and_expire(name):
    task = getattr(tasks, name)
    assert task.name == f"wechat_token.{name}"
    assert task.expires > 0
    assert task.ignore_result


def test_due__follows_now(account, time):
    from wechat_token.models import Token

    assert Token.objects.due(time.now()).count() == 1
    assert Token.objects.due(time.now() - seconds(1)).count() == 0
