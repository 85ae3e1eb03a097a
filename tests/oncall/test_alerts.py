"""Alerts as a site sends them: found in rows, told once by whichever process comes first, over when it is."""

from __future__ import annotations

import datetime as dt
from contextlib import nullcontext

import pytest
from django.core import mail
from django.core.cache import caches

from tests.conftest import APPID, row
from tests.outages import database_down
from wechat_token import get_access_token, process
from wechat_token.client_keys.keys import make_key
from wechat_token.diagnosis import alerts, facts, watch
from wechat_token.diagnosis.evidence import Database
from wechat_token.models import Account, Alert, ClientKey, Host, Token


@pytest.fixture
def told(settings):
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "ALERT_EMAILS": ["oncall@example.com"]}
    caches["default"].clear()
    yield lambda: [letter.subject.removeprefix("[wechat_token] ") for letter in mail.outbox]
    caches["default"].clear()


@pytest.fixture
def look(time, told):
    """Processes look, one every ten seconds, each a new one."""

    def look(times=3, state=None):
        for _ in range(times):
            process.forget()
            caches["default"].delete("wechat_token:alerts:ok")
            Host.objects.update_or_create(
                name="web", defaults={"seen_at": time.now(), "ticked_at": time.now(), "beat_at": time.now()}
            )
            alerts.go(facts.database() if state is None else state)
            time.pass_(10)

    return look


def fail(count, time, errcode=40164):
    accounts = Account.objects.bulk_create(
        [Account(appid=f"wx{number:016}", ref=f"wx{number:016}", secret="s") for number in range(count)]
    )
    end = time.now() + dt.timedelta(minutes=20)
    Token.objects.bulk_create(
        [
            Token(
                account=account, version=1, issued_for=account.ref, expires_at=end, failures=2, error_class="human",
                errcode=errcode, egress_ip="203.0.113.9", due_at=end,
            )
            for account in accounts
        ]
    )  # fmt: skip


def test_alerts__206_accounts_with_one_cause_are_one_message_and_one_when_it_heals(db, time, look, told):
    fail(206, time)
    look(6)
    (subject,) = told()
    assert subject.startswith("206 accounts (wx0000000000000000,")
    assert "203.0.113.9 is on none of their whitelists" in mail.outbox[0].body
    Token.objects.update(failures=0)
    look(7)
    assert len(told()) == 2
    assert told()[1].startswith("Over: 206 accounts")


def test_alerts__a_thousand_processes_that_look_at_once_send_one(db, time, look, told):
    fail(1, time)
    look(1)
    known = [dict(Alert.objects.values().get()) for _ in range(3)]
    look(1)
    assert len(told()) == 1
    assert known[0]["revision"] == 1
    Alert.objects.update(revision=1, told=0, sending_until=time.now() + dt.timedelta(seconds=60))  # one is sending
    look(3)
    assert len(told()) == 1


def test_alerts__a_sender_that_died_is_followed_by_another(db, time, look, told):
    fail(1, time)
    look(1)
    Alert.objects.update(sending_until=time.now() + dt.timedelta(seconds=120))
    look(2)
    time.pass_(105)
    assert told() == []
    look(1)
    assert len(told()) == 1


def test_alerts__nobody_to_tell_costs_no_query(db, time, django_assert_num_queries):
    with django_assert_num_queries(0):
        alerts.go(Database.OK)


def test_alerts__a_paused_copy_is_silent(db, time, look, told, settings):
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "PAUSED": True}
    fail(1, time)
    look(5)
    assert told() == []


@pytest.mark.parametrize("state", [Database.READ_ONLY, Database.UNREACHABLE])
def test_alerts__a_database_that_refuses_is_told_of_through_the_cache(db, time, look, told, state):
    fail(1, time)
    look(3)
    mail.outbox.clear()
    with database_down():
        for _ in range(6):
            process.forget()
            caches["default"].delete(f"wechat_token:alerts:{state}")
            alerts.go(state)
            time.pass_(10)
    (subject,) = told()
    assert subject.startswith("The database can")
    look(5)
    assert told()[1:] == [f"Over: {subject}"]  # and not a word of the accounts, which went on failing


