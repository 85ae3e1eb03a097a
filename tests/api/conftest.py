"""Fixtures of the HTTP service: a client key for the fake WeChat's account, and callers that present it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from wechat_token.client_keys.keys import make_key
from wechat_token.models import Account, ClientKey
from wechat_token.redaction import Secret

PREFIX = "/wechat"


class Caller:
    """A service with a client key, in whichever dialect it likes."""

    def __init__(self, key: Secret | str, appid: str, **extra: Any) -> None:
        self.key = key.reveal() if isinstance(key, Secret) else key
        self.appid = appid
        self.http = Client(enforce_csrf_checks=True, **extra)

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def read(self, **extra: Any) -> Any:
        return self.http.get(f"{PREFIX}/accounts/{self.appid}/access_token", headers=self.auth, **extra)

    def complain(self, stale_token: Any, **extra: Any) -> Any:
        return self.send(json.dumps({"stale_token": stale_token}), **extra)

    def send(self, body: str | bytes, content_type: str = "application/json", **extra: Any) -> Any:
        path = f"{PREFIX}/accounts/{self.appid}/access_token/refresh"
        return self.http.post(path, body, content_type=content_type, headers=self.auth, **extra)

    def token(self, **changes: str | None) -> Any:
        """``GET cgi-bin/token``; None leaves a parameter out."""
        query = {"grant_type": "client_credential", "appid": self.appid, "secret": self.key, **changes}
        query = {name: value for name, value in query.items() if value is not None}
        return self.http.get(f"{PREFIX}/cgi-bin/token", query)

    def stable(self, **changes: Any) -> Any:
        """``POST cgi-bin/stable_token``; None leaves a parameter out."""
        body = {"grant_type": "client_credential", "appid": self.appid, "secret": self.key, **changes}
        body = {name: value for name, value in body.items() if value is not None}
        return self.http.post(f"{PREFIX}/cgi-bin/stable_token", body, content_type="application/json")


@pytest.fixture
def made(account: Account) -> tuple[ClientKey, Secret]:
    return make_key("orders", accounts=[account], may_refresh=True)


@pytest.fixture
def key(made: tuple[ClientKey, Secret]) -> ClientKey:
    return made[0]


@pytest.fixture
def caller(made: tuple[ClientKey, Secret], account: Account) -> Caller:
    return Caller(made[1], account.appid)


@pytest.fixture
def reader(account: Account) -> Caller:
    """May read, may not complain."""
    return Caller(make_key("reports", accounts=[account])[1], account.appid)
