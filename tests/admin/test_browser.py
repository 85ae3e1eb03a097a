"""The admin in a real browser: an operator's way through it, under a strict content security policy."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from django.contrib.auth.models import User
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.test import Client

from tests.conftest import APPID, SECRET, START, renew, row
from wechat_token import clock, process
from wechat_token.client_keys import keys, usage
from wechat_token.models import Account, ClientKey, KeyUsage, RefreshLog, Token

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402  after the check that selenium is there
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with chromedriver here"),
]

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1280,1000"
)
POLICY = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'self'"

# WCAG's contrast of an element's text with the nearest background that is painted.
CONTRAST = """
const parts = (color) => color.match(/[0-9.]+/g).map(Number);
const light = (color) => {
  const [r, g, b] = parts(color).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
let painted = arguments[0];
while (parts(getComputedStyle(painted).backgroundColor)[3] === 0) painted = painted.parentElement;
const pair = [light(getComputedStyle(arguments[0]).color), light(getComputedStyle(painted).backgroundColor)].sort();
return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
"""


def with_strict_policy(process_response):
    """No inline script or style, nothing from elsewhere. On a middleware that the running server already has."""

    def process(self, request, response):
        if POLICY:
            response.headers["Content-Security-Policy"] = POLICY
        return process_response(self, request, response)

    return process


class Browser:
    """A logged-in operator's browser."""

    def __init__(self, driver, base: str) -> None:
        self.driver, self.base = driver, base

    def open(self, path: str) -> None:
        self.driver.get(f"{self.base}/admin/wechat_token/{path}")

    def one(self, css: str):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def text(self) -> str:
        return self.one("#content").text

    def messages(self) -> list[str]:
        return [element.text for element in self.all(".messagelist li")]

    def complaints(self) -> list[str]:
        """What the console says since it was last read: errors of scripts, and what the policy forbade."""
        lines = [line["message"] for line in self.driver.get_log("browser") if line["level"] in ("WARNING", "SEVERE")]
        return [line for line in lines if "favicon.ico" not in line]  # asked for by the browser, by no page of ours

    def press(self, element) -> None:
        """Click what leads to another page, and wait for that page."""
        page = self.one("html")
        element.click()
        wait = WebDriverWait(self.driver, 10)
        wait.until(lambda driver: driver.find_element(By.CSS_SELECTOR, "html") != page)
        wait.until(lambda driver: driver.execute_script("return document.readyState") == "complete")

    def axe(self, path: str) -> list[str]:
        """What axe-core finds on a page: a rule and an element each."""
        self.driver.get(self.base + path)
        self.driver.execute_script(AXE.read_text())
        return self.driver.execute_async_script(RUN_AXE)

    def button(self, text: str):
        return next(element for element in self.all("button, a, input[type=submit]") if self._label(element) == text)

    @staticmethod
    def _label(element) -> str:
        return element.text or element.get_attribute("value") or ""


@pytest.fixture(scope="module")
def driver() -> Iterator[object]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for option in (*OPTIONS.split(), f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        chrome = webdriver.Chrome(options=options, service=Service(DRIVER))
        yield chrome
        chrome.quit()


@pytest.fixture
def browser(driver, live_server, monkeypatch, weixin) -> Browser:
    monkeypatch.setattr(
        XFrameOptionsMiddleware, "process_response", with_strict_policy(XFrameOptionsMiddleware.process_response)
    )
    weixin.add_account(APPID, SECRET)
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    driver.get(f"{live_server.url}/admin/login/")
    driver.delete_all_cookies()
    driver.execute_script("localStorage.clear()")
    driver.add_cookie({"name": "sessionid", "value": client.cookies["sessionid"].value, "path": "/"})
    driver.set_window_size(1280, 1000)
    browser = Browser(driver, live_server.url)
    browser.complaints()  # those of the test before
    return browser


def test_policy__is_in_force(browser):
    browser.open("account/")
    browser.driver.execute_script(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = true'}))"
    )
    assert browser.driver.execute_script("return window.ran") is None
    assert "Content Security Policy" in browser.complaints()[0]


def test_operator__adds_refreshes_and_reveals(browser, weixin):
    browser.open("account/add/")
    browser.one("[name=appid]").send_keys(f" {APPID} ")
    browser.one("[name=secret]").send_keys(SECRET)
    browser.press(browser.one("[name=_continue]"))
    assert any("being fetched now" in text for text in browser.messages())
    assert browser.one("[name=secret]").get_attribute("value") == ""
    assert "Not fetched yet" in browser.text()

    browser.press(browser.button("Refresh now"))
    assert browser.messages() == [f"Account {APPID} has a new token, good for 2 h."]
    assert "Good" in browser.one(".wt-headline").text
    token = row(Account.objects.get()).value.reveal()
    assert weixin.is_valid(token)
    assert token not in browser.driver.page_source

    browser.press(browser.button("Show the token in clear (on record)"))
    assert browser.one(".wt-key").text == token
    assert browser.complaints() == []


@pytest.mark.proof
def test_operator__makes_and_revokes_a_key(browser):
    browser.open("clientkey/add/")
    browser.one("[name=name]").send_keys("crm")
    browser.one("[name=networks]").send_keys("10.0.0.5/24")
    browser.press(browser.one("[name=_save]"))
    assert "Line 1: 10.0.0.5/24 lies inside a network" in browser.one(".errorlist").text
    browser.one("[name=networks]").clear()
    browser.press(browser.one("[name=_save]"))
    text = browser.one(".wt-key").text
    assert re.fullmatch(r"wxt_[0-9A-Za-z]{38}", text)

    browser.press(browser.button("What this key may do"))
    assert text not in browser.driver.page_source
    browser.press(browser.button("Revoke this key…"))
    assert ClientKey.objects.get().revoked_at is None
    browser.press(browser.button("Yes, revoke"))
    assert browser.messages() == ["1 client key was revoked."]
    assert ClientKey.objects.get().revoked_at is not None
    assert browser.complaints() == []


@pytest.mark.proof
def test_operator__mends_a_wrong_secret(browser, weixin):
    """A sentence and steps, the right AppSecret, good again within seconds."""
    account = Account.objects.create(appid=APPID, secret="0123456789abcdef0123456789abcdef", name="shop")
    browser.open(f"account/{account.pk}/change/")
    browser.press(browser.button("Refresh now"))
    assert "40125" in browser.text()
    assert "The AppSecret is invalid." in browser.one(".wt-notice strong").text
    assert len(browser.all(".wt-steps li")) >= 2
    browser.open("account/")
    assert "No usable token" in browser.one(".field-state").text
    browser.open(f"account/{account.pk}/change/")
    browser.one("[name=secret]").send_keys(SECRET)
    browser.press(browser.one("[name=_continue]"))
    browser.press(browser.button("Refresh now"))
    assert browser.one(".wt-headline").text == "Good"
    assert browser.all(".wt-steps") == []
    assert browser.complaints() == []


@pytest.mark.proof
def test_operator__copies_the_address_for_the_whitelist(browser):
    account = Account.objects.create(appid=APPID, secret=SECRET)
    Token.objects.update(failures=1, error_class="human", errcode=40164, egress_ip="203.0.113.7", due_at=None)
    browser.open(f"account/{account.pk}/change/")
    browser.one(".wt-copy").click()
    assert browser.driver.execute_script("return String(getSelection())").strip() == "203.0.113.7"


@pytest.mark.proof
def test_operator__forces_and_clears_after_being_asked(browser, weixin):
    account = Account.objects.create(appid=APPID, secret=SECRET)
    renew(account)
    before = row(account).value.reveal()
    browser.open(f"account/{account.pk}/change/")
    browser.press(browser.button("Force a new token…"))
    assert "20 forced refreshes a day" in browser.text()
    browser.press(browser.button("No, take me back"))
    assert row(account).value.reveal() == before
    Token.objects.update(sent_at=None)
    browser.press(browser.button("Force a new token…"))
    browser.press(browser.button("Yes, force it"))
    assert weixin.is_valid(row(account).value.reveal())
    assert not weixin.is_valid(before)

    browser.press(browser.button("Clear WeChat's counters…"))
    assert "ten times a month" in browser.text()
    assert weixin.calls_to(APPID, "clear_quota") == 0
    browser.press(browser.button("Yes, clear them"))
    assert "to zero" in browser.messages()[0]
    assert weixin.calls_to(APPID, "clear_quota") == 1
    assert len(browser.all(".wt-timeline circle")) > 0
    assert browser.complaints() == []


def read_with(key: str, url: str) -> int:
    with urlopen(Request(url, headers={"Authorization": f"Bearer {key}"}), timeout=10) as answer:
        return answer.status


@pytest.mark.proof
def test_operator__replaces_a_key_that_is_in_use(browser, live_server, weixin):
    account = Account.objects.create(appid=APPID, secret=SECRET)
    renew(account)
    key, plain = keys.make_key("crm", accounts=[account])
    ask = f"{live_server.url}/wechat/accounts/{APPID}/access_token"
    assert read_with(plain.reveal(), ask) == 200
    usage.flush()
    browser.open(f"clientkey/{key.pk}/change/")
    assert [cell.text for cell in browser.all(".wt-log tbody tr:first-child .wt-number")] == ["1", "0", "0"]
    assert ask in browser.one(".wt-line").text

    browser.press(browser.button("Replace this key…"))
    browser.one("[name=ends][value='1h']").click()
    browser.press(browser.button("Make the new key"))
    text = browser.one(".wt-key").text
    assert "works until" in browser.text()
    process.forget()
    for each in (text, plain.reveal()):
        assert read_with(each, ask) == 200
    key.refresh_from_db()
    assert key.expires_at == clock.now() + dt.timedelta(hours=1)
    assert browser.complaints() == []


@pytest.mark.proof
def test_operator__reads_it_in_chinese(browser):
    account = Account.objects.create(appid=APPID, secret=SECRET)
    Token.objects.update(failures=1, error_class="human", errcode=40164, egress_ip="203.0.113.7")
    browser.driver.add_cookie({"name": "django_language", "value": "zh-hans", "path": "/"})
    browser.open(f"account/{account.pk}/change/")
    assert "没有可用 token" in browser.text()
    assert not re.search(r"Force|Clear|Who reads|last 48 hours|Token in hand", browser.text())
    browser.driver.add_cookie({"name": "django_language", "value": "en", "path": "/"})
    browser.open(f"account/{account.pk}/change/")
    assert "Who reads this account" in browser.text()


@pytest.mark.proof
def test_session__that_ended_leads_back_to_the_account(browser):
    account = Account.objects.create(appid=APPID, secret=SECRET)
    User.objects.create_superuser("night", password="of the night watch")
    browser.open(f"account/{account.pk}/change/")
    browser.driver.delete_cookie("sessionid")
    browser.press(browser.button("Refresh now"))
    browser.one("[name=username]").send_keys("night")
    browser.one("[name=password]").send_keys("of the night watch")
    browser.press(browser.one("[type=submit]"))
    assert browser.messages() == ["Nothing was done: you had been logged out in between. Press the button again."]
    assert browser.one(".wt-headline").text == "Not fetched yet"


AXE = Path(os.environ.get("AXE_CORE", "node_modules/axe-core")) / "axe.min.js"
STOCK = re.compile(r"\.breadcrumbs|select2")  # parts of Django's own pages
RUN_AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ['violations']}).then((found) => done(found.violations.flatMap(
  (rule) => rule.nodes.map((node) => rule.id + ' ' + node.target.join(' ')))));
