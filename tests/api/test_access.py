"""Who is let in: keys in every state, from every place, too often, and under every kind of middleware."""

from __future__ import annotations

import datetime as dt
import logging

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test import AsyncClient, Client

from tests.api.conftest import PREFIX, Caller
from wechat_token import clock
from wechat_token.api import service
from wechat_token.client_keys import keyring
from wechat_token.client_keys.keys import generate, make_key
from wechat_token.models import ClientKey


def refusal(response):
    """What a stranger sees, with all that could tell one case from another."""
    return response.status_code, response.content, response["WWW-Authenticate"]


# -- keys that open nothing ------------------------------------------------------------------------


def _none(key, caller):
    return {}


def _empty(key, caller):
    return {"Authorization": "Bearer "}


def _malformed(key, caller):
    return {"Authorization": f"Bearer {caller.key}x"}


def _unknown(key, caller):
    return {"Authorization": f"Bearer {generate().reveal()}"}


def _basic(key, caller):
    return {"Authorization": f"Basic {caller.key}"}


def _other_header(key, caller):
    return {"X-Api-Key": caller.key}


def _expired(key, caller):
    key.expires_at = clock.now()
    key.save()
    return caller.auth


def _revoked(key, caller):
    key.revoked_at = clock.now()
    key.save(update_fields=["revoked_at"])
    return caller.auth


def _revoked_in_bulk(key, caller):
    ClientKey.objects.update(revoked_at=clock.now())
    return caller.auth


def _deleted(key, caller):
    key.delete()
    return caller.auth


def _elsewhere(key, caller):
    key.networks = "10.0.0.0/8"
    key.save()
    return caller.auth


USELESS = [
    _none, _empty, _malformed, _unknown, _basic, _other_header,
    _expired, _revoked, _revoked_in_bulk, _deleted, _elsewhere,
]  # fmt: skip


@pytest.mark.parametrize("how", USELESS)
def test_useless_keys__look_alike(key, caller, account, how):
    path = f"{PREFIX}/accounts/{account.appid}/access_token"
    assert caller.read().status_code == 200
    expected = refusal(Client().get(path))
    assert expected[0] == 401
    assert refusal(caller.http.get(path, headers=how(key, caller))) == expected


def test_useless_keys__in_the_query_is_the_wrong_place(caller, account):
    path = f"{PREFIX}/accounts/{account.appid}/access_token"
    response = Client().get(path, {"key": caller.key, "secret": caller.key, "access_token": caller.key})
    assert response.status_code == 401


def test_key__opens_until_its_very_end(key, caller, time):
    key.expires_at = time.now() + dt.timedelta(seconds=10)
    key.save()
    time.pass_(9.9)
    assert caller.read().status_code == 200
    time.pass_(0.1)
    assert caller.read().status_code == 401


def test_key__rotates_without_a_gap(caller, account, key):
    new = Caller(make_key("orders", accounts=[account])[1], account.appid)
    assert caller.read().status_code == new.read().status_code == 200
    key.revoked_at = clock.now()
    key.save()
    assert (caller.read().status_code, new.read().status_code) == (401, 200)


# -- networks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("address", "status"), [("10.1.2.3", 200), ("192.0.2.1", 401), ("", 401)])
def test_networks__bind_a_key(key, caller, address, status):
    key.networks = "10.0.0.0/8\n2001:db8::/32"
    key.save()
    assert caller.read(REMOTE_ADDR=address).status_code == status


def test_networks__are_not_fooled_by_a_header(key, caller):
    key.networks = "10.0.0.0/8"
    key.save()
    caller.http.defaults["HTTP_X_FORWARDED_FOR"] = "10.0.0.1"
    assert caller.read(REMOTE_ADDR="192.0.2.1").status_code == 401


def test_networks__are_seen_through_our_own_proxy(key, caller, settings):
    settings.WECHAT_TOKEN = {"TRUSTED_PROXIES": 1}
    key.networks = "10.0.0.0/8"
    key.save()
    caller.http.defaults["HTTP_X_FORWARDED_FOR"] = "192.0.2.1, 10.0.0.1"
    assert caller.read(REMOTE_ADDR="127.0.0.1").status_code == 200
    caller.http.defaults["HTTP_X_FORWARDED_FOR"] = "10.0.0.1, 192.0.2.1"
    assert caller.read(REMOTE_ADDR="127.0.0.1").status_code == 401


def test_networks__that_cannot_be_read_admit_nobody(key, caller):
    ClientKey.objects.update(networks="10.0.0.0/8 and the office")
    assert caller.read(REMOTE_ADDR="10.0.0.1").status_code == 401


# -- too often -------------------------------------------------------------------------------------


def test_failures__are_throttled_with_the_time_to_wait(account, time):
    stranger = Caller(generate(), account.appid)
    assert [stranger.read().status_code for _ in range(11)] == [401] * 10 + [429]
    response = stranger.read()
    assert response.json()["error"]["code"] == "too_many_failures"
    assert 0 < int(response["Retry-After"]) <= 60
    time.pass_(60)
    assert stranger.read().status_code == 401


