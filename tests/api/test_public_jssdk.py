"""``public/jssdk``: signatures for browsers without a key, for listed hosts and for no other."""

from __future__ import annotations

import hashlib
import logging

import pytest
from django.core.exceptions import ValidationError
from django.db import OperationalError
from django.test import Client
from django.urls import include, path

from tests.conftest import APPID
from wechat_token import get_access_token, get_ticket
from wechat_token.engine import js_hosts
from wechat_token.forms import AccountForm
from wechat_token.models import Account
from wechat_token.platforms.js_domains import normalised, parse
from wechat_token.platforms.signatures import host_of, host_of_origin

urlpatterns = [path("wechat/", include("wechat_token.urls")), path("wechat/", include("wechat_token.public_urls"))]
pytestmark = pytest.mark.urls(__name__)

URL = "https://shop.example.com/sale?from=singlemessage"
ORIGIN = "https://shop.example.com"

FOREIGN = [
    "https://evil.com/",
    "https://evil-example.com/",
    "https://evil-shop.example.com/",
    "https://example.com.evil.com/",
    "https://shop.example.com.evil.com/",
    "https://shop.example.com@evil.com/",
    "https://shop.example.com:x@evil.com/",
    "https://evil.com@shop.example.com/",
    "https://shop.example.com\\.evil.com/",
    "https://shop.example.com\\@evil.com/",
    "https://evil.com\\shop.example.com/",
    "https://evil.com/https://shop.example.com/",
    "https://evil.com?shop.example.com",
    "https://evil.com#shop.example.com",
    "https://shop.example.com%2eevil.com/",
    "https://shop.example.com%00.evil.com/",
    "https://shop.example.com。evil.com/",
    "https://ѕhop.example.com/",
    "https://shop.example.com./",
    "https://.shop.example.com/",
    "https://example.com/",
    "https://www.shop.example.com/",
    "https://SHOP.example.com/",
    "https://shop.example.com:443/",
    "https://shop.example.com:8443/",
    "https://shop.example.com:/",
    "https://[::1]/",
    "https://127.0.0.1/",
    "https:///shop.example.com/",
    "//shop.example.com/",
    "shop.example.com",
    "/sale",
    "",
    "javascript:alert('shop.example.com')",
    "javascript://shop.example.com/%0aalert(1)",
    "ftp://shop.example.com/",
    "file://shop.example.com/",
    "data:text/html,https://shop.example.com/",
    "blob:https://shop.example.com/1",
    "HTTPS://shop.example.com/",
    "https:shop.example.com/",
    "https:/\\shop.example.com/",
    "https://shop.example.com\t.evil.com/",
    "https://shop.example.com\n/",
    " https://shop.example.com/",
    "https://shop.example.com ",
    "https://shop\u00ad.example.com/",
    "https://shop.example.com\u202e/",
    "https://shop.example.com/" + "x" * 10_240,
    "https://" + "a." * 5000 + "shop.example.com/",
]


@pytest.fixture
def listed(account) -> Account:
    account.js_domains = "shop.example.com\nxn--fsqu00a.example.com"
    account.save()
    return account


def ask(url: str = URL, ref: str = APPID, *, origin: str | None = ORIGIN, address: str = "198.51.100.1", **extra: str):
    headers = {} if origin is None else {"origin": origin}
    return Client(REMOTE_ADDR=address).get(f"/wechat/public/jssdk/{ref}", {"url": url, **extra}, headers=headers)


def code(response) -> str:
    return response.json()["error"]["code"]


# -- what it is for


def test_public__signs_a_listed_page(listed):
    response = ask()
    body = response.json()
    text = f"jsapi_ticket={get_ticket(APPID)}&noncestr={body['nonceStr']}&timestamp={body['timestamp']}&url={URL}"
    assert body["signature"] == hashlib.sha1(text.encode()).hexdigest()
    assert set(body) == {"appId", "timestamp", "nonceStr", "signature"}
    assert response["Cache-Control"] == "no-store"
    assert response["Access-Control-Allow-Origin"] == ORIGIN
    assert "Origin" in response["Vary"]
    assert "Access-Control-Allow-Credentials" not in response


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example.com/",
        "https://shop.example.com",
        "https://shop.example.com?a=1",
        "https://shop.example.com/#!/x",
        "https://xn--fsqu00a.example.com/?a=%E4%BD%A0",
        "https://shop.example.com/?a=你",
        "https://shop.example.com/?a=1&amp;b",
        "https://shop.example.com/a//b/",
        "https://shop.example.com/?next=https://evil.com/@x\\y",
        "https://shop.example.com/@evil.com",
    ],
)
def test_public__signs_whatever_path_and_query(listed, url):
    assert "signature" in ask(url).json()


