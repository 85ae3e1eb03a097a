"""Conditional writes: what another process wrote meanwhile is never overwritten unseen (R1, R2)."""

from __future__ import annotations

import pytest

from tests.conftest import row
from wechat_token.engine import rows
from wechat_token.engine.rows import Change
from wechat_token.models import Token


@pytest.fixture
def two(account):
    """The row as two processes have read it."""
    return row(account), row(account)


def test_claim__one_of_two_who_read_the_same_row(two):
    first, second = two
    assert rows.claim([Change(first, {"lease_owner": "first"})]) == [True]
    assert rows.claim([Change(second, {"lease_owner": "second"})]) == [False]
    assert Token.objects.get().lease_owner == first.lease_owner == "first"
    assert second.lease_owner == ""


def test_store__only_while_the_lease_is_held(two):
    first, second = two
    rows.claim([Change(first, {"lease_owner": "first"})])
    second.revision = first.revision  # it has seen the row as it is, and yet holds no lease
    assert rows.store([Change(second, {"error": "late"}, "second")]) == [False]
    assert rows.store([Change(first, {"error": "mine"}, "first")]) == [True]
    assert Token.objects.get().error == "mine"


def test_write__brings_the_row_in_memory_up_to_date(two):
    first, _ = two
    for number in range(3):
        assert rows.write(first, {"failures": number})
    assert (first.failures, first.revision) == (2, Token.objects.get().revision)
