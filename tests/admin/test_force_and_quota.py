"""A new token by force, and WeChat's counters set to zero: asked first, rationed, on record."""

from __future__ import annotations

import logging

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import CommandError, call_command

from tests.admin.pages import page, told, url
from tests.conftest import APPID, SECRET, renew, row
from wechat_token.models import Account, RefreshLog, Token
from wechat_token.sandbox import Fault

YES = {"confirmed": "yes"}


def test_force__asks_first_and_names_the_budget(boss, account, weixin):
    renew(account)
    Token.objects.update(usage={"day": "2026-03-02", "stable_forced": 7})
    html = page(boss.post(url("force", account)))
    assert "20 forced refreshes a day, 30 seconds apart; 7 of today" in html
    assert "ends at once" in html
    assert weixin.calls_to(APPID, "stable") == 1


def test_force__brings_a_new_token_and_is_on_record(boss, account, weixin, time):
    renew(account)
    before = row(account).value.reveal()
    time.pass_(60)
    response = boss.post(url("force", account), YES)
    after = row(account)
    assert after.value.reveal() != before
    assert weixin.is_valid(after.value.reveal())
    assert not weixin.is_valid(before)
    assert told(response) == [f"Account {APPID} has a new token, good for 2 h."]
    entry = RefreshLog.objects.first()
    assert (entry.reason, entry.endpoint, entry.outcome) == ("admin", "stable_forced", "renewed")
    assert "Token renewed by force." in LogEntry.objects.get().get_change_message()


def test_force__twice_at_once_costs_one_of_the_ration(boss, account, weixin, time):
    renew(account)
    time.pass_(60)
    boss.post(url("force", account), YES)
    kept = row(account).value.reveal()
    time.pass_(5)
    text = told(boss.post(url("force", account), YES))[-1]
    assert "forced refreshes are rationed" in text
    assert row(account).value.reveal() == kept
    assert [call.forced for call in weixin.calls].count(True) == 1


def test_force__a_ticket_is_asked_for_with_a_token_that_is_good(boss, account, weixin, time):
    """R20, R21: what it needs is fetched first, and fetched anew where another system has ended it."""
    ticket = {**YES, "kind": "jsapi_ticket"}
    assert "has a new token" in told(boss.post(url("force", account), ticket))[-1]
    time.pass_(60)
    weixin.kill_token(APPID)
    boss.post(url("force", account), ticket)
    log = [(entry.kind, entry.outcome, entry.errcode) for entry in RefreshLog.objects.order_by("pk")[2:]]
    assert log == [
        ("jsapi_ticket", "failed", 40001), ("access_token", "renewed", None), ("jsapi_ticket", "unchanged", None),
    ]  # fmt: skip


def test_force_and_clearing__of_a_platform_that_has_neither(boss, settings, db):
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "PLATFORMS": ["tests.platforms.douyin.PLATFORM"]}
    other = Account.objects.create(platform="douyin", appid="tt0123456789abcdef", secret=SECRET)
    html = page(boss.get(url("change", other)))
    assert "Refresh now" in html
    assert url("force", other) not in html
    assert url("clear_quota", other) not in html
    assert "has no call that clears its quota" in told(boss.post(url("clear_quota", other), YES))[-1]


def test_force__a_spent_ration_offers_no_button(boss, account, time):
    renew(account)
    Token.objects.update(usage={"day": "2026-03-02", "stable_forced": 20})
    html = page(boss.post(url("force", account)))
    assert "None may leave now; the next at 2026-03-03 00:00:00." in html
    assert "Yes, force it" not in html


def test_force__a_lost_answer_makes_the_token_suspect(boss, account, weixin, time):
    """R2: what may have displaced it is repaired, and the token is not trusted for longer than the overlap."""
    renew(account)
    time.pass_(60)
    weixin.inject(Fault("lost_after"), endpoint="stable_forced")
    boss.post(url("force", account), YES)
    assert row(account).unanswered_since == time.now()


@pytest.mark.parametrize("view", ["force", "clear_quota"])
@pytest.mark.parametrize("permissions", [(), ("view_account", "change_account"), ("refresh_token",)])
def test_force_and_clearing__need_their_permission(staff, account, weixin, view, permissions):
    client = staff(*permissions)
    assert client.post(url(view, account), YES).status_code == 403
    if "view_account" in permissions:
        assert url(view, account) not in page(client.get(url("change", account)))
    assert weixin.calls == []


@pytest.fixture
def exhausted(classic, weixin, time):
    """A classic account whose calls of the day another system has used up."""
    renew(classic)
    while True:
        try:
            weixin.foreign_refresh(APPID)
        except Exception:
            break
    time.pass_(7200)
    renew(classic)
    assert row(classic).errcode == 45009
    return classic


def test_clear_quota__asks_first_and_names_the_ration(boss, account, weixin):
    assert "ten times a month" in page(boss.post(url("clear_quota", account)))
    assert weixin.calls == []


def test_clear_quota__wakes_what_waited_and_counts_anew(boss, exhausted, weixin, time):
    response = boss.post(url("clear_quota", exhausted), YES)
    assert "to zero" in told(response)[0]
    token = row(exhausted)
    assert (token.due_at, token.usage) == (time.now(), {})
    renew(exhausted)
    assert weixin.is_valid(row(exhausted).value.reveal())
    assert "Asked WeChat to clear the quota." in LogEntry.objects.get().get_change_message()


def test_clear_quota__a_double_click_is_one_of_ten(boss, account, weixin, time):
    boss.post(url("clear_quota", account), YES)
    assert "a moment ago" in told(boss.post(url("clear_quota", account), YES))[-1]
    assert weixin.calls_to(APPID, "clear_quota") == 1
    time.pass_(61)
    html = page(boss.post(url("clear_quota", account)))
    assert "Last done from here: 2026-03-02 12:00:00." in html


def test_clear_quota__the_month_is_spent(boss, account, weixin, time):
    for _ in range(11):
        (*_before, text) = told(boss.post(url("clear_quota", account), YES))
        time.pass_(61)
    assert "48006: This month's resets of the quota counters are used up." in text
    assert weixin.calls_to(APPID, "clear_quota") == 11


def test_clear_quota__leaves_the_ration_of_forced_refreshes(boss, account):
    Token.objects.update(usage={"day": "2026-03-02", "stable": 5, "stable_forced": 20})
    boss.post(url("clear_quota", account), YES)
    assert row(account).usage == {"day": "2026-03-02", "stable_forced": 20}


def test_clear_quota__tells_nobody_the_secret(boss, account, weixin, caplog):
    weixin.reset_secret(APPID, "another")
    with caplog.at_level(logging.DEBUG):
        response = boss.post(url("clear_quota", account), YES)
        html = page(boss.get(url("change", account)))
    assert "40125" in told(response)[0] + html
    assert SECRET not in caplog.text + html + str(response.cookies)


def test_clear_quota__by_command(account, weixin, capsys):
    with pytest.raises(CommandError, match="say --yes"):
        call_command("wechat_token", "clear-quota", APPID)
    assert weixin.calls == []
    call_command("wechat_token", "clear-quota", APPID, "--yes")
    assert "to zero" in capsys.readouterr().out
    assert weixin.calls_to(APPID, "clear_quota") == 1


def test_clear_quota__a_paused_site_asks_nothing(boss, account, weixin, settings):
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "PAUSED": True}
    assert "paused" in told(boss.post(url("clear_quota", account), YES))[0]
    assert weixin.calls == []
    assert Account.objects.get().quota_cleared_at is None
