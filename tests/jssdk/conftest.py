"""Chromium as a WeChat client on a host of its own: shop.example.com, which leads to the test's server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from tests.conftest import APPID, SECRET
from tests.jssdk import pages
from wechat_token import get_ticket
from wechat_token.models import Account

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --lang=en"
)
UNRELATED = ("favicon.ico", "Cross-Origin-Opener-Policy")  # of the browser itself, and of Django over plain http
ANDROID = "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/130 Mobile Safari/537.36 MicroMessenger/8.0.50"
IOS = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 MicroMessenger/8.0.50"
BASE = f"http://{pages.HOST}"


class Phone:
    def __init__(self, driver, wechat: pages.WeChat) -> None:
        self.driver, self.wechat = driver, wechat

    def is_(self, agent: str) -> None:
        self.driver.execute_cdp_cmd("Network.setUserAgentOverride", {"userAgent": agent})

    def open(self, path: str = "/sale/", host: str = pages.HOST) -> list[str]:
        self.driver.get(f"http://{host}{path}")
        return self.answers()

    def go(self, path: str) -> list[str]:
        """To another route of the app, as its router would."""
        self.driver.execute_script(
            "answers.length = told.length = 0; history.pushState(null, '', arguments[0]); wechatJSSDK();", path
        )
        return self.answers()

    def answers(self) -> list[str]:
        """What WeChat said to each wx.config, once the script has told the outcome."""
        script = """
            const done = arguments[0], until = Date.now() + 8000;
            (function look() {
              const over = (window.told && told.length) || Date.now() > until;
              if (over) setTimeout(() => done([...window.answers || []]), 20);
              else setTimeout(look, 5);
            })();"""
        return self.driver.execute_async_script(script)

    def told(self) -> str:
        return self.driver.execute_script("return told[told.length - 1] || ''")

    def console(self) -> str:
        """What the script, or the policy, says there."""
        lines = [line["message"] for line in self.driver.get_log("browser") if line["level"] in ("WARNING", "SEVERE")]
        return "\n".join(line for line in lines if not any(word in line for word in UNRELATED))


@pytest.fixture(scope="module")
def driver(live_server) -> Iterator[object]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    port = live_server.url.rpartition(":")[2]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for option in (*OPTIONS.split(), f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.add_argument(f"--host-resolver-rules=MAP *.example.com:80 127.0.0.1:{port}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        chrome = webdriver.Chrome(options=options, service=Service(DRIVER))
        yield chrome
        chrome.quit()


@pytest.fixture
def wechat(weixin, settings, transactional_db) -> pages.WeChat:
    settings.ALLOWED_HOSTS = ["*"]
    settings.WECHAT_TOKEN = {"JSSDK_URL": "/jweixin.js", "SIGNATURES_PER_MINUTE": 100_000}
    settings.LANGUAGE_CODE = "en"
    weixin.add_account(APPID, SECRET)
    Account.objects.create(appid=APPID, secret=SECRET, js_domains=pages.HOST)
    pages.wechat = pages.WeChat(weixin, APPID)
    pages.wechat.tickets.add(get_ticket(APPID))
    return pages.wechat


@pytest.fixture
def phone(driver, live_server, wechat) -> Phone:
    phone = Phone(driver, wechat)
    phone.is_(ANDROID)
    phone.console()  # of the test before
    return phone
