"""Signatures for pages and cards: WeChat's published vectors, the public names, the template tag."""

from __future__ import annotations

import hashlib
import json
import re
import threading

import pytest
from asgiref.sync import async_to_sync
from django.http import HttpRequest
from django.template import Context, Template, TemplateSyntaxError
from django.test import AsyncRequestFactory, RequestFactory
from django.urls import include, path

from tests.conftest import APPID
from tests.ground.caches import SETTING, SharedCache
from wechat_token import asign_card, asign_jsapi, clock, get_ticket, sign_card, sign_jsapi
from wechat_token.contrib.jssdk.page import url_of
from wechat_token.diagnosis import doctor
from wechat_token.exceptions import (
    AccountNotFound,
    KindNotOffered,
    TokenUnavailable,
    TransportError,
    URLNotSignable,
)
from wechat_token.models import Account
from wechat_token.platforms import signatures, transport
from wechat_token.redaction import Secret

TICKET = "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg"
URL = "https://shop.example.com/sale?from=singlemessage"

urlpatterns = [path("wechat/", include("wechat_token.urls")), path("wechat/", include("wechat_token.public_urls"))]


def by_hand(ticket: str, url: str, config) -> str:
    """As a reader of WeChat's page would compute it."""
    text = f"jsapi_ticket={ticket}&noncestr={config['nonceStr']}&timestamp={config['timestamp']}&url={url}"
    return hashlib.sha1(text.encode()).hexdigest()


# -- vectors: docs/design.md W21, W22


@pytest.mark.parametrize(
    ("url", "signature"),
    [
        pytest.param("http://mp.weixin.qq.com?params=value", "0f9de62fce790f9a083d5c99e95740ceb90c27ed", id="A"),
        pytest.param("http://mp.weixin.qq.com", "f4d90daf4b3bca3078ab155816175ba34c443a7b", id="B"),
    ],
)
def test_sign_page__published_vectors(url, signature):
    assert signatures.page_url(url) == url
    assert signatures.sign_page(Secret(TICKET), url, "Wm3WZYTPz0wzccnW", 1414587457) == signature


def test_sign_values__published_card():
    signature = signatures.sign_values(
        Secret("ojZ8YtyVyr30HheH3CM73y7h4jJE"), "1404896688", "pjZ8Yt1XGILfi-FUsewpnnolGgZk", "1434008071", "", "123"
    )
    assert signature == "f137ab68b7f8112d20ee528ab6074564e2796250"


# -- the URL


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("https://a.example.com/#/route?x=1", "https://a.example.com/"),
        ("https://a.example.com/#!/route", "https://a.example.com/"),
        ("https://a.example.com/?a=1#b#c", "https://a.example.com/?a=1"),
        ("https://a.example.com/?#", "https://a.example.com/?"),
        *(
            (url, url)
            for url in (
                "https://a.example.com", "https://a.example.com/", "https://a.example.com/?a=%E4%BD%A0",
                "https://a.example.com/?a=你", "https://a.example.com/?a=1&amp;b=2", "https://例子.example.com/",
                "https://xn--fsqu00a.example.com/", "https://a.example.com:8443/x", "https://a.example.com/%7Ex/%2f/%e4",
                "https://a.example.com/?b=2&a=1&a=", "https://a.example.com/?a=b\\c|d", "HTTPS"[:0] + "http://A.example.com/X",
            )
        ),
    ],
)  # fmt: skip
def test_page_url__is_cut_and_otherwise_as_it_is(url, signed):
    assert signatures.page_url(url) == signed


@pytest.mark.parametrize(
    "url",
    [
        "", "#", "/sale", "//a.example.com/", "a.example.com/", "javascript:alert(1)", "file:///etc/passwd", "https://",
        "https:///x", "https://?x", "https://#x", "ftp://a.example.com/", "https://a.example.com/a b",
        "https://a.example.com/\n", " https://a.example.com/", "https://a.example.com/\x00", "https://a.example.com/\ud800",
        "https://a.example.com/?" + "x" * 10_240,
    ],
)  # fmt: skip
def test_page_url__what_no_page_has_is_refused(url):
    with pytest.raises(URLNotSignable):
        signatures.page_url(url)
    with pytest.raises(ValueError):
        sign_jsapi(url, APPID)


# -- the names


def test_sign_jsapi__is_what_wx_config_takes(account, weixin, time):
    config = sign_jsapi(f"{URL}#/route", APPID)
    assert set(config) == {"appId", "timestamp", "nonceStr", "signature"}
    assert config["appId"] == APPID
    assert config["timestamp"] == int(time.timestamp())
    assert config["signature"] == by_hand(get_ticket(APPID), URL, config)
    assert sign_jsapi(URL)["appId"] == sign_jsapi(URL, account)["appId"] == APPID


def test_sign_jsapi__no_two_are_alike_and_one_ticket_does(account, weixin):
    signed = [sign_jsapi(URL, APPID) for _ in range(20)]
    assert len({config["nonceStr"] for config in signed}) == len({config["signature"] for config in signed}) == 20
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{16}", config["nonceStr"]) for config in signed)
    assert weixin.calls_to(APPID, "ticket") == 1


