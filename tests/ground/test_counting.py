"""R9, R16, R31: counted is what left this machine, neither more nor less."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from tests.conftest import APPID, SECRET, row
from tests.ground.looks import status
from wechat_token import get_access_token, refresh_access_token
from wechat_token.exceptions import TokenUnavailable
from wechat_token.models import Account
from wechat_token.sandbox import FakeWeChat, FakeWeChatServer, Fault
from wechat_token.sandbox.testing import fake_wechat


class Obstinate(FakeWeChat):
    """Its ``stable_token`` answers a forced refresh with the token it has, as WeChat does now and then."""

    forced = 0

    def handle(self, method, path, query, body=b"", remote_ip="127.0.0.1"):
        if path == "/cgi-bin/stable_token" and json.loads(body).get("force_refresh"):
            self.forced += 1
            body = body.replace(b"true", b"false")
        return super().handle(method, path, query, body, remote_ip)


@pytest.fixture
def stuck(db, time):
    """An account whose token is dead and comes back for an hour, forced or not."""
    with fake_wechat(Obstinate(time.timestamp, seed=1)) as fake:
        fake.add_account(APPID, SECRET)
        Account.objects.create(appid=APPID, secret=SECRET)
        token = get_access_token(APPID)
        time.pass_(60)
        fake.kill_token(APPID, stuck=True)
        with suppress(TokenUnavailable):
            refresh_access_token(APPID, stale_token=token)
        for _ in range(130):
            time.pass_(30)
            with suppress(TokenUnavailable):
                get_access_token(APPID)
        yield fake


def test_forced_refresh__that_returns_the_same_token_is_counted(stuck):
    """Twenty a day are all there are, whatever they bring."""
    assert 1 < stuck.forced <= 20
    assert status(APPID)["calls_today"]["stable_forced"] == stuck.forced


def test_forced_refresh__used_up_does_not_keep_the_account_dead_beyond_the_tokens_own_end(stuck, time):
    assert stuck.forced <= 20
    for _ in range(130):
        time.pass_(30)
        with suppress(TokenUnavailable):
            get_access_token(APPID)
    assert stuck.is_valid(get_access_token(APPID))


SPOILED = ["error", "status", "status", "redirect", "html", "lost_after", "refused", "life_nan", "empty", "refused"]


@pytest.mark.parametrize("endpoint", ["stable", "classic"])
def test_refresh__counts_what_left_and_nothing_else(transactional_db, time, settings, endpoint):
    """Over a real wire: a refusal by something in front of WeChat has left, too; a connection refused has not."""
    fake = FakeWeChat(time.timestamp, seed=1)
    fake.add_account(APPID, SECRET)
    with FakeWeChatServer(fake) as server:
        settings.WECHAT_TOKEN = {"API_BASE_URL": server.url}
        Account.objects.create(appid=APPID, secret=SECRET, endpoint=endpoint)
        for kind in SPOILED:
            nobody_listens = kind == "refused"
            settings.WECHAT_TOKEN = {"API_BASE_URL": "http://127.0.0.1:9" if nobody_listens else server.url}
            if not nobody_listens:
                fake.inject(Fault(kind, status=403))
            with pytest.raises(TokenUnavailable):
                get_access_token(APPID)
            time.pass_until(row_due())
        settings.WECHAT_TOKEN = {"API_BASE_URL": server.url}
        assert get_access_token(APPID)
        assert fake.calls_to(APPID, endpoint) == len(SPOILED) - SPOILED.count("refused") + 1
        assert status(APPID)["calls_today"][endpoint] == fake.calls_to(APPID, endpoint)


def row_due():
    return row(Account.objects.get()).due_at
