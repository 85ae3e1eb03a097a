"""Refreshing and revealing by hand: permissions, methods, results."""

from __future__ import annotations

import logging
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.db import OperationalError
from django.urls import resolve, reverse

from tests.admin.pages import (
    LIST,
    OTHER_APPID,
    act,
    page,
    told,
    url,
)
from tests.conftest import APPID, SECRET, row
from wechat_token.admin import AccountAdmin
from wechat_token.models import Account, RefreshLog, Token

VIEWS = ["refresh", "force", "clear_quota", "reveal"]


def test_refresh__stores_a_token_and_logs_who_asked(boss, account, weixin):
    response = boss.post(url("refresh", account))
    assert response.status_code == 302
    assert weixin.is_valid(row(account).value.reveal())
    entry = RefreshLog.objects.get()
    assert (entry.reason, entry.client, entry.outcome) == ("admin", "boss", "renewed")
    assert told(response) == [f"Account {APPID} has a new token, good for 2 h."]


@pytest.mark.parametrize(
    "permissions", [(), ("view_account", "change_account"), ("refresh_token",), ("view_account", "reveal_token")]
)
def test_refresh__needs_its_permission_and_sight_of_the_account(staff, account, weixin, permissions):
    assert staff(*permissions).post(url("refresh", account)).status_code == 403
    assert weixin.calls_to(APPID, "stable") == 0


def test_refresh__permission_and_view_suffice(staff, account, weixin):
    assert staff("view_account", "refresh_token").post(url("refresh", account)).status_code == 302
    assert weixin.calls_to(APPID, "stable") == 1


@pytest.mark.parametrize("view", VIEWS)
def test_token_views__ask_for_the_object(boss, account, monkeypatch, view):
    monkeypatch.setattr(AccountAdmin, "has_view_permission", lambda self, request, obj=None: obj is None)
    assert boss.post(url(view, account)).status_code == 403


@pytest.mark.parametrize("view", VIEWS)
def test_token_views__get_does_nothing_and_leads_back(boss, account, weixin, view):
    """Where the login sends somebody whose session had ended when they pressed the button."""
    response = boss.get(url(view, account))
    assert response.headers["Location"] == url("change", account)
    assert told(response) == ["Nothing was done: you had been logged out in between. Press the button again."]
    assert boss.put(url(view, account)).status_code == 405
    assert weixin.calls == []


@pytest.mark.parametrize("view", VIEWS)
def test_token_views__need_a_csrf_token(staff, account, weixin, view):
    client = staff("view_account", "refresh_token", "reveal_token", enforce_csrf_checks=True)
    assert client.post(url(view, account)).status_code == 403
    assert weixin.calls_to(APPID, "stable") == 0


@pytest.mark.parametrize("view", VIEWS)
def test_token_views__unknown_account(boss, account, view):
    assert boss.post(reverse(f"admin:wechat_token_account_{view}", args=[account.pk + 1])).status_code == 404


@pytest.mark.parametrize("view", VIEWS)
def test_token_views__strangers_are_sent_to_the_login(client, account, view):
    assert "/login/" in client.post(url(view, account)).headers["Location"]


def test_refresh__keeps_the_filters_of_the_list(boss, account):
    html = page(boss.get(url("change", account), {"_changelist_filters": "condition=failing"}))
    action = re.search(rf'action="({url("refresh", account)}[^"]*)"', html).group(1)
    assert "condition%3Dfailing" in boss.post(action).headers["Location"]


def test_refresh__failure_says_what_to_do(boss, account, weixin):
    weixin.reset_secret(APPID, "another")
    (text,) = told(boss.post(url("refresh", account)))
    assert "The AppSecret is" in text
    assert "enter it in this account" in text


def test_refresh__inactive_account_is_left_alone(boss, account, weixin):
    Account.objects.update(is_active=False)
    (text,) = told(boss.post(url("refresh", account)))
    assert "inactive" in text
    assert weixin.calls_to(APPID, "stable") == 0


