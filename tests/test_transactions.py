"""R3 and R30 on SQLite files: the caller's transaction may hold the only write lock there is."""

from __future__ import annotations

import threading
import time as real_time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from django.contrib.auth.models import Group
from django.db import connection, connections, transaction

from tests.conftest import APPID, SECRET
from wechat_token import get_access_token
from wechat_token.engine import clear_memory, settle
from wechat_token.exceptions import TokenUnavailable
from wechat_token.models import Account, Token
from wechat_token.sandbox.testing import fake_wechat


@pytest.fixture
def sandbox():
    with fake_wechat(seed=1) as fake:
        fake.add_account(APPID, SECRET)
        yield fake


def stored_value(patience: float = 5.0) -> str:
    give_up_at = real_time.monotonic() + patience
    while real_time.monotonic() < give_up_at:
        token = Token.objects.get()
        if token.version:
            return token.value.reveal()
        real_time.sleep(0.02)
    return ""


@contextmanager
def callers_transaction(*, wrote: bool, ends: str) -> Iterator[None]:
    with suppress(ZeroDivisionError), transaction.atomic():
        Group.objects.exists()
        if wrote:
            Group.objects.create(name="written before the token was asked for")
        yield
        if ends == "rollback":
            raise ZeroDivisionError


transactions = pytest.mark.parametrize(
    ("wrote", "ends"), [(False, "rollback"), (False, "commit"), (True, "rollback"), (True, "commit")]
)


@pytest.mark.usefixtures("own_connections")
@transactions
def test_get_access_token__survives_the_callers_transaction(sandbox, wrote, ends):
    """R3. Where the caller's transaction keeps everybody from writing, a request that displaces nothing goes first."""
    Account.objects.create(appid=APPID, secret=SECRET, endpoint="stable")
    with callers_transaction(wrote=wrote, ends=ends):
        token = get_access_token(APPID)
        assert get_access_token(APPID) == token
    assert Group.objects.exists() == (wrote and ends == "commit")
    assert stored_value() == token
    settle(5)
    clear_memory()
    assert get_access_token(APPID) == token
    assert sandbox.calls_to(APPID, "stable") == 1
    assert not connection.in_atomic_block


@pytest.mark.usefixtures("own_connections")
@transactions
def test_get_access_token__classic_waits_for_the_lock_not_the_caller(sandbox, wrote, ends):
    """R1, R30: a request that displaces leaves under a claim only. The caller whose own transaction is in the way hears
    so soon; once that has ended the token comes by itself.
    """
    Account.objects.create(appid=APPID, secret=SECRET, endpoint="classic")
    begun = real_time.monotonic()
    with callers_transaction(wrote=wrote, ends=ends):
        if connection.vendor == "sqlite":  # BEGIN IMMEDIATE: whoever is in a transaction holds the one write lock
            with pytest.raises(TokenUnavailable, match=r"lock on its row.*own transaction"):
                get_access_token(APPID)
            assert real_time.monotonic() - begun < 5
            assert sandbox.calls_to(APPID, "classic") == 0
        else:
            get_access_token(APPID)
    token = stored_value()
    assert sandbox.is_valid(token)
    assert get_access_token(APPID) == token
    assert sandbox.calls_to(APPID, "classic") == 1
    assert Group.objects.exists() == (wrote and ends == "commit")


@pytest.mark.usefixtures("own_connections")
def test_get_access_token__threads_fetch_once(sandbox):
    Account.objects.create(appid=APPID, secret=SECRET, endpoint="classic")
    start, got = threading.Barrier(8), []

    def read():
        start.wait()
        got.append(get_access_token(APPID))
        connections.close_all()

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len(set(got)) == 1
    assert sandbox.calls_to(APPID, "classic") == 1