def test_sign_jsapi__in_a_loop(account):
    config = async_to_sync(asign_jsapi)(URL, APPID)
    assert config["signature"] == by_hand(get_ticket(APPID), URL, config)


def test_sign_card__is_what_card_ext_takes(account, time):
    ext = sign_card("pjZ8Yt1XGILfi", APPID, code="1434008071", openid="o1")
    assert set(ext) == {"code", "openid", "timestamp", "nonce_str", "signature"}
    values = [get_ticket(APPID, "wx_card"), ext["timestamp"], "pjZ8Yt1XGILfi", "1434008071", "o1", ext["nonce_str"]]
    assert ext["signature"] == hashlib.sha1("".join(sorted(values)).encode()).hexdigest()
    assert ext["timestamp"] == str(int(time.timestamp()))


def test_sign_card__what_is_left_out_is_not_signed(account):
    ext = async_to_sync(asign_card)("pjZ8Yt1XGILfi", APPID)
    values = sorted([get_ticket(APPID, "wx_card"), ext["timestamp"], "pjZ8Yt1XGILfi", ext["nonce_str"]])
    assert ext["signature"] == hashlib.sha1("".join(values).encode()).hexdigest()
    assert (ext["code"], ext["openid"]) == ("", "")
    with pytest.raises(ValueError, match="card_id"):
        sign_card("", APPID)


def test_sign__raises_as_get_ticket(account, weixin):
    with pytest.raises(AccountNotFound):
        sign_jsapi(URL, "wx-nobody")
    weixin.freeze(APPID)
    with pytest.raises(TokenUnavailable):
        sign_jsapi(URL, APPID)
    with pytest.raises(TokenUnavailable):
        sign_card("p1", APPID)


# -- the URL of a request


def request_for(path: str = "/sale/", **meta) -> HttpRequest:
    return RequestFactory(headers={"host": "testserver"}).get(path, **meta)


@pytest.mark.parametrize("sent", ["/a%2Fb/%7Ex?q=%e4%bd%a0&r=%20+", "/%E4%BD%A0/?", "/x?a=%27'|{}\\", "//x", "/"])
@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
def test_url_of__is_as_it_was_sent_where_the_server_tells(name, sent):
    assert url_of(request_for("/decoded/", **{name: sent})) == f"http://testserver{sent}"


def test_url_of__proxys_whole_url_and_raw_bytes(settings):
    assert url_of(request_for(RAW_URI="http://elsewhere/sale?x=1")) == "http://testserver/sale?x=1"
    assert url_of(request_for(RAW_URI="http://elsewhere")) == "http://testserver/sale/"
    raw = "/你?q=好".encode().decode("latin-1")
    assert url_of(request_for(RAW_URI=raw)) == "http://testserver/%E4%BD%A0?q=%E5%A5%BD"


def test_url_of__otherwise_as_django_encodes_it():
    assert url_of(request_for("/你/?q=%E5%A5%BD")) == "http://testserver/%E4%BD%A0/?q=%E5%A5%BD"


def test_url_of__behind_a_proxy_by_djangos_rules(settings):
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.USE_X_FORWARDED_HOST = True
    settings.ALLOWED_HOSTS = ["shop.example.com"]
    request = request_for("/sale", HTTP_X_FORWARDED_PROTO="https", HTTP_X_FORWARDED_HOST="shop.example.com")
    assert url_of(request) == "https://shop.example.com/sale"


@pytest.mark.parametrize("raw", [b"/a%2Fb/%7Ex", b"/a%2Fb/%7Ex?q=%e4"])
def test_url_of__under_asgi(raw):
    request = AsyncRequestFactory().get("/a/b/~x", query_string="q=%e4")
    request.scope |= {"raw_path": raw, "query_string": b"q=%e4"}
    assert url_of(request) == "http://testserver/a%2Fb/%7Ex?q=%e4"


# -- the tag


def rendered(request: HttpRequest | None, arguments: str = f'"scanQRCode" account="{APPID}"', **context) -> str:
    template = Template("{% load wechat_token %}<p>sale</p>{% wechat_jssdk " + arguments + " %}")
    return template.render(Context({"request": request, **context}))


def data_of(html: str):
    return json.loads(re.search(r'id="wechat-jssdk" type="application/json">(.*?)</script>', html)[1])


@pytest.mark.urls("wechat_token.urls")
def test_tag__signs_the_page_it_is_on(account):
    html = rendered(request_for(RAW_URI="/a%2Fb?x=%e4"))
    data = data_of(html)
    assert data["url"] == "http://testserver/a%2Fb?x=%e4"
    assert data["config"]["signature"] == by_hand(get_ticket(APPID), data["url"], data["config"])
    assert data["apis"] == ["scanQRCode"]
    assert data["ask"] == ""
    assert '<script src="https://res.wx.qq.com/open/js/jweixin-1.6.0.js"></script>' in html
    assert '<script src="/static/wechat_token/jssdk.js"></script>' in html