@pytest.mark.parametrize("origin", [None, "http://shop.example.com", "https://xn--fsqu00a.example.com"])
def test_public__origins_of_listed_hosts_and_none(listed, origin):
    response = ask(origin=origin)
    assert response.status_code == 200
    assert response.get("Access-Control-Allow-Origin") == origin


# -- the attack list


@pytest.mark.parametrize("url", FOREIGN, ids=range(len(FOREIGN)))
def test_attack__no_signature_for_a_foreign_host(listed, url):
    for origin in (ORIGIN, None):
        response = ask(url, origin=origin)
        assert response.status_code in (400, 403)
        assert code(response) in ("invalid_url", "url_not_allowed")
        assert "signature" not in response.content.decode()


ORIGINS = [
    "null",
    "",
    "https://evil.com",
    "https://shop.example.com.evil.com",
    "https://evil-shop.example.com",
    "https://example.com",
    "https://shop.example.com:8443",
    "https://shop.example.com/",
    "https://shop.example.com, https://evil.com",
    "shop.example.com",
    "file://shop.example.com",
    "HTTPS://SHOP.EXAMPLE.COM",
    "https://shop.example.com\\.evil.com",
    "*",
]


@pytest.mark.parametrize("origin", ORIGINS)
def test_attack__foreign_origins_get_nothing(listed, origin):
    response = ask(origin=origin)
    assert (response.status_code, code(response)) == (403, "origin_not_allowed")
    assert "Access-Control-Allow-Origin" not in response


def test_attack__a_parameter_given_twice_is_judged_and_signed_as_one(listed):
    path = f"/wechat/public/jssdk/{APPID}?url=https://evil.com/&url={URL}"
    body = Client().get(path).json()
    text = f"jsapi_ticket={get_ticket(APPID)}&noncestr={body['nonceStr']}&timestamp={body['timestamp']}&url={URL}"
    assert body["signature"] == hashlib.sha1(text.encode()).hexdigest()
    assert code(Client().get(f"/wechat/public/jssdk/{APPID}?url={URL}&url=https://evil.com/")) == "url_not_allowed"


