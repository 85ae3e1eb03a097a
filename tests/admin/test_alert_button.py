"""The button that tries whether alerts reach anybody."""

from __future__ import annotations

import pytest
from django.core import mail
from django.urls import reverse

from tests.admin.pages import LIST, page, told

TEST = reverse("admin:wechat_token_account_test_alerts")
YES = {"confirmed": "yes"}
HOOK = "http://127.0.0.1:9/CANARY"


@pytest.fixture
def somebody(settings):
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "ALERT_EMAILS": ["oncall@example.com"]}


def test_button__asks_then_sends_and_tells(boss, somebody):
    assert TEST in page(boss.get(reverse(LIST)))
    assert "ALERT_EMAILS" in page(boss.post(TEST))
    assert mail.outbox == []
    assert told(boss.post(TEST, YES)) == ["ALERT_EMAILS: sent"]
    assert [message.to for message in mail.outbox] == [["oncall@example.com"]]


def test_button__says_who_was_not_reached_without_the_address(boss, settings):
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "ALERT_WEBHOOKS": [HOOK]}
    (text,) = told(boss.post(TEST, YES))
    assert text.startswith("webhook 1: failed")
    assert "CANARY" not in text + page(boss.post(TEST)) + page(boss.get(reverse(LIST)))


def test_button__is_not_there_where_nobody_gets_alerts(boss):
    assert TEST not in page(boss.get(reverse(LIST)))
    assert told(boss.post(TEST)) == [
        "Nobody gets alerts: set WECHAT_TOKEN['ALERT_EMAILS'] or ['ALERT_WEBHOOKS']."
    ]  # fmt: skip


@pytest.mark.parametrize("permissions", [(), ("view_account", "change_account"), ("refresh_token",)])
def test_button__needs_its_permission(staff, somebody, permissions):
    client = staff(*permissions)
    assert client.post(TEST, YES).status_code == 403
    if "view_account" in permissions:
        assert TEST not in page(client.get(reverse(LIST)))
    assert mail.outbox == []


def test_button__get_sends_nothing(boss, somebody):
    assert boss.get(TEST, YES).status_code == 302
    assert boss.put(TEST).status_code == 405
    assert mail.outbox == []
