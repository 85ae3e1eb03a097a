"""R31: what can fail by itself fails before the claim; from there on every exception ends as a recorded failure."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.apps import apps
from django.test import override_settings
from django.urls import reverse

from tests.conftest import APPID, SECRET, row
from tests.ground.looks import listening, printed, status, until
from wechat_token import get_access_token, signals, tasks
from wechat_token.exceptions import WeChatTokenError
from wechat_token.models import Account, RefreshLog, Token
from wechat_token.platforms import official_account
from wechat_token.sandbox import FakeWeChat
from wechat_token.sandbox.testing import fake_wechat


class Abandoned(BaseException):
    """As gevent's Timeout, a greenlet's exit, an interrupt: no ``Exception``."""


@pytest.fixture(params=["classic", "stable"])
def due(request, account, weixin, time):
    """An account with a good token whose renewal is due."""
    account.endpoint = request.param
    account.save()
    get_access_token(APPID)
    time.pass_until(row(account).due_at + timedelta(seconds=1))
    return account


@pytest.fixture
def heard():
    with listening() as told:
        yield told


@contextmanager
def raising(error, monkeypatch):
    """A credential source with a bug: it raises before anything leaves."""

    def broken(*args, **kwargs):
        raise error("canary")

    with monkeypatch.context() as patch:
        patch.setattr(official_account.transport, "call", broken)
        yield


def tick():
    with suppress(Exception, Abandoned):
        tasks.refresh_due_tokens()


def assert_recorded(account, heard):
    after = row(account)
    assert after.failures >= 1
    assert after.error_class
    assert after.lease_owner == ""
    assert RefreshLog.objects.filter(ref=account.ref, outcome__in=["failed", "lost"]).exists()
    assert until(lambda: [payload for signal, payload in heard if signal is signals.refresh_finished])
    assert status(APPID)["state"] != "refreshing"


# -- between claim and store


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, SoftTimeLimitExceeded, Abandoned])
def test_refresh__what_breaks_on_the_wire_is_a_failure(due, heard, error):
    """A worker's time limit, a lack of memory, a bug below us."""

    class Broken(FakeWeChat):
        def handle(self, *args, **kwargs):
            raise error("canary")

    token = get_access_token(APPID)
    heard.clear()
    with fake_wechat(Broken()):
        tick()
    assert_recorded(due, heard)
    assert get_access_token(APPID) == token
    assert "canary" not in printed("status")


@pytest.mark.parametrize("error", [ValueError, KeyError, MemoryError, Abandoned])
def test_refresh__source_that_raises_is_a_failure(due, weixin, time, heard, monkeypatch, error):
    token = get_access_token(APPID)
    heard.clear()
    with raising(error, monkeypatch):
        tick()
    assert_recorded(due, heard)
    assert get_access_token(APPID) == token
    time.pass_until(row(due).due_at + timedelta(seconds=1))
    tick()
    assert row(due).failures == 0
    assert weixin.is_valid(get_access_token(APPID))


def test_refresh__source_that_raises_for_an_hour_backs_off_and_alerts(due, time, heard, monkeypatch):
    tries = 0
    with raising(ValueError, monkeypatch):
        for _ in range(60):
            before = row(due).failures
            tick()
            tries += row(due).failures > before
            time.pass_(60)
    assert 3 <= tries < 30
    assert until(lambda: [payload for signal, payload in heard if signal is signals.attention_needed])
    assert status(APPID)["needs_attention"]


# -- before the claim: this host cannot, others can


LOST = "a-secret-key-that-this-host-does-not-have"
AILMENTS = {
    "secret-unreadable": {"SECRET_KEY": LOST},
    "ca-bundle-mistyped": {"WECHAT_TOKEN": {"CA_BUNDLE": "/no/such/bundle.pem"}},
}


@pytest.mark.parametrize("ails", AILMENTS.values(), ids=AILMENTS.keys())
def test_refresh__host_that_cannot_leaves_the_token_to_the_others(due, weixin, time, admin_client, ails):
    """And says so itself, for whoever looks at the account or asks the doctor."""
    before, calls = Token.objects.values().get(), len(weixin.calls)
    with override_settings(**ails):
        for _ in range(30):
            tick()
            time.pass_(5)
    assert Token.objects.values().get() == before
    assert len(weixin.calls) == calls
    assert not RefreshLog.objects.exclude(outcome="renewed").exists()
    [host] = apps.get_model("wechat_token", "Host").objects.exclude(problems={})
    assert host.name in printed("doctor")
    assert host.name in admin_client.get(reverse("admin:wechat_token_account_change", args=[due.pk])).content.decode()
    tick()  # on another host
    assert row(due).version > before["version"]
    assert weixin.is_valid(get_access_token(APPID))


@pytest.mark.parametrize("endpoint", ["classic", "stable"])
def test_get_access_token__secret_unreadable_here_is_no_call(account, weixin, time, endpoint):
    """A web worker without the key: it neither counts nor leases nor starts a streak that others would wait for."""
    account.endpoint = endpoint
    account.save()
    with override_settings(SECRET_KEY=LOST):
        Account.objects.filter(pk=account.pk).update(secret=SECRET)
    for _ in range(50):
        with pytest.raises(WeChatTokenError):
            get_access_token(APPID)
        time.pass_(20)
    assert weixin.calls == []
    assert not status(APPID)["calls_today"].get(endpoint)
    after = row(account)
    assert (after.lease_owner, after.unanswered_since, after.sent_at, after.failures) == ("", None, None, 0)
    with override_settings(SECRET_KEY=LOST):  # another host
        assert weixin.is_valid(get_access_token(APPID))
