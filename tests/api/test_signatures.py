"""Tickets and signatures over HTTP, by what a client key was made for; and by a token, in WeChat's dialect."""

from __future__ import annotations

import hashlib
import json
import logging

import pytest
from django.test import Client

from tests.api.conftest import PREFIX, Caller
from tests.conftest import APPID, renew, row
from wechat_token import get_access_token, get_ticket, refresh_access_token
from wechat_token.api.access_logs import masked
from wechat_token.client_keys.keys import make_key
from wechat_token.models import Account, ClientKey, Token
from wechat_token.redaction import MASK

URL = "https://shop.example.com/sale?from=singlemessage"
KINDS = {"jsapi_ticket": "jsapi", "wx_card_ticket": "wx_card"}


class Asker(Caller):
    def get(self, what: str, **query: str):
        return self.http.get(f"{PREFIX}/accounts/{self.appid}/{what}", query, headers=self.auth)

    def post(self, what: str, body: object):
        path = f"{PREFIX}/accounts/{self.appid}/{what}"
        return self.http.post(path, json.dumps(body), content_type="application/json", headers=self.auth)


def asker(account: Account, may_read: str = "everything", **options) -> Asker:
    key = make_key(may_read, accounts=[account], may_refresh=True, may_read=may_read, **options)[1]
    return Asker(key, account.appid)


def getticket(token: str, **extra: str):
    query = {"access_token": token, "type": "jsapi", **extra}
    return Client(REMOTE_ADDR="198.51.100.9").get(f"{PREFIX}/cgi-bin/ticket/getticket", query)


# -- tickets


@pytest.mark.parametrize("kind", KINDS)
def test_ticket__is_the_one_in_service(account, kind):
    response = asker(account).get(kind)
    body = response.json()
    assert set(body) == {"ticket", "expires_in", "expires_at"}
    assert body["ticket"] == get_ticket(APPID, kind)
    assert 0 < body["expires_in"] <= 7200
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize("kind", KINDS)
def test_ticket__complaint_about_another_one_is_answered_with_the_current(account, weixin, kind):
    current = get_ticket(APPID, kind)
    body = asker(account).post(f"{kind}/refresh", {"stale_ticket": "an-older-one"}).json()
    assert (body["ticket"], body["refreshed"]) == (current, True)
    assert asker(account).post(f"{kind}/refresh", {"stale_ticket": current}).json()["refreshed"] is False


