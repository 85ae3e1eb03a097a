"""The batch: one drain a host, with an end, whatever hangs (R17, R35)."""

from __future__ import annotations

import pytest

from tests.conftest import row
from wechat_token.engine import batch, drain, hosts
from wechat_token.engine.schedule import seconds
from wechat_token.models import Account, Host, Token


@pytest.fixture
def many(account, time):
    """Forty accounts whose tokens are due, of which 32 at a time are fetched."""
    Account.objects.bulk_create(
        [Account(appid=f"wxmany{number:010}", ref=f"wxmany{number:010}", secret="s") for number in range(39)]
    )
    Token.objects.bulk_create(
        [Token(account=made, due_at=time.now() - seconds(60)) for made in Account.objects.exclude(pk=account.pk)]
    )
    return account


def test_drain__ends_at_its_deadline_while_all_hang(many, hangar, time):
    assert drain() == {"unfinished": 32}
    assert time.elapsed <= 20.1
    assert hangar.started == ["refresh"] * 32
    assert Host.objects.get().drain_until is None


def test_drain__goes_on_as_threads_come_free(many, hangar, weixin, time):
    for made in Account.objects.exclude(pk=many.pk):
        weixin.add_account(made.appid, "s")
    hangar.meanwhile = hangar.let_go
    assert drain() == {"renewed": 40}
    assert time.elapsed < 20


def test_drain__not_beside_another_of_this_host(account, weixin, time):
    assert hosts.begin_drain()
    assert not hosts.begin_drain()
    assert drain() == {}
    assert not weixin.calls
    hosts.end_drain()
    assert drain() == {"renewed": 1}


def test_drain__not_for_ever_behind_one_that_died(account, weixin, time):
    assert hosts.begin_drain()
    time.pass_(20)
    assert drain() == {"renewed": 1}


def test_drain__nothing_due_writes_at_most_the_hosts_heartbeat(account, weixin, time, django_assert_num_queries):
    drain()
    time.pass_(5)
    with django_assert_num_queries(1):
        drain()


def test_drain__beside_one_of_another_host(account, weixin, monkeypatch):
    assert hosts.begin_drain()
    monkeypatch.setattr(hosts, "name", lambda: "another host")
    assert drain() == {"renewed": 1}


def test_drain__sweeps_up_once_an_hour_an_edit_that_nobody_heard_of(account, weixin, time):
    drain()
    Account.objects.update(edition=99)  # the process that saved it died before it could say so
    time.pass_(60)
    assert drain() == {}
    time.pass_(batch.SWEEP_AT - 60)
    assert drain() == {"unchanged": 1}
    assert row(account).edition == 99


def test_drain__a_kind_that_this_version_does_not_know_stops_nothing(account, weixin, time):
    Token.objects.create(account=account, kind="from_the_future", due_at=time.now() - seconds(60))
    assert drain() == {"renewed": 1}