"""


@pytest.mark.proof
@pytest.mark.skipif(not AXE.exists(), reason="no axe-core: npm install axe-core, or name its folder in AXE_CORE")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages__axe_finds_nothing_beyond_the_stock_admin(browser, theme, monkeypatch):
    """What axe finds on Django's own pages of the same shape is not ours to mend."""
    monkeypatch.setattr("tests.admin.test_browser.POLICY", "")  # axe is injected, as a script of no page's
    account = Account.objects.create(appid=APPID, secret=SECRET, name="shop")
    Token.objects.update(
        failures=2, error_class="human", errcode=40164, egress_ip="203.0.113.7", rid="65f1", foreign_at=START, version=1
    )
    RefreshLog.objects.create(
        ref=account.ref, kind="access_token", at=clock.now(), reason="complaint", client="crm", endpoint="stable",
        outcome="failed", errcode=40164, duration_ms=12,
    )  # fmt: skip
    key, _plain = keys.make_key("crm", accounts=[account])
    KeyUsage.objects.create(key=key, appid=APPID, day=dt.date(2026, 3, 2), reads=3)
    browser.driver.execute_script("localStorage.setItem('theme', arguments[0])", theme)
    pages = {
        "/admin/auth/user/": ["/admin/wechat_token/account/", "/admin/wechat_token/clientkey/"],
        f"/admin/auth/user/{User.objects.get().pk}/change/": [
            f"/admin/wechat_token/account/{account.pk}/change/", f"/admin/wechat_token/clientkey/{key.pk}/change/",
        ],
    }  # fmt: skip
    for stock, ours in pages.items():
        usual = {found.split()[0] for found in browser.axe(stock)}
        for path in ours:
            found = [line for line in browser.axe(path) if line.split()[0] not in usual and not STOCK.search(line)]
            assert found == [], path


