"""R3 on SQLite files: the caller's transaction may hold the only write lock there is."""

from __future__ import annotations

import threading
import time as real_time

import pytest
from django.contrib.auth.models import Group
from django.db import connection, transaction

from tests.conftest import APPID, SECRET
from wechat_token import get_access_token, shelf, transactions
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


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("wrote", [False, True], ids=["caller-read", "caller-wrote"])
@pytest.mark.parametrize("ends", ["rollback", "commit"])
@pytest.mark.parametrize("endpoint", ["classic", "stable"])
def test_get_access_token__survives_the_callers_transaction(sandbox, wrote, ends, endpoint):
    Account.objects.create(appid=APPID, secret=SECRET, endpoint=endpoint)
    try:
        with transaction.atomic():
            Group.objects.exists()
            if wrote:
                Group.objects.create(name="written before the token was asked for")
            token = get_access_token(APPID)
            assert get_access_token(APPID) == token
            if ends == "rollback":
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert Group.objects.exists() == (wrote and ends == "commit")
    assert stored_value() == token
    shelf.clear_memory()
    assert get_access_token(APPID) == token
    assert sandbox.calls_to(APPID, endpoint) == 1
    assert not connection.in_atomic_block


@pytest.mark.django_db(transaction=True)
def test_get_access_token__threads_fetch_once(sandbox):
    Account.objects.create(appid=APPID, secret=SECRET, endpoint="classic")
    start, got = threading.Barrier(8), []

    def read():
        start.wait()
        got.append(get_access_token(APPID))
        transactions.close_connections()

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len(set(got)) == 1
    assert sandbox.calls_to(APPID, "classic") == 1
