"""Private connections: never the caller's, never the pool's, bounded, and none of them idle (R3, R30, R34, R35)."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
from django.db import connections, transaction

from tests.conftest import APPID, SECRET
from tests.hangar import locked
from wechat_token import get_access_token
from wechat_token.engine import connections as private_connections
from wechat_token.engine import ground
from wechat_token.engine.connections import NotHere, alias, in_place, lock_is_held, patiently, private, read, read_here
from wechat_token.models import Account, Host, Token
from wechat_token.platforms import transport
from wechat_token.sandbox.testing import fake_wechat


@pytest.fixture
def sandbox(own_database):
    with fake_wechat(seed=1) as fake:
        fake.add_account(APPID, SECRET)
        yield fake


@pytest.fixture
def account(sandbox):
    return Account.objects.create(appid=APPID, secret=SECRET)


# -- never the caller's


def test_private__is_another_connection_and_then_the_callers_again(own_database):
    theirs = connections[own_database]
    with private() as using:
        assert using == own_database
        ours = connections[using]
        assert ours is not theirs
        assert not Host.objects.exists()
    assert connections[own_database] is theirs


def test_private__lies_idle_nowhere(own_database):
    with private() as using:
        assert not Host.objects.exists()
        ours = connections[using]
    assert ours.connection is None


def test_private__is_committed_whatever_becomes_of_the_callers_transaction(own_database, time):
    with transaction.atomic(using=own_database):
        with private() as using:
            Host.objects.using(using).create(name="here", seen_at=time.now())
        transaction.set_rollback(True, using=own_database)
    assert Host.objects.exists()


class Undone(Exception):
    pass


@pytest.mark.parametrize("endpoint", ["stable", "classic"])
def test_get_access_token__is_stored_although_the_caller_rolls_back(account, sandbox, own_database, endpoint):
    Account.objects.update(endpoint=endpoint)

    def undone():
        with transaction.atomic(using=own_database):
            got.append(get_access_token(APPID))
            raise Undone

    got = []
    with pytest.raises(Undone):
        undone()
    ground.settle(5)
    assert [Token.objects.get().value.reveal()] == got


def slots_to_be_had() -> int:
    """How many private connections threads of this process can have at the same time now."""
    had, leave = threading.Semaphore(0), threading.Event()

    def hold():
        with suppress(private_connections.NoSlot), private():
            had.release()
            leave.wait(5)

    threads = [threading.Thread(target=hold) for _ in range(private_connections.SLOTS + 1)]
    for thread in threads:
        thread.start()
    found = 0
    while had.acquire(timeout=0.3):
        found += 1
    leave.set()
    for thread in threads:
        thread.join()
    return found


def test_get_access_token__holds_no_connection_while_wechat_is_asked(account, sandbox, own_database, monkeypatch):
    """R35."""
    monkeypatch.setattr(private_connections, "SLOT_PATIENCE", 0.05)
    call, found = transport.call, []

    def look(*args, **options):
        found.append((slots_to_be_had(), [conn for conn in connections.all(initialized_only=True) if conn.connection]))
        return call(*args, **options)

    monkeypatch.setattr(transport, "call", look)
    get_access_token(APPID)
    assert found == [(private_connections.SLOTS, [])]


# -- read where it costs nothing and what is seen is of now


def test_read_here__not_in_a_transaction_that_may_see_an_old_world(own_database):
    assert Host.objects.count() == 0
    with transaction.atomic(using=own_database):
        with pytest.raises(NotHere):
            read_here(Host.objects.count)
        assert read(Host.objects.count) == 0
    assert read_here(Host.objects.count) == 0


def test_read_here__not_on_a_connection_that_is_closed(own_database):
    connections[own_database].close()
    with pytest.raises(NotHere):
        read_here(Host.objects.count)


# -- never the pool's, and with limits of its own


@pytest.fixture
def pooled(settings, monkeypatch):
    """PostgreSQL as a site may have it; nobody connects."""
    options = {"pool": {"max_size": 4}, "isolation_level": 3, "options": "-c search_path=shop"}
    usual = {**connections.settings["default"], "ENGINE": "django.db.backends.postgresql", "OPTIONS": options}
    monkeypatch.setitem(connections.settings, "pooled", {**usual, "AUTOCOMMIT": False, "ATOMIC_REQUESTS": True})
    settings.DATABASE_ROUTERS = [To("pooled", "pooled")]
    yield
    del connections["pooled"]


class To:
    def __init__(self, read, write):
        self.db_for_read = lambda model, **hints: read
        self.db_for_write = lambda model, **hints: write


def test_private__is_outside_the_sites_pool_and_bounded(pooled):
    with private() as using:
        ours = connections[using].settings_dict
    assert "pool" not in ours["OPTIONS"]
    assert "isolation_level" not in ours["OPTIONS"]
    for limit in ("search_path=shop", "lock_timeout=500", "statement_timeout=5000", "read\\ committed"):
        assert limit in ours["OPTIONS"]["options"]
    assert ours["OPTIONS"]["connect_timeout"] <= 5
    assert ours["AUTOCOMMIT"]
    assert not ours["ATOMIC_REQUESTS"]
    assert "pool" in connections.settings["pooled"]["OPTIONS"]


def test_private__the_steps_of_a_process_share_four_slots(own_database, monkeypatch):
    monkeypatch.setattr(private_connections, "SLOT_PATIENCE", 0.05)
    assert slots_to_be_had() == private_connections.SLOTS
    with private():
        assert slots_to_be_had() == private_connections.SLOTS - 1


# -- the primary (R34)


@pytest.mark.parametrize("model", [Account, Token, Host])
def test_objects__are_read_where_they_are_written(settings, model):
    settings.DATABASE_ROUTERS = [To("replica", "default")]
    assert model.objects.all().db == "default"
    assert model.objects.filter(pk=1).db == "default"
    assert alias() == "default"


# -- locks


def test_lock_is_held__by_sqlites_code():
    assert lock_is_held(locked())
    assert not lock_is_held(ValueError())


def test_patiently__gets_past_a_lock_and_not_past_its_limit(own_database, time):
    failing = [locked(), locked()]

    def step():
        if failing:
            raise failing.pop()
        return "done"

    assert patiently(step) == "done"
    failing += [locked() for _ in range(1000)]
    before = time.elapsed
    with pytest.raises(type(locked())):
        patiently(step)
    assert time.elapsed - before <= 3.1


def test_in_place__in_test_cases_alone(db):
    assert in_place()


def test_in_place__not_where_others_can_connect(own_database):
    assert not in_place()
