"""S8, as an attacker would: with write access to the database or to Redis, or with SECRET_KEY, and with no key.

What is read is read by a client key, which whoever writes the database can give himself.
"""

from __future__ import annotations

import os
import pickle
import runpy
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.live import services

from .site import SECRET, Ground, on
from .stage import ask

pytestmark = pytest.mark.proof

TABLES = {"secret": "wechat_token_account", "value": "wechat_token_token"}
WHERE = {"secret": "appid = %s", "value": "account_id = (SELECT id FROM wechat_token_account WHERE appid = %s)"}


def copy(from_field: str, from_appid: str, to_field: str, to_appid: str) -> None:
    """Scene: two statements of SQL, past every line of the package; then all tokens there are due."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {from_field} FROM {TABLES[from_field]} WHERE {WHERE[from_field]}", [from_appid])
        [ciphertext] = cursor.fetchone()
        assert ciphertext
        cursor.execute(f"UPDATE {TABLES[to_field]} SET {to_field} = %s WHERE {WHERE[to_field]}", [ciphertext, to_appid])


def read_by_key(appid: str) -> dict[str, Any]:
    """Scene: what a client key for this account gets, and the security events meanwhile."""
    import logging

    from django.test import Client

    from wechat_token.client_keys.keys import make_key
    from wechat_token.models import Account

    events: list[str] = []
    log = logging.Handler()
    log.emit = lambda record: events.append(record.getMessage())
    logging.getLogger("wechat_token.security").addHandler(log)
    _, key = make_key("attacker", accounts=[Account.objects.get(appid=appid)])
    http = Client(SERVER_NAME="localhost")
    answer = http.get(f"/wechat/accounts/{appid}/access_token", headers={"Authorization": f"Bearer {key.reveal()}"})
    return {"status": answer.status_code, "text": answer.content.decode(), "events": events, **answer.json()}


def enter_again(appid: str) -> dict[str, Any]:
    """Scene: what the error advises, then a read."""
    from wechat_token.models import Account

    account = Account.objects.get(appid=appid)
    account.secret = SECRET
    account.save()
    return ask(appid)


def token_gone(appid: str) -> None:
    """Scene."""
    from wechat_token.models import Token

    Token.objects.filter(account__appid=appid).update(version=0, value="")


@on("sqlite", "postgres", "mariadb")
@pytest.mark.parametrize("what", ["secret", "value"])
def test_written_database__nothing_opens_as_the_token_of_an_account(ground: Ground, what: str) -> None:
    victim, mine = ground.accounts(2, "classic", token=True)
    loot = SECRET if what == "secret" else ground.stored(victim)
    ground.play(copy, what, victim, "value", mine)
    said = ground.play(read_by_key, mine)
    assert loot not in said["text"]
    assert ground.fake.is_valid(said["access_token"])
    assert [event.split()[0] for event in said["events"] if "token.value" in event] == ["event=encryption_unfit"]
    assert ground.stored(victim) != said["access_token"]


@on("sqlite", "postgres", "mariadb")
@pytest.mark.parametrize("what", ["secret", "value"])
def test_written_database__nothing_is_sent_as_the_appsecret_of_an_account(ground: Ground, what: str) -> None:
    victim, mine = ground.accounts(2, "classic", token=True)
    ground.play(copy, what, victim, "secret", mine)
    ground.play(token_gone, mine)
    before = len(ground.fake.calls)
    said = ground.play(read_by_key, mine)
    assert said["status"] == 503
    assert any(event.startswith("event=encryption_unfit ") for event in said["events"])
    assert len(ground.fake.calls) == before
    assert ground.fake.is_valid(ground.play(enter_again, mine)["token"])


# -- Redis


_no_redis = services.missing("redis")
with_redis = pytest.mark.skipif(bool(_no_redis), reason=_no_redis or "-")


@pytest.fixture
def run() -> Iterator[str]:
    """What the names of this test's entries begin with."""
    run = f"doors{uuid.uuid4().hex[:12]}"
    yield run
    services.delete_keys(f"{run}*")


