"""R33: a complaint that proves true costs its sender nothing, a false one its sender alone."""

from __future__ import annotations

import io
import re
from contextlib import suppress

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from tests.conftest import APPID
from tests.ground.looks import printed, status
from wechat_token import get_access_token, refresh_access_token
from wechat_token.exceptions import RefreshRateLimited

PROBE = "get_api_domain_ip"


@pytest.fixture(params=["stable", "classic"])
def token(request, account):
    account.endpoint = request.param
    account.save()
    return get_access_token(APPID)


def complain_falsely(token, time, times=12, client="A"):
    """As often as it takes to be refused; whether it was."""
    refused = False
    for _ in range(times):
        time.pass_(11)
        try:
            assert refresh_access_token(APPID, stale_token=token, client=client) == token
        except RefreshRateLimited:
            refused = True
    return refused


# -- false ones cost their client


def test_false_complaints__of_one_client_do_not_refuse_anothers(token, weixin, time):
    assert complain_falsely(token, time)
    assert weixin.calls_to(APPID, PROBE) < 12
    weixin.kill_token(APPID)
    new = refresh_access_token(APPID, stale_token=token, client="B")
    assert new != token
    assert weixin.is_valid(new)


def test_false_complaints__do_not_hold_up_callers_without_a_name(token, weixin, time):
    assert complain_falsely(token, time)
    weixin.kill_token(APPID)
    assert weixin.is_valid(refresh_access_token(APPID, stale_token=token))


class Service:
    """One that reads over HTTP with a key of its own."""

    def __init__(self, name):
        out = io.StringIO()
        call_command(
            "wechat_token", "add-key", name, "--account", APPID, "--may-refresh", stdout=out, stderr=io.StringIO()
        )
        self.headers = {"Authorization": f"Bearer {out.getvalue().strip()}"}

    def complain(self, token):
        path = f"/wechat/accounts/{APPID}/access_token/refresh"
        return Client().post(path, {"stale_token": token}, content_type="application/json", headers=self.headers)

    def health(self):
        [account] = Client().get("/wechat/health", headers=self.headers).json()["accounts"]
        return account


def test_false_complaints__of_one_key_do_not_refuse_anothers(token, weixin, time):
    noisy, honest = Service("noisy"), Service("honest")
    answers = []
    for _ in range(12):
        time.pass_(11)
        answers.append(noisy.complain(token).status_code)
    assert 429 in answers
    weixin.kill_token(APPID)
    answer = honest.complain(token)
    assert answer.status_code == 200, answer.content
    assert weixin.is_valid(answer.json()["access_token"])


@pytest.mark.parametrize("token", ["stable"], indirect=True)
def test_false_complaints__probe_seldom_all_day_long(token, weixin, time):
    """Refused ones reach nobody, and a day of them leaves an honest client its turn."""
    for _ in range(120):
        time.pass_(720)
        with suppress(RefreshRateLimited):
            refresh_access_token(APPID, stale_token=get_access_token(APPID), client="A")
    assert weixin.calls_to(APPID, PROBE) < 100
    time.pass_(3)
    token = get_access_token(APPID)
    weixin.kill_token(APPID)
    assert weixin.is_valid(refresh_access_token(APPID, stale_token=token, client="B"))


# -- true ones are free


def test_true_complaints__thirteen_in_forty_minutes_are_served(token, weixin, time):
    """Another system that renews every three minutes: each complaint is the only way back to a good token."""
    for _ in range(13):
        time.pass_(180)
        token = get_access_token(APPID)
        weixin.kill_token(APPID)
        new = refresh_access_token(APPID, stale_token=token, client="A")
        assert new != token
        assert weixin.is_valid(new)


# -- the verdict


def test_verdict__accepted_is_believed_for_two_seconds(token, weixin, time):
    time.pass_(60)
    assert refresh_access_token(APPID, stale_token=token, client="A") == token
    time.pass_(1.5)
    assert refresh_access_token(APPID, stale_token=token, client="B") == token
    assert weixin.calls_to(APPID, PROBE) == 1
    weixin.kill_token(APPID)
    time.pass_(0.6)
    assert weixin.is_valid(refresh_access_token(APPID, stale_token=token, client="B"))


# -- whoever looks is told


def told(html_or_text):
    return re.search(r"complaints\b.*\brefused", html_or_text, re.IGNORECASE) is not None


def refused(account):
    return any(value for name, value in account.items() if name.startswith("complaints_refused"))


def test_refused_complaints__are_said_while_they_last(token, time, account, admin_client):
    monitor = Service("monitor")
    assert not told(printed("status"))
    assert complain_falsely(token, time)
    assert told(printed("status"))
    assert refused(status(APPID))
    assert refused(monitor.health())
    assert told(admin_client.get(reverse("admin:wechat_token_account_change", args=[account.pk])).content.decode())
    time.pass_(86_400)
    get_access_token(APPID)
    assert not told(printed("status"))