@pytest.mark.django_db(transaction=True)
def test_database__read_only_is_told_from_away(monkeypatch):
    monkeypatch.setattr(facts, "private", lambda: nullcontext("default"))
    writes = {"INSERT", "UPDATE", "DELETE"}
    assert facts.database() is Database.OK
    with database_down(lambda sql, params: sql.split()[0] in writes):
        assert facts.database() is Database.READ_ONLY
    with database_down():
        assert facts.database() is Database.UNREACHABLE


def test_facts__of_a_busy_site(account, time):
    get_access_token()
    now = time.now()
    key, _plain = make_key("crm", accounts=[account], expires_at=now + dt.timedelta(days=3))
    ClientKey.objects.filter(pk=key.pk).update(last_used_at=now)
    day = row(account).usage["day"]
    Token.objects.update(
        foreign_at=now, complaints_refused_at=now, usage={"day": day, "stable": 7, "stable_forced": 17},
    )  # fmt: skip
    Account.objects.update(daily_limit=200)
    seen = facts.collect()
    assert seen.others["stable"].examples == (APPID,)
    assert seen.complained.count == 1
    assert [(quota.endpoint, quota.used, quota.limit) for quota in seen.quotas] == [("stable_forced", 17, 20)]
    assert [end.name for end in seen.keys] == ["crm"]
    assert seen.overdue.count == 0


def test_facts__a_test_accounts_classic_quota(classic, time):
    get_access_token()
    Account.objects.update(daily_limit=200)
    for used, found in ((159, 0), (160, 1)):
        Token.objects.update(usage={"day": row(classic).usage["day"], "classic": used})
        assert len(facts.collect().quotas) == found


def test_facts__who_fails_and_who_is_late(account, time):
    get_access_token()
    (none,) = [facts.collect().failing]
    assert none == ()
    Token.objects.update(failures=3, error_class="transient")
    assert [(group.count, group.dead, group.late) for group in facts.collect().failing] == [(1, 0, 0)]
    time.pass_(6700)
    assert [(group.count, group.dead, group.late) for group in facts.collect().failing] == [(1, 0, 1)]
    time.pass_(600)
    assert [(group.count, group.dead, group.late) for group in facts.collect().failing] == [(1, 1, 1)]


def test_facts__the_number_of_queries_does_not_grow(db, time, django_assert_num_queries):
    fail(2, time)
    process.forget()
    facts.collect()
    with django_assert_num_queries(12):
        facts.collect()
    fail_more = Account.objects.bulk_create(
        [Account(appid=f"wy{n:016}", ref=f"wy{n:016}", secret="s") for n in range(60)]
    )
    Token.objects.bulk_create(
        [Token(account=a, failures=1, errcode=n, error_class="human") for n, a in enumerate(fail_more)]
    )
    with django_assert_num_queries(12):
        facts.collect()


def test_watch__a_thread_for_many_requests_and_none_in_remote_mode(db, client, time, monkeypatch, settings):
    started = []
    monkeypatch.setattr(watch, "aside", lambda name, work: started.append(name))
    monkeypatch.setattr(watch, "in_place", lambda: False)
    monkeypatch.delattr(mail, "outbox")
    for _ in range(3):
        client.get("/wechat/health/live")
    assert started == ["watch"]
    time.pass_(10)
    client.get("/wechat/health/live")
    assert started == ["watch"] * 2  # which is one, while the first lingers
    settings.WECHAT_TOKEN = {"REMOTE_URL": "https://tokens.example.com", "REMOTE_KEY": "k"}
    time.pass_(10)
    client.get("/wechat/health/live")
    assert len(started) == 2
