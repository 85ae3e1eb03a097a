"""The live keys of a process: found without the database, gone everywhere within a second of their revocation."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
from django.db import OperationalError, connection, connections, transaction

from tests.outages import database_down
from wechat_token.client_keys import keyring, keys
from wechat_token.client_keys.keyring import KeysUnavailable
from wechat_token.models import Account, ClientKey


@pytest.fixture
def account(transactional_db, time):
    return Account.objects.create(appid="wx0123456789abcdef", secret="x", is_active=False)


@pytest.fixture
def made(account):
    return keys.make_key("orders", accounts=[account])


@pytest.fixture
def plain(made):
    return made[1].reveal()


def elsewhere(sql, *params):
    """A write of another process: no signal arrives here."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


# -- finding ---------------------------------------------------------------------------------------


def test_find__gives_what_the_key_allows(plain, made, account):
    grant = keyring.find(plain)
    assert (grant.key_id, grant.name, grant.appids) == (made[0].pk, "orders", frozenset({account.appid}))
    assert (grant.may_refresh, grant.networks, grant.expires_at) == (False, None, None)


def test_find__shows_no_digest_in_its_repr(plain):
    assert keys.digest(plain) not in repr(keyring.find(plain))


def test_find__of_a_malformed_key_asks_nobody(made, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert keyring.find("wxt_" + "0" * 38) is None


def test_find__of_a_million_wrong_keys_costs_one_check_a_second(plain, time, django_assert_num_queries):
    keyring.find(plain)
    time.pass_(1)
    wrong = [keys.generate().reveal() for _ in range(1000)]
    with django_assert_num_queries(1):
        assert not any(keyring.find(key) for key in wrong)


def test_find__of_a_known_key_costs_one_check_a_second(plain, time, django_assert_num_queries):
    keyring.find(plain)
    with django_assert_num_queries(0):
        for _ in range(100):
            keyring.find(plain)
    time.pass_(1)
    with django_assert_num_queries(1):
        for _ in range(100):
            assert keyring.find(plain)


def test_find__loads_all_keys_with_three_queries(account, django_assert_num_queries):
    made = [keys.make_key(f"k{n}", accounts=[account])[1].reveal() for n in range(20)]
    with django_assert_num_queries(3):
        assert all(keyring.find(key) for key in made)


def test_find__ignores_expired_keys_without_looking_again(made, plain, time):
    made[0].expires_at = time.now() + dt.timedelta(seconds=0.5)
    made[0].save()
    assert keyring.find(plain)
    time.pass_(0.5)
    assert keyring.find(plain) is None


# -- changes in this process are seen at once ------------------------------------------------------


def test_change__new_key_works_at_once(plain, account):
    keyring.find(plain)
    assert keyring.find(keys.make_key("new", accounts=[account])[1].reveal())


def test_change__revoked_key_is_dead_at_once(made, plain, time):
    keyring.find(plain)
    made[0].revoked_at = time.now()
    made[0].save()
    assert keyring.find(plain) is None


def test_change__takes_effect_when_it_is_committed(made, plain, time):
    keyring.find(plain)
    with transaction.atomic():
        made[0].revoked_at = time.now()
        made[0].save()
    assert keyring.find(plain) is None


@pytest.mark.parametrize(
    "edit",
    [
        lambda key, account: key.accounts.clear(),
        lambda key, account: key.accounts.remove(account),
        lambda key, account: key.accounts.set([]),
        lambda key, account: account.client_keys.remove(key),
        lambda key, account: account.client_keys.clear(),
        lambda key, account: account.delete(),
    ],
)
def test_change__of_accounts_from_either_side_is_a_change_of_the_key(made, plain, account, edit):
    assert keyring.find(plain).appids
    before = ClientKey.objects.get().updated_at
    edit(made[0], account)
    assert keyring.find(plain).appids == frozenset()
    assert ClientKey.objects.get().updated_at >= before


def test_change__of_an_appid_is_a_change_of_the_key(made, plain, account):
    keyring.find(plain)
    account.appid = "wxrenamed"
    account.save()
    assert keyring.find(plain).appids == {"wxrenamed"}


# -- changes elsewhere are seen within a second ----------------------------------------------------


def _save(key):
    key.may_refresh = True
    key.save()


@pytest.mark.parametrize(
    "edit",
    [
        _save,
        lambda key: ClientKey.objects.filter(pk=key.pk).update(may_refresh=True),
        lambda key: ClientKey.objects.bulk_update([_with(key, may_refresh=True)], ["may_refresh"]),
    ],
)
def test_change__elsewhere_by_any_way_of_the_orm(made, plain, time, monkeypatch, edit):
    keyring.find(plain)
    monkeypatch.setattr(keyring, "expire", lambda: None)  # the signal is heard by the other process only
    edit(made[0])
    assert not keyring.find(plain).may_refresh
    time.pass_(1)
    assert keyring.find(plain).may_refresh


def _with(key, **values):
    for name, value in values.items():
        setattr(key, name, value)
    return key


def test_change__elsewhere_by_plain_sql_revokes_too(made, plain, time):
    keyring.find(plain)
    elsewhere("UPDATE wechat_token_clientkey SET revoked_at = %s", time.now())
    time.pass_(1)
    assert keyring.find(plain) is None


def test_change__elsewhere_by_a_host_whose_clock_is_behind(made, plain, time, monkeypatch):
    keys.make_key("newer")
    keyring.find(plain)
    monkeypatch.setattr(keyring, "expire", lambda: None)
    key = ClientKey.objects.get(pk=made[0].pk)
    key.may_refresh = True
    key.save()
    elsewhere("UPDATE wechat_token_clientkey SET updated_at = '2001-01-01 00:00:00' WHERE id = %s", key.pk)
    time.pass_(1)
    assert keyring.find(plain).may_refresh


def test_change__of_the_last_use_loads_nothing(made, plain, time, django_assert_num_queries):
    keyring.find(plain)
    ClientKey.objects.update(last_used_at=time.now())
    time.pass_(1)
    with django_assert_num_queries(1):
        assert keyring.find(plain)


# -- outages and crowds ----------------------------------------------------------------------------


@pytest.fixture
def in_background(monkeypatch):
    """What was started in the background, not run."""
    started = []
    monkeypatch.setattr(keyring, "aside", lambda name, work: started.append(work))
    return started


def test_outage__keeps_the_last_keys(plain, time, caplog, in_background):
    keyring.find(plain)
    time.pass_(1)
    with database_down():
        assert keyring.find(plain)
    assert "OperationalError" in caplog.text


def test_outage__is_looked_at_behind_the_readers_backs(made, plain, time, in_background):
    keyring.find(plain)
    time.pass_(1)
    with database_down():
        keyring.find(plain)
    ClientKey.objects.update(revoked_at=time.now())
    time.pass_(keyring.BLIND_SECONDS)
    assert keyring.find(plain)
    assert len(in_background) == 1
    in_background[0]()
    assert keyring.find(plain) is None


def test_outage__from_the_start_fails_fast_after_the_first_try(plain, time):
    with database_down() as tries:
        for _ in range(5):
            with pytest.raises(KeysUnavailable):
                keyring.find(plain)
    assert len(tries) == 1
    time.pass_(keyring.BLIND_SECONDS)
    assert keyring.find(plain)


def test_crowd__goes_on_while_one_checks(plain, time):
    keyring.find(plain)
    time.pass_(1)
    entered, release = threading.Event(), threading.Event()

    def slow(*statement):
        entered.set()
        release.wait(5)
        raise OperationalError

    def check():
        with connections["default"].execute_wrapper(slow):
            keyring.find(plain)
        connections.close_all()

    checking = threading.Thread(target=check)
    checking.start()
    assert entered.wait(5)
    assert keyring.find(plain)  # would hang if it waited
    release.set()
    checking.join(5)
    assert not checking.is_alive()


def test_networks__that_cannot_be_read_are_logged(made, plain, caplog):
    ClientKey.objects.update(networks="the office")
    assert keyring.find(plain).networks == ()
    assert made[0].prefix in caplog.text