def test_failures__of_others_never_block_a_valid_key(caller, account):
    stranger = Caller(generate(), account.appid)
    for _ in range(30):
        stranger.read()
    assert caller.read().status_code == 200


def test_failures__count_by_address(account):
    stranger = Caller(generate(), account.appid)
    for _ in range(11):
        stranger.read(REMOTE_ADDR="192.0.2.1")
    assert stranger.read(REMOTE_ADDR="192.0.2.2").status_code == 401


def test_failures__without_any_key_are_no_guesses(account):
    path = f"{PREFIX}/accounts/{account.appid}/access_token"
    assert {Client().get(path).status_code for _ in range(20)} == {401}
    assert Caller(generate(), account.appid).read().status_code == 401


def test_failures__are_logged_once_a_minute_without_the_key(account, time, caplog):
    stranger = Caller(generate(), account.appid)
    for _ in range(20):
        stranger.read()
    time.pass_(60)
    stranger.read()
    lines = [record.getMessage() for record in caplog.records]
    shown = stranger.key[4:12]
    assert lines == [
        f"Refused client key {shown}… from 127.0.0.1. Attempts from there in the minute before: {before}."
        for before in (0, 20)
    ]


@pytest.mark.parametrize("text", ["canary-app-secret-4f9a7c1e", "wxt_" + "0" * 37 + "!"])
def test_failures__do_not_log_what_is_no_key(account, caplog, text):
    Caller(text, account.appid).read()
    assert "(malformed)" in caplog.text
    assert text[:8] not in caplog.text


# -- middleware ------------------------------------------------------------------------------------


@pytest.mark.parametrize("middleware", ["django.contrib.auth.middleware.LoginRequiredMiddleware"])
def test_views__work_where_everything_needs_a_login(caller, settings, middleware):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, middleware]
    token = caller.read().json()["access_token"]
    assert caller.complain(token).status_code == 200
    assert "access_token" in caller.token().json()
    assert "access_token" in caller.stable().json()
    assert caller.http.get(f"{PREFIX}/health").status_code == 200
    assert caller.http.get(f"{PREFIX}/openapi.json").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_views__are_never_in_a_transaction_of_the_request(monkeypatch):
    seen = []

    def find(text):
        seen.append(connection.in_atomic_block)

    monkeypatch.setattr(keyring, "find", find)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    stranger = Caller(generate(), "wx")
    for call in (stranger.read, stranger.token, stranger.stable, lambda: stranger.complain("t")):
        call()
    assert seen == [False] * 4


def test_views__work_under_asgi(caller, account):
    token = caller.read().json()["access_token"]
    ask = async_to_sync(AsyncClient().post)
    response = ask(
        f"{PREFIX}/accounts/{account.appid}/access_token/refresh",
        {"stale_token": token}, content_type="application/json", headers=caller.auth,
    )  # fmt: skip
    assert response.json()["access_token"] == token


@pytest.mark.parametrize("path", ["accounts/x/access_token", "accounts/x/access_token/refresh", "health"])
def test_views__forbid_storing_whatever_the_answer(db, path):
    for method in ("get", "post", "delete"):
        assert getattr(Client(), method)(f"{PREFIX}/{path}")["Cache-Control"] == "no-store"


def test_views__forbid_storing_a_token(caller):
    token = caller.read()
    answers = [
        token,
        caller.complain(token.json()["access_token"]),
        caller.token(),
        caller.stable(),
        caller.stable(appid="no"),
    ]
    assert {answer["Cache-Control"] for answer in answers} == {"no-store"}


def test_views__leave_no_refusal_to_djangos_own_log(caller, caplog):
    caller.appid = "wxunknown"
    caller.read()
    assert not [record for record in caplog.records if record.name.startswith("django")]


def test_views__mail_no_503_to_the_admins(caller, monkeypatch, settings, mailoutbox):
    settings.ADMINS = [("Admin", "admin@example.com")]
    settings.DEBUG = False

    def fail(key):
        raise ValueError(caller.key)

    monkeypatch.setattr(service, "current_entry", fail)
    assert caller.read().status_code == 500
    assert not mailoutbox


@pytest.mark.urls("tests.api.mounted_deep")
def test_views__work_under_any_prefix(caller, account):
    path = f"/a/b/c/accounts/{account.appid}/access_token"
    assert caller.http.get(path, headers=caller.auth).status_code == 200


def test_views__are_not_redirected_to_a_slash(caller, account, settings):
    assert settings.APPEND_SLASH
    assert caller.complain("old").status_code == 200


def test_log__of_a_whole_day_of_use_holds_no_secret(caller, reader, account, weixin, caplog):
    caplog.set_level(logging.DEBUG)
    token = caller.read().json()["access_token"]
    weixin.kill_token(account.appid)
    new = caller.complain(token).json()["access_token"]
    caller.stable(force_refresh=True)
    caller.token()
    reader.complain(new)
    caller.token(secret=caller.key + "x")
    caller.send(f'{{"stale_token": "{token}"')
    for secret in (caller.key, token, new, caller.key[12:]):
        assert secret not in caplog.text