def as_in_the_example(monkeypatch: pytest.MonkeyPatch, run: str) -> dict[str, Any]:
    """How the example project would use Redis: options for a scene."""
    with monkeypatch.context() as patch:
        patch.setenv("REDIS_URL", services.REDIS)
        patch.delitem(sys.modules, "example_project.settings", raising=False)
        read = runpy.run_module("example_project.settings")
    for cache in read["CACHES"].values():
        cache["KEY_PREFIX"] = run
    return {
        "settings": {"CACHES": read["CACHES"]},
        "wechat": {"CACHE_ALIAS": read["WECHAT_TOKEN"].get("CACHE_ALIAS", "default")},
    }


class Payload:
    """Unpickled, it makes a file: as good as anything else."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def overwrite(run: str, with_: bytes) -> int:
    """Write this under every name that the site uses; how many there are."""
    import redis

    with redis.Redis.from_url(services.REDIS) as client:
        names = list(client.scan_iter(f"{run}*"))
        for name in names:
            client.set(name, with_, ex=60)
    return len(names)


@pytest.mark.services
@with_redis
@on("sqlite")
def test_written_redis__a_pickle_runs_no_code(
    ground: Ground, run: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    appid, marker = ground.account(token=True), tmp_path / "was-here"
    example = as_in_the_example(monkeypatch, run)
    token = ground.play(ask, appid, **example)["token"]
    assert overwrite(run, pickle.dumps(Payload(marker))) >= 2
    assert ground.play(ask, appid, **example)["token"] == token
    assert not marker.exists()
    # The attack is a real one: with Django's own serializer the same bytes do it.
    usual = example["settings"]["CACHES"][example["wechat"]["CACHE_ALIAS"]] | {"OPTIONS": {"socket_timeout": 0.5}}
    overwrite(run, pickle.dumps(Payload(marker)))
    assert ground.play(ask, appid, settings={"CACHES": {"default": usual}})["token"] == token
    assert marker.exists()


def forge(appid: str, token: str) -> None:
    """Scene: what knows SECRET_KEY alone writes into the cache, by the package's own code."""
    import datetime as dt

    from wechat_token import clock
    from wechat_token.engine import served
    from wechat_token.models import Token

    row = Token.objects.get(account__appid=appid)
    end = clock.now() + dt.timedelta(hours=1)
    served.publish(
        served.Entry(
            appid, "access_token", row.pk, row.version + 1, row.revision + 1, token, end, end, end, clock.now()
        )
    )  # fmt: skip


@pytest.mark.services
@with_redis
@on("sqlite")
def test_known_secret_key__forges_no_cache_entry_where_keys_are_set(
    ground: Ground, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    appid = ground.account()
    example = as_in_the_example(monkeypatch, run)
    own = example | {"wechat": example["wechat"] | {"ENCRYPTION_KEYS": [Fernet.generate_key().decode()]}}
    ground.play(enter_again, appid, **own)
    token = ground.play(ask, appid, **own)["token"]
    ground.play(forge, appid, "forged", **example)
    assert ground.play(ask, appid, **example)["token"] == "forged"  # the forgery is a good one
    assert ground.play(ask, appid, **own)["token"] == token


def forge_row(appid: str, token: str) -> None:
    """Scene: likewise in the database."""
    from wechat_token.models import Token

    Token.objects.filter(account__appid=appid).update(value=token)


@on("sqlite")
def test_known_secret_key__forges_no_row_where_keys_are_set(ground: Ground) -> None:
    appid = ground.account()
    own = {"wechat": {"ENCRYPTION_KEYS": [Fernet.generate_key().decode()]}}
    ground.play(enter_again, appid, **own)
    ground.play(forge_row, appid, "forged")
    assert ground.play(ask, appid)["token"] == "forged"
    assert ground.fake.is_valid(ground.play(ask, appid, **own)["token"])