def test_refresh__unreadable_secret_is_told(boss, account):
    from wechat_token.encryption import StoredSecret

    Account.objects.update(secret=StoredSecret("gAAAA-not-with-our-key"))
    (text,) = told(boss.post(url("refresh", account)))
    assert "cannot be read" in text


def test_refresh__text_of_a_database_error_stays_in_the_server(boss, account, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise OperationalError("could not connect as user 'tokens'")

    monkeypatch.setattr("wechat_token.admin.token_views.refresh_now", fail)
    (text,) = told(boss.post(url("refresh", account)))
    assert text == f"Account {APPID} could not be refreshed. The server's log has the cause."
    assert f"account={APPID} OperationalError" in caplog.text
    assert "could not connect" not in caplog.text


def test_refresh__makes_a_missing_token_row(boss, account, weixin):
    Token.objects.all().delete()
    boss.post(url("refresh", account))
    assert weixin.is_valid(row(account).value.reveal())


@pytest.mark.parametrize("name", ["changelist", "refresh"])
def test_refresh__is_outside_atomic_requests(account, name):
    """R3; on SQLite the request's own transaction would lock the refresh out."""
    args = [] if name == "changelist" else [account.pk]
    view = resolve(reverse(f"admin:wechat_token_account_{name}", args=args)).func
    assert "default" in view._non_atomic_requests


def test_action__refreshes_the_selected(boss, account, weixin):
    weixin.add_account(OTHER_APPID, SECRET)
    other = Account.objects.create(appid=OTHER_APPID, secret=SECRET)
    idle = Account.objects.create(appid="wxidle", secret=SECRET, is_active=False)
    response = act(boss, "refresh_selected", [account, other, idle])
    assert all(weixin.is_valid(row(each).value.reveal()) for each in (account, other))
    texts = told(response)
    assert any("left out" in text for text in texts)
    assert "2 tokens were refreshed." in texts
    assert set(RefreshLog.objects.values_list("reason", "client")) == {("admin", "boss")}


def test_action__needs_the_permission(staff, account, weixin):
    client = staff("view_account", "change_account", "delete_account")
    assert "refresh_selected" not in page(client.get(reverse(LIST)))
    act(client, "refresh_selected", [account])
    assert weixin.calls_to(APPID, "stable") == 0


def test_action__too_many_are_refused(boss, account, weixin, settings):
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "BATCH_THREADS": 1}
    others = [Account.objects.create(appid=f"wxmany{n}", secret="s") for n in range(2)]
    (text,) = told(act(boss, "refresh_selected", [account, *others]))
    assert text.startswith("Select 2 accounts at most.")
    assert weixin.calls_to(APPID, "stable") == 0


def test_reveal__shows_the_token_once_and_records_it(boss, account, weixin, caplog):
    boss.post(url("refresh", account))
    boss.get(url("change", account))  # takes the messages
    value = row(account).value.reveal()
    with caplog.at_level(logging.DEBUG):
        response = boss.post(url("reveal", account))
    assert value in page(response)
    assert "no-store" in response.headers["Cache-Control"]
    assert LogEntry.objects.get().get_change_message() == "Token revealed."
    assert f"event=token_revealed user=boss account={APPID} " in caplog.text
    assert value not in caplog.text
    assert told(response) == []
    assert value not in str(response.cookies)
    assert value not in page(boss.get(url("change", account)))


@pytest.mark.parametrize("permissions", [(), ("view_account", "change_account", "refresh_token"), ("reveal_token",)])
def test_reveal__needs_its_permission_and_sight_of_the_account(staff, account, permissions):
    assert staff(*permissions).post(url("reveal", account)).status_code == 403
    assert not LogEntry.objects.exists()


def test_reveal__no_token_yet(boss, account):
    response = boss.post(url("reveal", account))
    assert told(response) == ["There is no token yet."]
    assert not LogEntry.objects.exists()


def test_reveal__unreadable_token_is_told(boss, account):
    from wechat_token.encryption import StoredSecret

    Token.objects.update(version=1, value=StoredSecret("gAAAA-not-with-our-key"))
    (text,) = told(boss.post(url("reveal", account)))
    assert "cannot be read" in text
