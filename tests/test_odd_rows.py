"""Rows that our own code cannot have written: found, and healed without overwriting anybody."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.conftest import renew, row
from wechat_token import get_access_token
from wechat_token.diagnosis import odd_rows
from wechat_token.diagnosis.odd_rows import oddities
from wechat_token.encryption import StoredSecret
from wechat_token.engine.schedule import Reason
from wechat_token.models import Account, Token
from wechat_token.platforms import base

NOW = dt.datetime(2026, 3, 2, 4, 0, tzinfo=dt.UTC)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


def good(**changes):
    """A token renewed an hour ago, due in 50 minutes, good for an hour."""
    fields = {
        "value": StoredSecret("x"), "version": 3, "issued_at": NOW - HOUR, "expires_at": NOW + HOUR,
        "due_at": NOW + dt.timedelta(minutes=50), "usage": {"day": "2026-03-02", "stable": 4},
        "account": Account(appid="wxa", ref="wxa"), "issued_for": "wxa",
    }  # fmt: skip
    return Token(**fields | changes)


def found(token):
    return [str(oddity.what) for oddity in oddities(token, NOW, lease=15, overlap=300)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"due_at": NOW - DAY},  # overdue: not odd, but nobody's job was done
        {"usage": {}},
        {"version": 0, "value": "", "expires_at": None, "due_at": NOW},  # just added
        {"failures": 1, "due_at": NOW + 2 * HOUR},  # a backoff
        {"version": 0, "expires_at": None, "failures": 9, "due_at": NOW + DAY},  # out of quota until midnight
        {"lease_until": NOW + dt.timedelta(seconds=15), "due_at": NOW + dt.timedelta(seconds=15), "version": 0},
        {"lease_until": NOW - DAY, "due_at": NOW - DAY},  # its holder crashed
        {"value": "", "rejected_version": 3, "due_at": NOW},  # healed already
    ],
)
def test_oddities__what_our_code_writes_is_not_odd(changes):
    assert found(good(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"due_at": None}, "it is never due"),
        ({"due_at": NOW + 2 * HOUR}, "it is due later than its token lives"),
        ({"due_at": NOW + HOUR, "version": 0}, "it is due later than its token lives"),
        ({"due_at": NOW + 2 * DAY, "failures": 3}, "it is due later than its token lives"),
        ({"due_at": NOW + HOUR, "unanswered_since": NOW - HOUR}, "it is due later than its token lives"),
        ({"lease_until": NOW + HOUR}, "its lease ends later than any we grant"),
        ({"expires_at": NOW + 40 * DAY}, "its token is said to live for more than a month"),
        ({"issued_for": "wxbefore", "due_at": NOW + HOUR}, "it is due later than its token lives"),
        ({"value": ""}, "its token is empty"),
        ({"usage": []}, "its count of calls is garbled"),
        ({"usage": {"day": "2026-03-02", "stable": -1}}, "its count of calls is garbled"),
        ({"usage": {"day": "2026-03-02", "stable": "4"}}, "its count of calls is garbled"),
        ({"usage": {"day": 1}}, "its count of calls is garbled"),
        ({"usage": {"stable": True}}, "its count of calls is garbled"),
    ],
)
def test_oddities__each_is_named_and_cured(changes, what):
    token = good(**changes)
    assert found(token) == [what]
    for oddity in oddities(token, NOW, lease=15, overlap=300):
        for name, value in oddity.cure.items():
            setattr(token, name, value)
    assert [name for name in found(token) if "month" not in name] == []


# -- in the database


def test_odd_tokens__a_life_of_refreshes_leaves_none(classic, weixin, time):
    """Whatever the engine writes, this must not call odd."""
    for step in range(40):
        weixin.outage(step % 7 == 3)
        renew(classic)
        assert list(odd_rows.odd_tokens(time.now())) == []
        time.pass_until(max(row(classic).due_at, time.now()))


def test_odd_tokens__inactive_accounts_are_never_due(account, time):
    account.is_active = False
    account.save()
    assert row(account).due_at is None
    assert list(odd_rows.odd_tokens(time.now())) == []


def test_heal__brings_the_row_back_to_beat(account, time):
    get_access_token()
    Token.objects.update(due_at=None, lease_owner="gone", lease_until=time.now() + DAY, usage="x")
    ((token, _found),) = odd_rows.odd_tokens(time.now())
    revision = token.revision
    assert odd_rows.heal(token)
    healed = row(account)
    assert (healed.due_at, healed.lease_owner, healed.lease_until, healed.usage) == (time.now(), "", None, {})
    assert healed.revision == revision + 1
    assert list(Token.objects.due(time.now())) == [healed]


def test_heal__an_empty_token_is_not_served_again(account, weixin, time):
    get_access_token()
    Token.objects.update(value="")
    ((token, _found),) = odd_rows.odd_tokens(time.now())
    odd_rows.heal(token)
    assert weixin.is_valid(get_access_token())


def test_heal__whoever_wrote_the_row_meanwhile_wins(account, time):
    get_access_token()
    time.pass_(60)
    Token.objects.update(due_at=None)
    ((token, _found),) = odd_rows.odd_tokens(time.now())
    renew(account, Reason.COMMAND)
    due_at = row(account).due_at
    assert not odd_rows.heal(token)
    assert row(account).due_at == due_at


def test_accounts_without_token__are_found_and_given_one(account, time):
    Account.objects.bulk_create([Account(appid="wxbulk", secret="x"), Account(appid="wxoff", is_active=False)])
    (found,) = odd_rows.accounts_without_token()
    assert found.appid == "wxbulk"
    odd_rows.give_token_row(found)
    assert odd_rows.accounts_without_token() == []
    assert row(found).due_at == time.now()


def test_longest_life__is_not_below_what_sources_accept():
    assert odd_rows.LONGEST_LIFE.total_seconds() > base.LONGEST_LIFE
