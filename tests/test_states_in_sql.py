"""What a row says, said by the database: the same as in Python, for any row."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.schedule_rows import EDITION, LEASE, NOW, OVERLAP, REF, ahead
from wechat_token.diagnosis import states
from wechat_token.engine import schedule
from wechat_token.exceptions import ErrorClass
from wechat_token.models import Account, Token

pytestmark = pytest.mark.django_db

# Near the edges of the rules, on them, and anywhere.
edges = [0, OVERLAP, -OVERLAP, 2 * LEASE, states.OVERDUE_AFTER, -states.OVERDUE_AFTER]
offsets = st.one_of(
    st.sampled_from([edge + step for edge in edges for step in (-1e-6, 0, 1e-6)]),
    st.integers(-100_000, 100_000),
)
maybe_moments = st.none() | offsets.map(ahead)
stored = st.fixed_dictionaries(
    {
        "issued_for": st.sampled_from([REF, REF, REF, "", "wxanother", REF.upper()]),
        "edition": st.sampled_from([EDITION, 6]),
        "version": st.integers(0, 2), "rejected_version": st.integers(0, 2),
        "expires_at": maybe_moments, "due_at": maybe_moments, "unanswered_since": maybe_moments,
        "lease_until": maybe_moments, "lease_owner": st.sampled_from(["", "somebody"]),
        "asked_at": maybe_moments, "waits_for": st.sampled_from(["", f"{REF} access_token"]),
        "failures": st.integers(0, 2), "error_class": st.sampled_from(["", *(c.value for c in ErrorClass)]),
    }
)  # fmt: skip


def for_stored_rows(test):
    """Rows as a table can hold them; the test's own row is written anew for each example."""
    health = [HealthCheck.function_scoped_fixture]
    given_any = given(fields=stored, active=st.booleans())
    return settings(deadline=None, max_examples=60, suppress_health_check=health)(given_any(test))


@pytest.fixture
def row():
    account = Account.objects.create(appid=REF, secret="s", edition=EDITION)

    def row(fields, active: bool = True) -> Token:
        Account.objects.filter(pk=account.pk).update(is_active=active)
        Token.objects.update(**fields)
        return Token.objects.select_related("account").get()

    return row


@for_stored_rows
def test_usable__is_what_the_schedule_calls_usable(row, fields, active):
    token = row(fields, active)
    assert Token.objects.usable(NOW, OVERLAP).exists() is schedule.is_usable(token, NOW, OVERLAP)


@for_stored_rows
def test_usable__the_others_are_left_over(row, fields, active):
    """Negated it holds as well: no row falls between, whatever is NULL."""
    token = row(fields, active)
    unusable = Token.objects.exclude(pk__in=Token.objects.usable(NOW, OVERLAP))
    assert unusable.exists() is not schedule.is_usable(token, NOW, OVERLAP)


@for_stored_rows
def test_in_state__is_what_is_reported(row, fields, active):
    token = row(fields, active)
    reported = states.report(token, NOW, overlap=OVERLAP, lease=LEASE).state
    assert told_states() == [reported]


def told_states():
    return [
        state
        for state in states.State
        if states.in_state(Token.objects.all(), [state], NOW, overlap=OVERLAP, lease=LEASE).exists()
    ]


@pytest.mark.parametrize("state", list(states.State))
def test_in_state__has_a_row_of_every_state(row, state):
    """The examples above reach every word: none of them is dead."""
    good = {"issued_for": REF, "version": 2, "expires_at": ahead(900), "due_at": ahead(600)}
    late = NOW - dt.timedelta(hours=1)
    fields, active = {
        "inactive": (good, False),
        "dead": ({"version": 2, "issued_for": "wxanother"}, True),
        "waiting": ({}, True),
        "held_up": ({"waits_for": f"{REF} access_token", "due_at": ahead(60)}, True),
        "asleep": ({"asked_at": late, "due_at": None}, True),
        "refreshing": ({"lease_until": ahead(5)}, True),
        "attention": ({**good, "failures": 1, "error_class": "human"}, True),
        "retrying": ({**good, "failures": 1, "error_class": "transient"}, True),
        "overdue": ({**good, "due_at": late}, True),
        "good": (good, True),
    }[state.value]
    row(fields, active)
    assert told_states() == [state]
