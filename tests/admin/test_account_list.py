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
from tests.conftest import APPID, START
from wechat_token.admin import AccountAdmin
from wechat_token.engine.schedule import seconds
from wechat_token.models import Account, Token


def test_list__queries_do_not_grow_with_accounts(boss, time, django_assert_num_queries):
    def make(numbers):
        for number in numbers:
            Account.objects.create(appid=f"wx{number:016d}", secret="s")
        for account in Account.objects.all():
            Token.objects.filter(account=account).update(issued_for=account.ref)
        Token.objects.update(version=1, expires_at=time.now() + seconds(7200), due_at=time.now() + seconds(7000))

    make(range(2))
    boss.get(reverse(LIST))  # counts the accounts, which is done once a minute
    # Session, user, count, failing, waiting, late, accounts, tokens. The rest is what the site's problems
    # are read from, which outside a test is done once in five seconds.
    with django_assert_num_queries(19):
        boss.get(reverse(LIST))
    make(range(2, 60))
    with django_assert_num_queries(19):
        response = boss.get(reverse(LIST))
    assert response.context["cl"].result_count == 60
    Token.objects.filter(account__appid__endswith="7").update(failures=1)
    with django_assert_num_queries(21):  # those in trouble, then the others; their causes
        boss.get(reverse(LIST))


def test_list__reads_no_secret_columns(boss, account, django_assert_max_num_queries):
    with django_assert_max_num_queries(21) as captured:
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


def test_list__what_waits_is_counted_and_names_its_root(boss, account, time):
    good = {"version": 1, "issued_for": APPID, "expires_at": time.now() + seconds(7200), "failures": 0}
    Token.objects.filter(account=account).update(**good, due_at=time.now() + seconds(7000))
    Token.objects.create(
        account=account, kind="jsapi_ticket", waits_for=f"{APPID} access_token", due_at=time.now() + seconds(600)
    )
    response = boss.get(reverse(LIST), {"condition": "held_up"})
    assert [(chip["css"], chip["count"]) for chip in response.context["cl"].chips() if chip["chosen"]] == [
        ("held_up", "1")
    ]
    html = page(response)
    assert "wt-held_up" in html
    assert f"waits for {APPID} access_token" in html
    assert boss.get(reverse(LIST), {"condition": "good"}).context["cl"].result_count == 0


def test_list__a_ticket_that_sleeps_leaves_its_account_good(boss, account, time):
    good = {"version": 1, "issued_for": APPID, "expires_at": time.now() + seconds(7200), "failures": 0}
    Token.objects.filter(account=account).update(**good, due_at=time.now() + seconds(7000))
    Token.objects.create(account=account, kind="jsapi_ticket", asked_at=START - dt.timedelta(days=3))
    for condition, found in (("asleep", 1), ("good", 1), ("held_up", 0)):
        assert boss.get(reverse(LIST), {"condition": condition}).context["cl"].result_count == found
    assert "wt-good" in page(boss.get(reverse(LIST)))


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


@pytest.fixture
def troubled(boss, account, time):
    """Accounts in every kind of trouble, by what is wrong."""
    found = {"good": account}
    for name in ("retrying", "dead", "overdue", "attention"):
        found[name] = Account.objects.create(appid=f"wx{name}", secret="s")
    for each in found.values():
        life = {"version": 1, "expires_at": START + seconds(7200), "issued_for": each.ref}
        Token.objects.filter(account=each).update(due_at=START + seconds(7000), **life)
    for name, fields in {
        "retrying": {"failures": 1, "error_class": "transient"},
        "dead": {"failures": 3, "error_class": "human", "errcode": 40164, "expires_at": START},
        "overdue": {"due_at": START - seconds(100)},
        "attention": {"failures": 1, "error_class": "human", "errcode": 40001},
    }.items():
        Token.objects.filter(account=found[name]).update(**fields)
    return found


def listed(response):
    return [account.appid for account in response.context["cl"].result_list]


def test_list__worst_first(boss, troubled):
    assert listed(boss.get(reverse(LIST))) == ["wxdead", "wxattention", "wxoverdue", "wxretrying", APPID]
    assert listed(boss.get(reverse(LIST), {"o": "2"}))[0] == APPID  # by AppID, which somebody asked for
    assert listed(boss.get(reverse(LIST), {"q": "wxr"})) == ["wxretrying"]


def test_list__worst_first_over_several_pages(boss, troubled, monkeypatch):
    monkeypatch.setattr(AccountAdmin, "list_per_page", 2)
    pages = [listed(boss.get(reverse(LIST), {"p": number})) for number in (1, 2, 3)]
    assert pages == [["wxdead", "wxattention"], ["wxoverdue", "wxretrying"], [APPID]]


def test_list__counts_by_state_find_what_they_count(boss, troubled):
    response = boss.get(reverse(LIST))
    chips = {chip["css"]: chip for chip in response.context["cl"].chips() if chip["css"]}
    assert {state: chip["count"] for state, chip in chips.items()} == dict.fromkeys(
        ["dead", "attention", "overdue", "retrying", "good"], "1"
    )
    for state, chip in chips.items():
        assert listed(boss.get(reverse(LIST) + chip["url"])) == [troubled[state].appid]


def test_list__counts_end_at_a_thousand(boss, account, monkeypatch, time):
    made = Account.objects.bulk_create(Account(appid=f"wx{n:016d}", ref=f"wx{n:016d}") for n in range(1_005))
    due = {"version": 1, "due_at": START - seconds(3600), "expires_at": START + seconds(100)}
    Token.objects.bulk_create(Token(account=each, issued_for=each.ref, **due) for each in made)
    chips = {chip["css"]: chip["count"] for chip in boss.get(reverse(LIST)).context["cl"].chips()}
    assert chips["overdue"] == "1,000+"
    assert "good" not in chips or not chips["good"]  # nobody knows how many are


def test_list__searches_inside_while_accounts_are_few(boss, troubled, monkeypatch):
    assert listed(boss.get(reverse(LIST), {"q": "verdu"})) == ["wxoverdue"]
    monkeypatch.setattr("wechat_token.admin.account_list.SEARCHED_INSIDE", 3)
    assert listed(boss.get(reverse(LIST), {"q": "verdu"})) == []
    assert listed(boss.get(reverse(LIST), {"q": "wxover"})) == ["wxoverdue"]
    assert listed(boss.get(reverse(LIST), {"q": "sho"})) == [APPID]  # a name


def test_list__another_credential_in_trouble_is_the_accounts_trouble(boss, troubled):
    Token.objects.create(
        account=troubled["good"], kind="jsapi_ticket", failures=1, error_class="human", errcode=40001, due_at=START
    )
    html = page(boss.get(reverse(LIST)))
    assert set(listed(boss.get(reverse(LIST)))[:2]) == {APPID, "wxdead"}
    assert "jsapi_ticket" in html


@pytest.mark.parametrize(
    ("condition", "fields"),
    [
        ("failing", {"failures": 1}),
        ("dead", {"version": 3, "rejected_version": 3}),
        ("dead", {"version": 3, "expires_at": START}),
        ("dead", {"issued_for": "wxbefore00000000"}),
        ("dead", {"unanswered_since": START - seconds(300)}),
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
