"""Tag and script in a real browser, against a WeChat that checks signatures as WeChat does."""

from __future__ import annotations

import pytest

from tests.conftest import APPID
from tests.jssdk import pages
from tests.jssdk.conftest import CHROMIUM, DRIVER, IOS
from wechat_token import get_ticket, process
from wechat_token.models import Token

pytestmark = [
    pytest.mark.proof,
    pytest.mark.browser,
    pytest.mark.urls("tests.jssdk.pages"),
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with chromedriver here"),
]

OK = "config:ok"
BAD = "config:invalid signature"


def two_hours_pass(wechat, time) -> None:
    """The ticket there was is dead, and the server has another one."""
    time.pass_(7300)
    wechat.tickets.add(get_ticket(APPID))


def test_page__one_tag_is_enough_under_a_strict_policy(phone, wechat):
    assert phone.open("/sale/?from=singlemessage#top") == [OK]
    assert (phone.told(), wechat.asked, phone.console()) == (OK, [], "")
    config = phone.driver.execute_script("return configs[0]")
    assert config["jsApiList"] == ["scanQRCode"]
    assert get_ticket(APPID) not in phone.driver.page_source


def test_page__policy_is_in_force(phone):
    phone.open()
    phone.driver.execute_script(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = true'}))"
    )
    assert phone.driver.execute_script("return window.ran") is None


def test_page__an_address_that_the_server_cannot_know_is_signed_anew(phone, wechat):
    """A query that a CDN or WeChat appends without telling the server."""
    assert phone.open("/sale/?as=/sale/") == [OK]
    assert wechat.asked == ["http://shop.example.com/sale/?as=/sale/"]
    assert phone.console() == ""


def test_page__outside_wechat_nothing_is_asked(phone, wechat):
    phone.is_("Mozilla/5.0 (X11; Linux x86_64) Chrome/130")
    phone.driver.get("http://shop.example.com/sale/?as=/elsewhere")
    assert phone.driver.execute_script("return configs") == wechat.asked == []


@pytest.mark.parametrize("agent", ["android", "ios"])
def test_app__three_routes(phone, wechat, agent):
    if agent == "ios":
        phone.is_(IOS)
    assert phone.open("/app/one") == [OK]
    assert phone.go("/app/two?x=1") == [OK]
    assert phone.go("/app/three#part") == [OK]
    assert phone.console() == ""
    entered = agent == "ios"
    assert [url.rpartition("/app/")[2] for url in wechat.asked] == (
        ["one"] * 3 if entered else ["one", "two?x=1", "three"]
    )


@pytest.mark.parametrize("agent", ["android", "ios"])
def test_app__a_client_that_looks_at_the_other_address_gets_that_one(phone, wechat, agent, monkeypatch):
    """As one maintainer saw it, and against what most report: one retry, and no more."""
    if agent == "ios":
        phone.is_(IOS)
    assert phone.open("/app/one") == [OK]
    usual = wechat.verdict
    looks_at = "/app/two" if agent == "ios" else "/app/one"
    monkeypatch.setattr(wechat, "verdict", lambda config, url: usual(config, f"http://{pages.HOST}{looks_at}"))
    assert phone.go("/app/two") == [BAD, OK]
    assert (phone.told(), phone.console()) == (OK, "")


def test_page__dead_ticket_in_the_middle_is_healed_by_asking_anew(phone, wechat, time):
    wechat.keep = ""
    assert phone.open() == [OK]
    two_hours_pass(wechat, time)
    assert phone.open() == [BAD, OK]  # the page is the old one, from a cache
    assert "A cache kept this page and its old signature." in phone.console()
    assert phone.told() == OK


# -- the causes, in the console


def test_cause__the_wrong_url_was_signed(phone):
    assert phone.open("/alone/?as=/elsewhere/") == [BAD]
    said = phone.console()
    assert "The wrong URL was signed: http://shop.example.com/elsewhere/" in said
    assert "WeChat looks at: http://shop.example.com/alone/?as=/elsewhere/" in said


def test_cause__the_ticket_is_dead(phone, wechat):
    wechat.tickets.clear()
    assert phone.open() == [BAD, BAD]
    assert "the ticket is dead: refresh the jsapi_ticket" in phone.console()


def test_cause__the_signature_was_cached(phone, wechat, time):
    wechat.keep = ""
    phone.open("/alone/")
    two_hours_pass(wechat, time)
    assert phone.open("/alone/") == [BAD]
    assert "a cache keeps this page: mount public_urls" in phone.console()


def test_cause__the_domain_is_not_listed(phone, wechat):
    wechat.domains = {"www.example.com"}
    assert phone.open() == ["config:invalid url domain"]
    assert "shop.example.com is no JS domain at mp.weixin.qq.com; WeChat knows: www.example.com" in phone.console()


def test_cause__the_domain_is_not_listed_here(phone, wechat):
    assert phone.open("/sale/?as=/x", host="other.example.com") == []
    assert "url_not_allowed http://other.example.com/sale/?as=/x" in phone.console()


def test_cause__permission_denied(phone):
    assert phone.open("/paying/") == ["config:permission denied"]
    assert "config:permission denied: not granted to this account, or not listed by the page" in phone.console()


def test_cause__no_ticket_on_the_server(phone, wechat):
    wechat.fake.freeze(APPID)
    process.forget()
    Token.objects.all().delete()
    assert phone.open("/alone/") == []
    assert "no ticket: see the log of the server" in phone.console()


@pytest.mark.parametrize(
    ("path", "words"),
    [("/alone/?as=/x", "签名的网址不对"), ("/paying/", "公众号无此权限"), ("/sale/", "jsapi_ticket 已失效")],
)
def test_cause__in_the_language_of_the_page(phone, wechat, path, words):
    wechat.lang = "zh-Hans"
    if path == "/sale/":
        wechat.tickets.clear()
    phone.open(path)
    assert words in phone.console()
