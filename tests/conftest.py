"""Fixtures of the whole suite: a fake WeChat on a clock that tests move, and nothing left over between tests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest

from wechat_token import clock, directory, shelf
from wechat_token.models import Account, Token
from wechat_token.sandbox import FakeWeChat
from wechat_token.sandbox.testing import fake_wechat

APPID = "wx0123456789abcdef"
SECRET = "canary-app-secret-4f9a7c1e"
START = dt.datetime(2026, 3, 2, 4, 0, tzinfo=dt.UTC)


# Tests that mostly wait, for processes and services: first, so that the quick ones fill the gaps.
WAITING = ("test_live", "test_demo", "test_secrecy", "simulation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(name in item.nodeid for name in WAITING))


class Time:
    """Both clocks of the package and the fake's, moved by hand."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def now(self) -> dt.datetime:
        return START + dt.timedelta(seconds=self.elapsed)

    def timestamp(self) -> float:
        return self.now().timestamp()

    def monotonic(self) -> float:
        return 1000.0 + self.elapsed

    def pass_(self, seconds: float) -> None:
        self.elapsed += seconds

    def pass_until(self, moment: dt.datetime) -> None:
        self.elapsed = (moment - START).total_seconds()


@pytest.fixture(autouse=True)
def _clean_memory() -> Iterator[None]:
    shelf.clear_memory()
    directory.forget_default()
    yield
    shelf.clear_memory()
    directory.forget_default()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(clock, "now", time.now)
    monkeypatch.setattr(clock, "monotonic", time.monotonic)
    monkeypatch.setattr(clock, "sleep", time.pass_)
    return time


@pytest.fixture
def weixin(time: Time) -> Iterator[FakeWeChat]:
    with fake_wechat(FakeWeChat(time.timestamp, seed=1)) as fake:
        yield fake


@pytest.fixture
def account(db: None, weixin: FakeWeChat) -> Account:
    weixin.add_account(APPID, SECRET)
    return Account.objects.create(appid=APPID, secret=SECRET, name="shop")


@pytest.fixture
def classic(account: Account) -> Account:
    account.endpoint = "classic"
    account.save()
    return account


def row(account: Account) -> Token:
    return Token.objects.select_related("account").get(account=account)
