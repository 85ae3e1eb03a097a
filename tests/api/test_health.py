"""Health: one word for load balancers, the state of its accounts for whoever has a key."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.db.models import F
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.api.conftest import PREFIX, Caller
from tests.conftest import APPID, row
from tests.outages import database_down
from wechat_token import process
from wechat_token.api import health
from wechat_token.client_keys.keys import generate, make_key
from wechat_token.diagnosis import pulse
from wechat_token.engine import schedule
from wechat_token.models import KeyUsage, Token
from wechat_token.sandbox import Fault

PATH = f"{PREFIX}/health"


def ask(**headers):
    response = Client().get(PATH, **headers)
    return response.status_code, response.json()


def detail(caller):
    return caller.http.get(PATH, headers=caller.auth).json()


def test_health__of_an_empty_site_is_ok(db):
    assert ask() == (200, {"status": "ok"})


def test_health__of_an_account_nobody_asked_for_yet_is_ok(account):
    Token.objects.update(version=0, failures=0)
    assert ask() == (200, {"status": "ok"})


def test_health__of_a_good_account_says_one_word_without_a_key(caller):
    caller.read()
    assert ask() == (200, {"status": "ok"})


def test_health__without_any_usable_token_is_degraded(caller, weixin):
    """The admin in which the secret is entered stands behind the same load balancer."""
    weixin.inject(Fault("error", errcode=40125), times=9)
    caller.read()
    assert ask() == (200, {"status": "degraded"})


def test_health__of_a_process_that_reads_no_secret_is_down(caller, settings):
    caller.read()
    settings.SECRET_KEY = "another one, without a fallback--"
    pulse.go(ticking=False)
    assert ask() == (503, {"status": "down"})
    settings.SECRET_KEY = "tests-only-secret-key-0123456789"
    process.forget()
    pulse.go(ticking=False)
    assert ask() == (200, {"status": "ok"})


def test_live__asks_nobody(caller, django_assert_num_queries):
    with django_assert_num_queries(0), database_down():
        response = Client().get(f"{PATH}/live")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert response.headers["Cache-Control"] == "no-store"


def test_health__with_a_key_names_the_cause(caller, weixin):
    weixin.set_ip_whitelist(APPID, ["192.0.2.1"])
    caller.read()
    (found,) = detail(caller)["problems"]
    assert (found["id"], found["severity"], found["examples"]) == ("whitelist/127.0.0.1", "critical", [APPID])
    assert found["runbook"] == "docs/operations.md#whitelist"
    assert "127.0.0.1" in found["steps"][0]


def test_health__with_a_key_names_no_account_of_others(caller, account, weixin):
    other = type(account).objects.create(appid="wxother", secret="wrong")
    Token.objects.filter(account=other).update(failures=1, error_class="human", errcode=40125)
    caller.read()
    assert "wxother" not in repr(detail(caller))
    assert ask() == (200, {"status": "degraded"})


def test_health__writes_nothing_without_a_key(caller):
    with CaptureQueriesContext(connection) as queries:
        for path in (PATH, f"{PATH}/live", f"{PATH}/accounts"):
            Client().get(path)
    writes = [query["sql"] for query in queries if query["sql"].split()[0] in {"INSERT", "UPDATE", "DELETE"}]
    assert [sql for sql in writes if not re.search(r"id. = +-1$", sql)] == []  # UPDATEs of no row


def unserved(caller):
    response = caller.http.get(f"{PATH}/accounts", headers=caller.auth)
    return response.status_code, response.json()


def test_accounts__needs_a_key(db):
    assert Client().get(f"{PATH}/accounts").status_code == 401


def test_accounts__names_who_is_read_and_not_served(caller, account, weixin):
    type(account).objects.create(appid="wxunread", secret="wrong")
    caller.read()
    assert unserved(caller) == (200, {"status": "ok", "read": 1, "unserved": []})
    Token.objects.filter(account=account).update(rejected_version=F("version"))
    status, body = unserved(caller)
    assert (status, body["status"], [entry["appid"] for entry in body["unserved"]]) == (503, "unserved", [APPID])


def test_accounts__what_nobody_reads_any_more_is_no_alarm(caller, account, time):
    caller.read()
    Token.objects.update(rejected_version=F("version"))
    KeyUsage.objects.update(day="2026-02-28")
    assert unserved(caller) == (200, {"status": "ok", "read": 0, "unserved": []})


def test_accounts__without_the_database_nothing_is_claimed(caller):
    caller.read()
    with database_down(lambda sql, params: "wechat_token_token" in sql):
        assert caller.http.get(f"{PATH}/accounts", headers=caller.auth).status_code == 503


def test_health__with_one_account_of_two_dead_is_degraded(caller, weixin, account):
    caller.read()
    weixin.add_account("wxother", "right")
    other = type(account).objects.create(appid="wxother", secret="wrong")
    Caller(make_key("other", accounts=[other])[1], "wxother").read()
    assert ask() == (200, {"status": "degraded"})


def test_health__with_a_renewal_that_fails_is_degraded(caller):
    caller.read()
    Token.objects.update(failures=3, error_class="transient")
    assert ask() == (200, {"status": "degraded"})


def test_health__with_a_key_lists_the_accounts_of_this_key_only(caller, account, weixin):
    type(account).objects.create(appid="wxother", secret="x")
    caller.read()
    body = detail(caller)
    assert body["status"] == "ok"
    assert body["total"] == 1
    assert [(a["appid"], a["state"], a["errcode"]) for a in body["accounts"]] == [(account.appid, "good", None)]


def test_health__of_a_key_for_all_lists_all(account):
    type(account).objects.create(appid="wxother", secret="x")
    assert detail(Caller(make_key("monitor", all_accounts=True)[1], ""))["total"] == 2


def test_health__names_the_cause_of_a_dead_account(caller, weixin):
    weixin.inject(Fault("error", errcode=40164), times=9)
    caller.read()
    (found,) = detail(caller)["accounts"]
    assert (found["state"], found["error_class"], found["errcode"]) == ("dead", "human", 40164)


def test_health__says_whose_complaints_are_refused(caller, time):
    caller.read()
    assert detail(caller)["accounts"][0]["complaints_refused"] is False
    Token.objects.update(complaints_refused_at=time.now())
    assert detail(caller)["accounts"][0]["complaints_refused"] is True
    assert ask() == (200, {"status": "ok"})
    time.pass_(600)
    assert detail(caller)["accounts"][0]["complaints_refused"] is False


@pytest.mark.parametrize(
    ("fields", "status", "state"),
    [
        ({"issued_for": "wxbefore00000000"}, 200, "dead"),
        ({"rejected_version": F("version")}, 200, "dead"),
        ({"failures": 1, "error_class": "human"}, 200, "attention"),
    ],
)
def test_health__counts_the_states_it_lists(caller, fields, status, state):
    caller.read()
    Token.objects.update(**fields)
    assert ask()[0] == status
    assert ask()[1]["status"] == "degraded"
    assert detail(caller)["accounts"][0]["state"] == state


def test_health__does_not_show_inactive_accounts(caller, account):
    account.is_active = False
    account.save()
    assert detail(caller)["accounts"] == []


def test_health__refuses_a_wrong_key(db):
    assert Client().get(PATH, headers={"Authorization": f"Bearer {generate().reveal()}"}).status_code == 401


def test_health__reads_no_secret(caller, django_assert_num_queries):
    caller.read()
    with django_assert_num_queries(17, exact=False) as queries:
        detail(caller)
    assert not [query for query in queries.captured_queries if '"value"' in query["sql"] or '"secret"' in query["sql"]]


@pytest.mark.parametrize("passed", [0, 100, 301, 7000, 7300])
@pytest.mark.parametrize("doubt", [False, True])
@pytest.mark.parametrize("rejected", [False, True])
def test_health__counts_as_usable_what_is_served(caller, account, time, passed, doubt, rejected):
    caller.read()
    token = row(account)
    Token.objects.update(
        unanswered_since=time.now() if doubt else None, rejected_version=token.version if rejected else 0
    )
    time.pass_(passed)
    usable = schedule.is_usable(row(account), time.now(), 300)
    assert ask()[1]["status"] == ("ok" if usable and passed < 7100 else "degraded")


# -- as a running process, outside of a test's transaction ------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_health__asked_without_pause_looks_once_a_second(time, django_assert_num_queries):
    with django_assert_num_queries(20, exact=False):
        for _ in range(50):
            ask()
    time.pass_(1)
    with django_assert_num_queries(20, exact=False) as second:
        ask()
    assert len(second)


@pytest.mark.django_db(transaction=True)
def test_health__with_the_database_down_lives_on_what_was_seen(time, weixin):
    caller = _caller(weixin)
    caller.read()
    assert ask() == (200, {"status": "ok"})
    assert detail(caller)["database"] == "ok"
    with database_down():
        time.pass_(6)
        assert ask() == (200, {"status": "degraded"})
        told = detail(caller)
        assert [problem["id"] for problem in told.pop("problems")] == ["database-unreachable"]
        assert told == {"status": "degraded", "database": "unreachable", "total": 1, "accounts": []}
        time.pass_(7200)
        assert ask() == (503, {"status": "down"})


def _caller(weixin):
    from wechat_token.models import Account

    weixin.add_account("wxlive", "secret")
    account = Account.objects.create(appid="wxlive", secret="secret")
    return Caller(make_key("live", accounts=[account])[1], account.appid)


@pytest.mark.django_db(transaction=True)
def test_health__keeps_a_bounded_number_of_looks(time, monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(health, "SCOPES_KEPT", 3)
    callers = [Caller(make_key(f"k{number}")[1], "") for number in range(10)]
    for caller in callers:
        detail(caller)
    with django_assert_num_queries(0):
        detail(callers[-1])
    with django_assert_num_queries(20, exact=False) as queries:  # that look is forgotten
        detail(callers[0])
    assert len(queries)