@pytest.mark.proof
def test_list__error_unfolds_without_script(browser):
    Account.objects.create(appid=APPID, secret=SECRET)
    Token.objects.update(failures=1, error_class="human", errcode=40164, egress_ip="203.0.113.7")
    browser.open("account/")
    folded = browser.one("details.wt-problem").size["height"]
    browser.one("details.wt-problem summary").click()
    assert browser.one("details.wt-problem").size["height"] > folded
    assert "Add 203.0.113.7" in browser.one("details.wt-problem").text
    assert browser.complaints() == []


@pytest.mark.proof
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages__readable_in_every_theme(browser, theme):
    account = Account.objects.create(appid=APPID, secret=SECRET)
    Token.objects.update(failures=1, error_class="human", errcode=40001, error="x", rid="65f1-rid")
    browser.driver.execute_script("localStorage.setItem('theme', arguments[0])", theme)
    browser.open(f"account/{account.pk}/change/")
    assert browser.one("html").get_attribute("data-theme") == theme
    texts = browser.all(".wt-headline, .wt-notice p, .wt-notice code, .wt-facts dt, .wt-facts dd, .wt-buttons .button")
    ratios = {element.text: browser.driver.execute_script(CONTRAST, element) for element in texts}
    assert len(ratios) > 8
    assert {text: ratio for text, ratio in ratios.items() if ratio < 4.5} == {}


