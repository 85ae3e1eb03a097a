"""The list of accounts: constant in queries, clear about what is wrong."""

from __future__ import annotations

import datetime as dt

import pytest
from django.urls import reverse

from tests.admin.pages import (
    LIST,
    OTHER_APPID,
    page,
    url,
)
from tests.conftest import START
from wechat_token.models import Account, Token
from wechat_token.schedule import seconds


def test_list__queries_do_not_grow_with_accounts(boss, django_assert_num_queries):
    def make(numbers):
        for number in numbers:
            Account.objects.create(appid=f"wx{number:016d}", secret="s")

    make(range(3))
    with django_assert_num_queries(6):
        boss.get(reverse(LIST))
    make(range(3, 30))
    with django_assert_num_queries(6):
        response = boss.get(reverse(LIST))
    assert response.context["cl"].result_count == 30


def test_list__reads_no_secret_columns(boss, account, django_assert_max_num_queries):
    with django_assert_max_num_queries(6) as captured:
        boss.get(reverse(LIST))
    sql = " ".join(query["sql"] for query in captured.captured_queries)
    assert '"wechat_token_account"."secret"' not in sql
    assert '"wechat_token_token"."value"' not in sql


def test_list__good_token(boss, account, weixin, time):
    boss.post(url("refresh", account))
    time.pass_(480)
    html = page(boss.get(reverse(LIST)))
    assert "wt-good" in html
    assert "1 h 52 min" in html
    assert "8 min ago" in html


def test_list__failure_in_words_with_what_to_do(boss, account):
    Token.objects.update(failures=2, error_class="human", errcode=40164, egress_ip="203.0.113.7")
    html = page(boss.get(reverse(LIST)))
    assert "40164: " in html
    assert "Add 203.0.113.7 to the IP whitelist" in html


def test_list__foreign_refresh_advises_stable(boss, classic, time):
    Token.objects.update(foreign_refreshes=1, foreign_at=time.now())
    assert "Set the endpoint to stable" in page(boss.get(reverse(LIST)))


def test_list__foreign_refresh_of_long_ago_is_no_news(boss, classic, time):
    Token.objects.update(foreign_refreshes=1, foreign_at=time.now() - dt.timedelta(days=8))
    assert "another system." not in page(boss.get(reverse(LIST)))
    assert "Set the endpoint to stable" in page(boss.get(url("change", classic)))


def test_list__account_without_a_token_row(boss, account):
    Token.objects.all().delete()
    assert boss.get(reverse(LIST)).status_code == 200
    assert boss.get(url("change", account)).status_code == 200


@pytest.mark.parametrize(
    ("condition", "fields"),
    [
        ("failing", {"failures": 1}),
        ("tokenless", {"version": 3, "rejected_version": 3}),
        ("tokenless", {"version": 3, "expires_at": START}),
        ("foreign", {"foreign_at": START}),
    ],
)
def test_list__condition_filter(boss, account, condition, fields):
    good = Account.objects.create(appid=OTHER_APPID, secret="s")
    Token.objects.update(version=1, expires_at=START + seconds(7200))
    Token.objects.filter(account=account).update(**fields)
    response = boss.get(reverse(LIST), {"condition": condition})
    assert [a.pk for a in response.context["cl"].result_list] == [account.pk]
    assert good.pk not in [a.pk for a in response.context["cl"].result_list]


@pytest.mark.parametrize("lookup", ["secret__startswith", "secret", "tokens__value__startswith"])
def test_list__secrets_cannot_be_guessed_by_filtering(boss, account, lookup):
    response = boss.get(reverse(LIST), {lookup: "g"})
    assert response.status_code in (302, 400)  # to the list without the filter, or refused


@pytest.mark.parametrize(("enabled", "shown"), [(True, False), (False, True), (None, True)])
def test_list__notice_that_the_tick_is_off(boss, enabled, shown):
    from django_celery_beat.models import PeriodicTask

    tick = PeriodicTask.objects.filter(task="wechat_token.refresh_due_tokens")
    assert tick.count() == 1
    if enabled is None:
        tick.delete()
    else:
        tick.update(enabled=enabled)
    assert ("wt-notice" in page(boss.get(reverse(LIST)))) is shown
