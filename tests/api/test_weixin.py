"""WeChat's dialect: an SDK changes its host, and the client key takes the AppSecret's place."""

from __future__ import annotations

import contextvars
import logging

import pytest

from tests.api.conftest import PREFIX, Caller
from wechat_token import get_access_token
from wechat_token.client_keys.keys import generate, make_key
from wechat_token.models import Account
from wechat_token.sandbox import Fault

BOTH = pytest.mark.parametrize("call", [Caller.token, Caller.stable])


def verdict(response):
    """The errcode of an error in WeChat's shape."""
    assert response.status_code == 200
    assert set(response.json()) == {"errcode", "errmsg"}
    return response.json()["errcode"]


@BOTH
def test_token__has_exactly_the_shape_of_wechat(caller, account, call):
    body = call(caller).json()
    assert set(body) == {"access_token", "expires_in"}
    assert body["access_token"] == get_access_token(account.appid)
    assert type(body["expires_in"]) is int


def test_token__read_a_hundred_times_is_fetched_once(caller, classic, weixin):
    assert len({caller.token().json()["access_token"] for _ in range(100)}) == 1
    assert weixin.calls_to(classic.appid, "classic") == 1


@BOTH
@pytest.mark.parametrize(
    "secret", ["wrong", "wxt_" + "0" * 38, pytest.param(generate().reveal(), id="unknown"), "微信", "x\0"]
)
def test_token__wrong_key_is_a_wrong_secret(caller, call, secret):
    assert verdict(call(caller, secret=secret)) == 40001


@BOTH
def test_token__unknown_forbidden_and_inactive_accounts_look_alike(caller, account, call):
    Account.objects.create(appid="wxforbidden", secret="x")
    answers = [call(caller, appid="wxunknown"), call(caller, appid="wxforbidden")]
    account.is_active = False
    account.save()
    answers.append(call(caller))
    assert [verdict(answer) for answer in answers] == [40013] * 3
    assert len({answer.content for answer in answers}) == 1


@BOTH
@pytest.mark.parametrize(
    ("missing", "errcode"), [({"grant_type": None}, 40002), ({"appid": None}, 41002), ({"secret": None}, 41004)]
)
def test_token__missing_parameters(caller, call, missing, errcode):
    assert verdict(call(caller, **missing)) == errcode


@BOTH
def test_token__wrong_grant_type(caller, call):
    assert verdict(call(caller, grant_type="password")) == 40002


@BOTH
def test_token__key_in_the_header_is_no_key_here(caller, call):
    caller.http.defaults["HTTP_AUTHORIZATION"] = f"Bearer {caller.key}"
    assert verdict(call(caller, secret=None)) == 41004


@BOTH
def test_token__no_token_is_a_busy_system(caller, weixin, call):
    weixin.inject(Fault("error", errcode=40125), times=5)
    response = call(caller)
    assert verdict(response) == -1
    assert response.json()["errmsg"] == "system error (class human, errcode 40125)"


def test_token__takes_no_flood_of_parameters(caller, caplog):
    assert verdict(caller.token(**{f"p{number}": "x" for number in range(1001)})) == 47001
    assert not caplog.records


def test_token__needs_get(caller):
    assert verdict(caller.http.post(f"{PREFIX}/cgi-bin/token")) == 43001


@pytest.mark.parametrize("method", ["get", "put", "delete"])
def test_stable_token__needs_post(caller, method):
    assert verdict(getattr(caller.http, method)(f"{PREFIX}/cgi-bin/stable_token")) == 43002


@pytest.mark.parametrize(
    ("body", "errcode"), [("", 44002), ("{", 47001), ("[]", 47001), ("grant_type=client_credential", 47001)]
)
def test_stable_token__bad_bodies(caller, body, errcode):
    path = f"{PREFIX}/cgi-bin/stable_token"
    assert verdict(caller.http.post(path, body, content_type="application/json")) == errcode


@pytest.mark.parametrize("change", [{"appid": 1}, {"secret": ["x"]}, {"force_refresh": "true"}, {"appid": {"a": 1}}])
def test_stable_token__wrong_types(caller, change):
    assert verdict(caller.stable(**change)) == 47001


def test_stable_token__does_not_ask_for_the_content_type(caller):
    body = f'{{"grant_type": "client_credential", "appid": "{caller.appid}", "secret": "{caller.key}"}}'
    response = caller.http.post(f"{PREFIX}/cgi-bin/stable_token", body, content_type="text/plain")
    assert "access_token" in response.json()


def test_stable_token__too_large(caller):
    assert verdict(caller.stable(appid="x" * 20_000)) == 47001


# -- force_refresh ---------------------------------------------------------------------------------


def test_force_refresh__about_a_dead_token_gives_a_new_one(caller, weixin, account):
    caller.read()
    weixin.kill_token(account.appid)
    body = caller.stable(force_refresh=True).json()
    assert set(body) == {"access_token", "expires_in"}
    assert weixin.is_valid(body["access_token"])


def test_force_refresh__of_a_good_token_costs_one_probe_and_no_token(caller, weixin, account):
    token = caller.read().json()["access_token"]
    answers = {caller.stable(force_refresh=True).json()["access_token"] for _ in range(30)}
    assert answers == {token}
    assert weixin.issued(account.appid) == 1
    assert len(weixin.calls) == 2


def test_force_refresh__needs_the_right_to_complain(reader):
    assert verdict(reader.stable(force_refresh=True)) == 48001


def test_force_refresh__in_a_loop_is_told_to_wait(caller, settings):
    settings.WECHAT_TOKEN = {"COMPLAINTS_PER_MINUTE": 1}
    caller.stable(force_refresh=True)
    assert verdict(caller.stable(force_refresh=True)) == 45011


def test_force_refresh__without_a_token_fetches_one(caller, weixin, account):
    assert weixin.is_valid(caller.stable(force_refresh=True).json()["access_token"])
    assert weixin.calls_to(account.appid, "stable") == 1


@BOTH
def test_token__after_many_wrong_keys_the_address_is_told_to_wait(caller, account, call):
    stranger = Caller(generate(), account.appid)
    assert [verdict(call(stranger)) for _ in range(11)] == [40001] * 10 + [45011]
    assert "access_token" in call(caller).json()


def test_token__is_the_same_for_every_key_of_the_account(caller, account):
    other = Caller(make_key("other", accounts=[account])[1], account.appid)
    assert other.stable().json()["access_token"] == caller.token().json()["access_token"]


@BOTH
def test_token__context_of_the_request_does_not_reach_what_is_logged(caller, weixin, call):
    """S2: an error tracker keeps URL and body there, and they have the key in them."""
    url = contextvars.ContextVar("url", default="")
    seen = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(url.get())
    logger = logging.getLogger("wechat_token")
    weixin.outage()
    logger.addHandler(handler)
    url.set("canary")
    try:
        assert verdict(call(caller)) == -1
    finally:
        logger.removeHandler(handler)
    assert seen
    assert "canary" not in seen