@pytest.mark.proof
@pytest.mark.parametrize(
    "path", ["account/", "account/{pk}/change/", "refreshlog/", "clientkey/", "clientkey/add/", "clientkey/1/change/"]
)
def test_pages__fit_a_narrow_screen(browser, path):
    account = Account.objects.create(appid=APPID, secret=SECRET)
    ClientKey.objects.create(pk=1, name="crm", prefix="abcd", digest="x")
    Token.objects.update(failures=1, error_class="human", errcode=40164, egress_ip="203.0.113.7")
    # A headless window is at least 500 wide: a phone has to be emulated.
    phone = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        browser.open(path.format(pk=account.pk))
        width, room = browser.driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert width <= room == 390
        if path == "account/":  # the state and what came of it are in sight
            box = browser.one(".field-state .wt-problem").rect
            assert box["x"] + box["width"] <= 390
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.proof
def test_list__at_1280_nothing_is_cut(browser):
    Account.objects.create(appid=APPID, secret=SECRET, name="A shop with a name that is rather long", is_default=True)
    Token.objects.update(failures=1, error_class="human", errcode=40164, egress_ip="203.0.113.7")
    browser.open("account/")
    cut = "return [...document.querySelectorAll('#result_list th, #result_list td')]"
    cut += ".filter((cell) => cell.getBoundingClientRect().right > innerWidth).length"
    assert browser.driver.execute_script(cut) == 0