@pytest.mark.urls(__name__)
def test_tag__knows_where_the_script_asks_again(account):
    assert data_of(rendered(request_for()))["ask"] == f"/wechat/public/jssdk/{APPID}"
    assert data_of(rendered(request_for(), '"x"'))["ask"] == f"/wechat/public/jssdk/{APPID}"


def test_tag__has_no_inline_code_and_takes_a_nonce(account, settings):
    settings.WECHAT_TOKEN = {"JSSDK_URL": "/static/jweixin.js"}
    html = rendered(
        request_for(), f'"x" account="{APPID}" tags="wx-open-launch-app wx-open-audio" debug=True', csp_nonce='n"1'
    )
    assert html.count('nonce="n&quot;1"') == 2
    opened = re.findall(r"<script( [^>]*)>", html)
    assert [" src=" in attributes or 'type="application/json"' in attributes for attributes in opened] == [True] * 3
    assert '<script src="/static/jweixin.js" nonce=' in html
    assert data_of(html)["tags"] == ["wx-open-launch-app", "wx-open-audio"]
    assert data_of(html)["debug"] is True
    request = request_for()
    request.csp_nonce = "of-django-csp"
    assert 'nonce="of-django-csp"' in rendered(request)
    assert 'nonce="mine"' in rendered(request, f'account="{APPID}" nonce="mine"')


def test_tag__a_url_cannot_end_the_script_element(account):
    html = rendered(request_for(RAW_URI="/?</script><script>alert(1)</script>"))
    assert html.count("</script>") == 3
    assert data_of(html)["url"].endswith("/?</script><script>alert(1)</script>")


@pytest.mark.parametrize("what", ["frozen", "unknown", "host", "no account at all"])
def test_tag__a_page_never_fails_for_its_share_button(account, weixin, caplog, what):
    request, arguments = request_for(), f'"x" account="{APPID}"'
    if what == "frozen":
        weixin.freeze(APPID)
    elif what == "unknown":
        arguments = '"x" account="wx-nobody"'
    elif what == "host":
        request = request_for(HTTP_HOST="evil.example.com")
    else:
        account.delete()
        arguments = '"x"'
    pages = [rendered(request, arguments) for _ in range(5)]
    assert all("<p>sale</p>" in html and "config" not in data_of(html) for html in pages)
    said = [record.getMessage() for record in caplog.records if "without its signature" in record.getMessage()]
    assert len(said) == 1
    assert {"frozen": "40243", "unknown": "wx-nobody", "host": "DisallowedHost", "no account at all": "no active"}[
        what
    ] in said[0]


def test_tag__without_the_request_says_what_is_missing(db):
    with pytest.raises(TemplateSyntaxError, match="needs the request"):
        rendered(None)


def test_tag__shows_no_ticket(account):
    """Secrecy: of the ticket only the signature leaves the process."""
    html = rendered(request_for())
    assert get_ticket(APPID) not in html


def test_sign__errors_show_no_ticket(account, monkeypatch):
    ticket = get_ticket(APPID)

    def fail(*args, **kwargs):
        raise RuntimeError("broken")

    monkeypatch.setattr(hashlib, "sha1", fail)
    with pytest.raises(RuntimeError) as caught:
        sign_jsapi(URL, APPID)
    frames, trace = [], caught.value.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "/wechat_token/" in file:
            frames.append(repr(trace.tb_frame.f_locals))
        trace = trace.tb_next
    assert len(frames) >= 3
    assert ticket not in "".join(frames)


def test_kind__an_account_without_tickets_signs_nothing(account, monkeypatch):
    from wechat_token.platforms import official_account

    bare = [source for source in official_account.PLATFORM.sources if source.kind == "access_token"]
    monkeypatch.setattr(
        type(official_account.PLATFORM), "source", lambda self, kind: bare[0] if kind == "access_token" else None
    )
    with pytest.raises(KindNotOffered):
        sign_jsapi(URL, APPID)


# -- while everything hangs


def test_tag__a_page_waits_for_a_second_at_most_while_weixin_and_the_cache_hang(own_database, settings, monkeypatch):
    """And the pages after it for nothing, nor do those with a ticket in memory."""
    hang = threading.Event()

    def hung(*args, **kwargs):
        hang.wait(20)
        raise TransportError("hung", may_have_issued=True)

    settings.CACHES = SETTING
    monkeypatch.setattr(SharedCache, "get", hung)
    monkeypatch.setattr(transport, "call", hung)
    Account.objects.create(appid=APPID, secret="x")
    try:
        began = clock.monotonic()
        assert "config" not in data_of(rendered(request_for()))
        first = clock.monotonic() - began
        assert "config" not in data_of(rendered(request_for()))
        assert first < 1.2
        assert clock.monotonic() - began - first < 0.2
    finally:
        hang.set()


def test_doctor__signs_wechats_example(account, monkeypatch):
    """On a host whose OpenSSL forbids SHA-1 where it would matter, too."""
    assert [finding.level for finding in doctor.examine_signatures()] == [doctor.Level.OK]
    monkeypatch.setattr(doctor, "sign_page", lambda *args: "another")
    assert [finding.level for finding in doctor.examine_signatures()] == [doctor.Level.PROBLEM]
