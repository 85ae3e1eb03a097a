"""What a read costs the database: nothing, but for one cheap check of the keys a second. And who asked is counted."""

from __future__ import annotations

import pytest
from django.db import OperationalError, connections

from tests.api.conftest import Caller
from wechat_token.client_keys import usage
from wechat_token.client_keys.keys import generate, make_key
from wechat_token.engine import served
from wechat_token.models import Account, KeyUsage

pytestmark = pytest.mark.django_db(transaction=True)

CALLS = pytest.mark.parametrize("call", [Caller.read, Caller.token, Caller.stable])


@pytest.fixture
def caller(weixin):
    weixin.add_account("wxlive", "secret")
    account = Account.objects.create(appid="wxlive", secret="secret")
    return Caller(make_key("live", accounts=[account], may_refresh=True)[1], account.appid)


@CALLS
def test_read__of_a_warm_token_by_a_known_key_makes_no_query(caller, call, django_assert_num_queries):
    call(caller)
    with django_assert_num_queries(0):
        for _ in range(50):
            assert call(caller).status_code == 200


@CALLS
def test_read__makes_one_check_of_the_keys_a_second(caller, call, time, settings, django_assert_num_queries):
    settings.WECHAT_TOKEN = {"MEMORY_SECONDS": 50.0}  # stands in for a shared cache, which is no query either
    call(caller)
    for _ in range(3):
        time.pass_(1)
        with django_assert_num_queries(1) as queries:
            for _ in range(20):
                call(caller)
        assert "clientkey" in queries.captured_queries[0]["sql"]


def test_read__by_wrong_keys_makes_no_query(caller, django_assert_num_queries):
    caller.read()
    with django_assert_num_queries(0):
        for _ in range(50):
            assert Caller(generate(), "wxlive").read().status_code in (401, 429)


def test_read__goes_on_while_the_database_is_down(caller, time, monkeypatch):
    caller.read()
    with monkeypatch.context() as outage:

        def down(*args, **kwargs):
            raise OperationalError

        outage.setattr(type(connections["default"]), "cursor", down)
        for _ in range(5):
            time.pass_(10)
            assert caller.read().status_code == 200


def test_reads__complaints_and_refusals_are_counted(caller):
    caller.read()
    token = caller.token().json()["access_token"]
    caller.complain(token)
    caller.stable(force_refresh=True)
    caller.appid = "wxforbidden"
    caller.read()
    caller.appid = "wxlive"
    usage.flush()
    found = KeyUsage.objects.values_list("appid", "reads", "complaints", "refusals")
    assert set(found) == {("wxlive", 2, 2, 0), ("", 0, 0, 1)}


def test_refusals__of_a_key_for_all_accounts_make_no_row_each():
    caller = Caller(make_key("all", all_accounts=True)[1], "")
    for number in range(20):
        caller.appid = f"wxunknown{number}"
        caller.read()
        caller.stable(force_refresh=True)
    usage.flush()
    assert list(KeyUsage.objects.values_list("appid", "refusals")) == [("", 40)]


def test_read__keeps_no_token_that_was_replaced(caller, weixin):
    first = caller.read().json()["access_token"]
    weixin.kill_token("wxlive")
    second = caller.complain(first).json()["access_token"]
    assert caller.read().json()["access_token"] == second == served.recall(("wxlive", "access_token")).value