@pytest.mark.parametrize(
    "body", [{}, {"stale_token": "x"}, {"stale_ticket": ""}, {"stale_ticket": 1}, {"stale_ticket": "票"}]
)
def test_ticket__complaint_without_a_ticket(account, body):
    response = asker(account).post("jsapi_ticket/refresh", body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_stale_ticket")


# -- signatures


def test_signature__is_what_wx_config_takes(account):
    body = asker(account, "signatures").get("jsapi_signature", url=f"{URL}#x").json()
    text = f"jsapi_ticket={get_ticket(APPID)}&noncestr={body['nonceStr']}&timestamp={body['timestamp']}&url={URL}"
    assert body["signature"] == hashlib.sha1(text.encode()).hexdigest()
    assert set(body) == {"appId", "timestamp", "nonceStr", "signature"}


@pytest.mark.parametrize(
    "url", ["", "javascript:alert(1)", "/sale", "https://", "https://a/ b", "https://a/?" + "x" * 10_240]
)
def test_signature__bad_urls(account, url):
    response = asker(account).get("jsapi_signature", url=url)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_url")


def test_signature__errors_carry_no_ticket(account, weixin, caplog):
    ticket = get_ticket(APPID)
    caplog.set_level(logging.DEBUG)
    caller = asker(account, "signatures")
    answers = [
        caller.get("jsapi_signature", url=url) for url in (URL, "", "https://a/ b", "javascript:x")
    ] + [caller.get("jsapi_ticket"), caller.get("access_token")]  # fmt: skip
    assert ticket not in "".join(answer.content.decode() for answer in answers) + caplog.text


# -- what a key was made for


@pytest.mark.parametrize(
    ("may_read", "allowed"),
    [
        ("signatures", {"jsapi_signature"}),
        ("tickets", {"jsapi_signature", "jsapi_ticket", "wx_card_ticket"}),
        ("everything", {"jsapi_signature", "jsapi_ticket", "wx_card_ticket", "access_token"}),
        ("a word written past the form", set()),
    ],
)
def test_key__is_given_what_it_was_made_for(account, may_read, allowed):
    caller = asker(account)
    ClientKey.objects.update(may_read=may_read, stamp=1)
    statuses = {what: caller.get(what, url=URL).status_code for what in ("jsapi_signature", *KINDS, "access_token")}
    assert {what for what, status in statuses.items() if status == 200} == allowed
    assert set(statuses.values()) <= {200, 403}
    if "access_token" not in allowed:
        assert caller.get("access_token").json()["error"]["code"] == "not_for_this_key"
        assert caller.token().json()["errcode"] == caller.stable().json()["errcode"] == 48001
        assert caller.complain("an-older-one").status_code == 403
        if "jsapi_ticket" not in allowed:
            assert caller.post("jsapi_ticket/refresh", {"stale_ticket": "an-older-one"}).status_code == 403


def test_key__other_accounts_look_unknown_whatever_it_was_made_for(account):
    Account.objects.create(appid="wxother", secret="x")
    caller = asker(account, "signatures")
    answers = []
    for appid in ("wxother", "wxnobody"):
        caller.appid = appid
        answers += [caller.get(what, url=URL) for what in ("jsapi_signature", "jsapi_ticket", "access_token")]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1


# -- WeChat's dialect


def test_getticket__a_living_token_opens_its_accounts_tickets(account):
    token = get_access_token(APPID)
    for kind, type_ in KINDS.items():
        body = getticket(token, type=type_).json()
        assert set(body) == {"errcode", "errmsg", "ticket", "expires_in"}
        assert (body["errcode"], body["errmsg"], body["ticket"]) == (0, "ok", get_ticket(APPID, kind))


def test_getticket__the_former_token_opens_while_it_lives(classic, weixin, time):
    former = get_access_token(APPID)
    time.pass_(6600)
    renew(classic)
    assert get_access_token(APPID) != former
    assert getticket(former).json()["errcode"] == 0
    time.pass_(299)
    assert getticket(former).json()["errcode"] == 0
    time.pass_(2)
    assert getticket(former).json()["errcode"] == 40001


def test_getticket__a_refused_token_opens_nothing_and_its_successor_does(account, weixin, time):
    former = get_access_token(APPID)
    time.pass_(60)
    weixin.kill_token(APPID)
    current = refresh_access_token(APPID, stale_token=former)
    assert current != former
    assert getticket(former).json()["errcode"] == 40001
    assert getticket(current).json()["errcode"] == 0


def test_getticket__dead_unknown_foreign_and_malformed_look_alike(account, weixin, time, settings):
    settings.WECHAT_TOKEN = {"FAILURES_PER_MINUTE": 100}
    token = get_access_token(APPID)
    other = Account.objects.create(appid="wxinactive", secret="x", is_active=False)
    stranger = row(account)
    Token.objects.filter(account=other).delete()
    Token.objects.create(account=other, fingerprint=stranger.fingerprint[::-1], issued_for="wxinactive")
    answers = [getticket(text) for text in ("x" * 120, token[:-1], token + "x", "", "票" * 40, "x" * 5000, "a\0b" * 10)]
    account.is_active = False
    account.save()
    answers.append(getticket(token))
    account.is_active = True
    account.save()
    time.pass_(7201)
    answers.append(getticket(token))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json()["errcode"] == 40001


def test_getticket__a_token_of_the_appid_before_opens_nothing(account, weixin):
    token = get_access_token(APPID)
    weixin.add_account("wxnewappid", "x")
    account.appid = "wxnewappid"
    account.save()
    assert getticket(token).json()["errcode"] == 40001


def test_getticket__trying_out_is_throttled_and_soon_costs_no_query(account, django_assert_num_queries):
    codes = [getticket(f"guess-number-{number:04}").json()["errcode"] for number in range(11)]
    assert codes == [40001] * 10 + [45011]
    assert getticket(get_access_token(APPID)).json()["errcode"] == 0  # somebody honest behind the same address
    for number in range(100):
        getticket(f"guess-number-{number:04}")
    with django_assert_num_queries(0):
        assert getticket("guess-number-last").json()["errcode"] == 45011


@pytest.mark.parametrize("type_", ["", "JSAPI", "sdk", "2"])
def test_getticket__wrong_types(account, type_):
    assert getticket(get_access_token(APPID), type=type_).json()["errcode"] == 40097


def test_getticket__survives_a_rotation_of_keys(account, settings):
    token = get_access_token(APPID)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another-key", [settings.SECRET_KEY]
    assert getticket(token).json()["errcode"] == 0
    settings.SECRET_KEY_FALLBACKS = []
    assert getticket(token).json()["errcode"] == 40001


def test_fingerprint__tells_nothing_of_the_token(account):
    token = get_access_token(APPID)
    stored = row(account).fingerprint
    assert len(stored) == 64
    assert token not in stored
    assert stored != hashlib.sha256(token.encode()).hexdigest()


def test_access_logs__mask_the_token():
    token = "90_x-Y_z" + "0123456789" * 12
    line = f'"GET /wechat/cgi-bin/ticket/getticket?access_token={token}&type=jsapi HTTP/1.1" 200'
    assert token not in masked(line)
    assert f"access_token={MASK}&type=jsapi" in masked(line)
    elsewhere = f"GET /oauth/userinfo?access_token={token}"
    assert masked(elsewhere) == elsewhere