def test_attack__unknown_inactive_unlisted_and_hostile_refs_look_alike(listed, weixin):
    Account.objects.create(appid="wxunlisted", secret="x")
    Account.objects.create(appid="wxasleep", secret="x", is_active=False, js_domains="shop.example.com")
    Account.objects.create(appid="wxgarbled", secret="x", js_domains="*\nhttps://shop.example.com/\n.example.com\n \n")
    answers = [
        ask(ref=ref) for ref in ("wxunlisted", "wxasleep", "wxgarbled", "wx-nobody", "wx%0a", "x" * 300, "微信", "'")
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert weixin.calls == []


def test_attack__a_thousand_urls_a_second_are_throttled_by_address(listed, settings):
    settings.WECHAT_TOKEN = {"SIGNATURES_PER_MINUTE": 3}
    ask()
    answers = [ask(f"{URL}&n={number}") for number in range(20)]
    assert [answer.status_code for answer in answers] == [200] * 2 + [429] * 18
    assert code(answers[-1]) == "too_many_signatures"
    assert int(answers[-1]["Retry-After"]) <= 60
    assert ask(address="198.51.100.2").status_code == 200


def test_attack__other_methods(listed):
    for method in ("post", "put", "delete", "options", "patch"):
        assert getattr(Client(), method)(f"/wechat/public/jssdk/{APPID}?url={URL}").status_code == 405


def test_public__works_where_everything_else_needs_a_login_and_a_transaction(listed, settings):
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    assert ask().status_code == 200


# -- secrecy


def test_secrecy__no_ticket_no_token_and_no_cause_reaches_the_public(listed, weixin, caplog, time):
    caplog.set_level(logging.DEBUG)
    secrets = [get_access_token(APPID), get_ticket(APPID), get_ticket(APPID, "wx_card")]
    answers = [ask(), ask("https://evil.com/"), ask(origin="null"), ask(ref="wx-nobody"), ask("")]
    weixin.freeze(APPID)
    time.pass_(8000)
    answers.append(ask())
    assert answers[-1].status_code == 503
    assert answers[-1].json()["error"].keys() == {"code", "message"}
    assert "Retry-After" in answers[-1]
    told = "".join(f"{answer.headers}{answer.content.decode()}" for answer in answers) + caplog.text
    assert not [secret for secret in secrets if secret in told]


# -- the list


def test_list__an_edit_counts_at_once(listed, django_capture_on_commit_callbacks):
    assert ask().status_code == 200
    with django_capture_on_commit_callbacks(execute=True):
        listed.js_domains = ""
        listed.save()
    assert ask().status_code == 404


def test_list__the_database_is_asked_once_a_second(own_database, monkeypatch):
    account = Account.objects.create(appid=APPID, secret="x", js_domains="shop.example.com")
    assert js_hosts(APPID) == {"shop.example.com"}
    Account.objects.filter(pk=account.pk).update(js_domains="")

    def down(*args):
        raise OperationalError

    monkeypatch.setattr("wechat_token.engine.domains.read", down)
    assert js_hosts(APPID) == {"shop.example.com"}


def test_list__a_database_that_is_down_leaves_what_was_known(own_database, monkeypatch, settings):
    from wechat_token import clock
    from wechat_token.exceptions import StoreUnavailable

    Account.objects.create(appid=APPID, secret="x", js_domains="shop.example.com")
    js_hosts(APPID)

    def down(*args):
        raise OperationalError

    monkeypatch.setattr("wechat_token.engine.domains.read", down)
    later = clock.monotonic() + 3600
    monkeypatch.setattr(clock, "monotonic", lambda: later)
    assert js_hosts(APPID) == {"shop.example.com"}
    with pytest.raises(StoreUnavailable):
        js_hosts("wxother")


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("", ""),
        (" Shop.Example.com \n\n", "shop.example.com"),
        ("a.cn\nb.cn\na.cn", "a.cn\nb.cn"),
        ("例子.com", "xn--fsqu00a.com"),
        ("xn--fsqu00a.com", "xn--fsqu00a.com"),
        ("Ｓhop.example.com", "shop.example.com"),
    ],
)
def test_domains__are_stored_as_browsers_write_them(typed, stored):
    assert normalised(typed) == stored
    assert parse(stored) == set(stored.split())


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("https://shop.example.com", "Line 1: .*without https"),
        ("a.cn\nshop.example.com/mp", "Line 2: .*without a path"),
        ("*.example.com", "wildcards"),
        ("shop.example.com:8443", "ports"),
        ("localhost", "not the name"),
        ("127.0.0.1", "not the name"),
        ("shop_.example.com", "not the name"),
        ("a..b.cn", "not the name"),
        ("-a.cn", "not the name"),
        ("a b.cn", "not the name"),
        ("a.cn,b.cn", "not the name"),
        ("x" * 64 + ".cn", "not the name"),
        ("例子。", "not the name"),
        ("a.c\u202en", "not the name"),
    ],
)
def test_domains__what_is_no_host_is_told_with_its_line(typed, told):
    with pytest.raises(ValidationError) as caught:
        normalised(typed)
    assert caught.match(told)
    assert not parse(typed.splitlines()[-1])


def test_domains__the_form_stores_them_and_says_where_they_are_entered_at_wechat(account):
    data = {"appid": APPID, "endpoint": "stable", "is_active": "on", "js_domains": "Shop.Example.com\n例子.com"}
    form = AccountForm(data, instance=account)
    assert "JS接口安全域名" in str(form["js_domains"].help_text)
    assert form.is_valid(), form.errors
    edition = account.edition
    form.save()
    account.refresh_from_db()
    assert account.js_domains == "shop.example.com\nxn--fsqu00a.com"
    assert account.edition == edition  # no reason to ask WeChat for another token
    assert "js_domains" in AccountForm({**data, "js_domains": "*.example.com"}, instance=account).errors


def test_host__of_urls_and_origins():
    assert host_of("https://shop.example.com/?x") == host_of_origin("http://shop.example.com") == "shop.example.com"
    assert host_of_origin("null") == host_of("https://a@b/") == ""
