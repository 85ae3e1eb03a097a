"""The list of accounts: constant in queries, clear about what is wrong."""

from __future__ import annotations

import datetime as dt

import pytest
from django.urls import reverse
from django_celery_beat.models import PeriodicTask

from tests.admin.pages import (
    LIST,
    OTHER_APPID,
    page,
    url,
)
from tests.conftest import START
from wechat_token.engine.schedule import seconds
from wechat_token.models import Account, Token


def test_list__queries_do_not_grow_with_accounts(boss, django_assert_num_queries):
    def make(numbers):
        for number in numbers:
            Account.objects.create(appid=f"wx{number:016d}", secret="s")

    make(range(3))
    with django_assert_num_queries(8):  # session, user, accounts, tokens, tick, count, hosts, site
        boss.get(reverse(LIST))
    make(range(3, 30))
    with django_assert_num_queries(8):
        response = boss.get(reverse(LIST))
    assert response.context["cl"].result_count == 30


def test_list__reads_no_secret_columns(boss, account, django_assert_max_num_queries):
    with django_assert_max_num_queries(8) as captured:
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
    assert "set the endpoint to stable" in page(boss.get(reverse(LIST)))


def test_list__foreign_refresh_of_long_ago_is_no_news(boss, classic, time):
    Token.objects.update(foreign_refreshes=1, foreign_at=time.now() - dt.timedelta(days=8))
    assert "Another system uses" not in page(boss.get(reverse(LIST)))
    assert "set the endpoint to stable" in page(boss.get(url("change", classic)))


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
        ("tokenless", {"issued_for": "wxbefore00000000"}),
        ("tokenless", {"unanswered_since": START - seconds(300)}),
        ("waiting", {"version": 0}),
        ("overdue", {"due_at": START - seconds(61)}),
        ("foreign", {"foreign_at": START}),
    ],
)
def test_list__condition_filter(boss, account, condition, fields):
    good = Account.objects.create(appid=OTHER_APPID, secret="s")
    for one in (account, good):
        life = {"version": 1, "expires_at": START + seconds(7200), "issued_for": one.ref}
        Token.objects.filter(account=one).update(**life)
    Token.objects.filter(account=account).update(**fields)
    response = boss.get(reverse(LIST), {"condition": condition})
    assert [a.pk for a in response.context["cl"].result_list] == [account.pk]


def test_list__filters_are_named_as_the_states_they_find(boss, account):
    filters = boss.get(reverse(LIST)).context["cl"].filter_specs
    names = {name for spec in filters for _value, name in getattr(spec, "lookup_choices", [])}
    assert {"no usable token", "not fetched yet", "overdue"} <= {str(name) for name in names}


@pytest.mark.parametrize("lookup", ["secret__startswith", "secret", "tokens__value__startswith"])
def test_list__secrets_cannot_be_guessed_by_filtering(boss, account, lookup):
    response = boss.get(reverse(LIST), {lookup: "g"})
    assert response.status_code in (302, 400)  # to the list without the filter, or refused


@pytest.mark.parametrize(("enabled", "shown"), [(True, False), (False, True), (None, True)])
def test_list__notice_that_the_tick_is_off(boss, enabled, shown):
    tick = PeriodicTask.objects.filter(task="wechat_token.refresh_due_tokens")
    assert tick.count() == 1
    if enabled is None:
        tick.delete()
    else:
        tick.update(enabled=enabled)
    assert ("wt-notice" in page(boss.get(reverse(LIST)))) is shown


def test_list__no_notice_where_the_settings_schedule_the_tick(boss, settings):
    PeriodicTask.objects.all().delete()
    settings.CELERY_BEAT_SCHEDULE = {"tokens": {"task": "wechat_token.refresh_due_tokens", "schedule": 5}}
    assert "wt-notice" not in page(boss.get(reverse(LIST)))
