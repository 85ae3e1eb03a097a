"""The REST dialect: reading a token and complaining about it."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys

import pytest

from tests.api.conftest import PREFIX, Caller
from wechat_token import get_access_token
from wechat_token.api import service
from wechat_token.client_keys import keyring
from wechat_token.client_keys.keys import make_key
from wechat_token.exceptions import EncryptionKeyError, ErrorClass, TokenUnavailable
from wechat_token.models import Account, RefreshLog
from wechat_token.sandbox import Fault


def error(response):
    return response.status_code, response.json()["error"]["code"]


# -- reading ---------------------------------------------------------------------------------------


def test_access_token__is_what_the_site_itself_would_use(caller, account, weixin):
    body = caller.read().json()
    assert set(body) == {"access_token", "expires_in", "expires_at"}
    assert body["access_token"] == get_access_token(account.appid)
    assert weixin.is_valid(body["access_token"])


def test_access_token__tells_the_rest_of_its_life(caller, time):
    first = caller.read().json()
    time.pass_(100.4)
    second = caller.read().json()
    assert second["access_token"] == first["access_token"]
    assert first["expires_in"] - second["expires_in"] in (100, 101)


def test_access_token__says_the_same_end_twice(caller, time):
    body = caller.read().json()
    end = dt.datetime.fromisoformat(body["expires_at"])
    assert body["expires_at"].endswith("Z")
    assert end == time.now() + dt.timedelta(seconds=body["expires_in"])


def test_access_token__answers_head(caller, account):
    response = caller.http.head(f"{PREFIX}/accounts/{account.appid}/access_token", headers=caller.auth)
    assert (response.status_code, response.content) == (200, b"")


def test_access_token__takes_the_scheme_in_any_case(caller, account):
    headers = {"Authorization": f"bearer  {caller.key}"}
    assert caller.http.get(f"{PREFIX}/accounts/{account.appid}/access_token", headers=headers).status_code == 200


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options", "trace"])
def test_access_token__takes_get_and_head_only(caller, account, method):
    response = getattr(caller.http, method)(f"{PREFIX}/accounts/{account.appid}/access_token", headers=caller.auth)
    assert error(response) == (405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD"


# -- accounts a key may not use --------------------------------------------------------------------


def _unknown(account):
    return "wx000000000000dead"


def _forbidden(account):
    return Account.objects.create(appid="wxforbidden", secret="x").appid


def _inactive(account):
    account.is_active = False
    account.save()
    return account.appid


@pytest.mark.parametrize("which", [_unknown, _forbidden, _inactive])
@pytest.mark.parametrize("call", [Caller.read, lambda caller: caller.complain("t")])
def test_account__unknown_forbidden_and_inactive_look_alike(caller, account, which, call):
    caller.appid = which(account)
    response = call(caller)
    assert error(response) == (404, "account_not_found")
    assert response.json()["error"] == {
        "code": "account_not_found",
        "message": "This client key gives access to no such account.",
    }


@pytest.mark.parametrize("appid", ["a%00b", "%E5%BE%AE", "x" * 70, "%20", "%ff", "'; DROP"])
def test_account__odd_names_are_unknown_to_a_key_for_all(account, appid):
    caller = Caller(make_key("all", all_accounts=True)[1], appid)
    assert error(caller.read()) == (404, "account_not_found")


def test_account__of_another_service_is_not_revealed_by_its_token(caller, account, weixin):
    weixin.add_account("wxother", "other-secret")
    other = Account.objects.create(appid="wxother", secret="other-secret")
    foreign = get_access_token(other.appid)
    body = caller.complain(foreign).json()
    assert body["access_token"] == get_access_token(account.appid) != foreign
    assert weixin.calls_to("wxother", "stable") == 1


# -- complaining -----------------------------------------------------------------------------------


def test_refresh__about_an_older_token_gives_the_current_one(caller, weixin, account):
    current = caller.read().json()["access_token"]
    calls = len(weixin.calls)
    body = caller.complain("an-older-token").json()
    assert (body["access_token"], body["refreshed"]) == (current, True)
    assert len(weixin.calls) == calls


def test_refresh__about_a_good_token_gives_it_back(caller, weixin, account):
    current = caller.read().json()["access_token"]
    body = caller.complain(current).json()
    assert (body["access_token"], body["refreshed"]) == (current, False)
    assert weixin.calls_to(account.appid, "stable") == 1


def test_refresh__about_a_dead_token_gives_a_new_one(caller, weixin, account):
    dead = caller.read().json()["access_token"]
    weixin.kill_token(account.appid)
    body = caller.complain(dead).json()
    assert set(body) == {"access_token", "expires_in", "expires_at", "refreshed"}
    assert body["refreshed"]
    assert weixin.is_valid(body["access_token"])


def test_refresh__is_logged_under_the_name_of_the_key(caller, weixin, account):
    dead = caller.read().json()["access_token"]
    weixin.kill_token(account.appid)
    caller.complain(dead)
    assert RefreshLog.objects.first().client == "orders"


def test_refresh__is_not_for_keys_that_may_only_read(reader, weixin):
    current = reader.read().json()["access_token"]
    calls = len(weixin.calls)
    assert error(reader.complain(current)) == (403, "refresh_not_allowed")
    assert len(weixin.calls) == calls


def test_refresh__of_a_client_that_loops_is_stopped(caller, settings, time):
    settings.WECHAT_TOKEN = {"COMPLAINTS_PER_MINUTE": 3}
    caller.read()
    assert [caller.complain("old").status_code for _ in range(4)] == [200, 200, 200, 429]
    response = caller.complain("old")
    assert error(response) == (429, "too_many_complaints")
    assert 0 < int(response["Retry-After"]) <= 60
    time.pass_(60)
    assert caller.complain("old").status_code == 200


def test_refresh__that_the_account_holds_back_says_until_when(caller, weixin, account, time):
    statuses = []
    for _ in range(12):
        current = caller.read().json()["access_token"]
        response = caller.complain(current)
        statuses.append(response.status_code)
        time.pass_(11)
    assert statuses[-1] == 429
    assert error(response) == (429, "refresh_rate_limited")
    assert int(response["Retry-After"]) >= 1


@pytest.mark.parametrize("method", ["get", "head", "put", "delete", "options"])
def test_refresh__takes_post_only(caller, account, method):
    path = f"{PREFIX}/accounts/{account.appid}/access_token/refresh"
    response = getattr(caller.http, method)(path, headers=caller.auth)
    assert (response.status_code, response["Allow"]) == (405, "POST")


# -- bad bodies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [" ", "{", "null", "[]", '"stale_token"', "1", b"\xff\xfe", '{"stale_token": NaN', "[" * 15_000, b"\x80"],
)
def test_refresh__needs_a_json_object(caller, body):
    assert error(caller.send(body)) == (400, "invalid_json")


@pytest.mark.parametrize("value", [None, "", 1, True, [], {}, ["t"], "t\n", "微信", "\ud800", "\0", "t" * 2049])
def test_refresh__needs_the_token_that_was_refused(caller, value):
    assert error(caller.complain(value)) == (400, "invalid_stale_token")


def test_refresh__without_stale_token(caller):
    assert error(caller.send("{}")) == (400, "invalid_stale_token")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_refresh__needs_json_by_name(caller, content_type):
    response = caller.send('{"stale_token": "t"}', content_type=content_type)
    assert error(response) == (415, "unsupported_media_type")


def test_refresh__takes_json_with_a_charset(caller):
    assert caller.send('{"stale_token": "t"}', "application/json; charset=utf-8").status_code == 200


def test_refresh__with_ten_megabytes_is_refused_unread(caller, account, rf):
    from wechat_token.api import accounts

    class Unreadable:
        def read(self, *args):
            raise AssertionError("the body was read")

    request = rf.post("/", content_type="application/json", headers=caller.auth)
    request.META["CONTENT_LENGTH"] = str(10 * 1024 * 1024)
    request._stream = Unreadable()
    assert error_of(accounts.refresh(request, account.appid)) == (413, "body_too_large")


def error_of(response):
    return response.status_code, json.loads(response.content)["error"]["code"]


def test_refresh__with_a_body_longer_than_announced_is_refused(caller, account, rf):
    from wechat_token.api import accounts

    request = rf.post("/", "x" * 20_000, content_type="application/json", headers=caller.auth)
    request.META["CONTENT_LENGTH"] = "nonsense"
    assert error_of(accounts.refresh(request, account.appid)) == (413, "body_too_large")


def test_refresh__of_a_client_that_hangs_up_is_no_fault_of_ours(caller, account, rf):
    from wechat_token.api import accounts

    class Gone:
        def read(self, *args):
            raise OSError

    request = rf.post("/", content_type="application/json", headers=caller.auth)
    request._stream = Gone()
    assert error_of(accounts.refresh(request, account.appid)) == (400, "invalid_json")


# -- no token --------------------------------------------------------------------------------------


def test_no_token__says_why_and_until_when(caller, weixin):
    weixin.inject(Fault("error", errcode=40125), times=5)
    response = caller.read()
    assert error(response) == (503, "token_unavailable")
    cause = response.json()["error"]
    assert (cause["class"], cause["errcode"]) == ("human", 40125)
    assert int(response["Retry-After"]) >= 1


def test_no_token__shows_no_text_of_the_cause(caller, monkeypatch):
    def fail(*args, **kwargs):
        raise TokenUnavailable(
            "from 203.0.113.9", appid="wx", retry_after=0.2, error_class=ErrorClass.HUMAN, errcode=40164, rid="r-1"
        )

    monkeypatch.setattr(service, "current_entry", fail)
    response = caller.read()
    assert b"203.0.113.9" not in response.content
    assert response.json()["error"]["rid"] == "r-1"
    assert response["Retry-After"] == "1"


@pytest.mark.parametrize("cause", [EncryptionKeyError("keys"), keyring.KeysUnavailable("no keys")])
def test_no_service__is_a_503_that_the_log_explains(caller, monkeypatch, caplog, cause):
    def fail(*args, **kwargs):
        raise cause

    monkeypatch.setattr(service, "current_entry", fail)
    assert error(caller.read()) == (503, "service_unavailable")
    assert str(cause) in caplog.text


def test_internal_error__is_json_and_gives_nothing_away(caller, account, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise ValueError(f"something about {caller.key}")

    monkeypatch.setattr(service, "current_entry", fail)
    response = caller.read()
    assert error(response) == (500, "internal_error")
    assert "/access_token cannot be answered: ValueError in " in caplog.text
    assert caller.key not in caplog.text + response.content.decode()


def test_internal_error__is_not_the_context_of_what_fails_in_logging_it(caller, monkeypatch):
    """S2: the text of somebody else's error may hold anything, and Django's own loggers write the context of errors."""
    contexts = []

    class Handler(logging.Handler):
        def emit(self, record):
            contexts.append(sys.exc_info()[1])

    def fail(*args, **kwargs):
        raise RuntimeError

    monkeypatch.setattr(service, "current_entry", fail)
    logger, handler = logging.getLogger("wechat_token.access"), Handler()
    logger.addHandler(handler)
    try:
        assert error(caller.read()) == (500, "internal_error")
    finally:
        logger.removeHandler(handler)
    assert contexts == [None]
