"""The birth rule (R23), pure: how long a repeated value is believed, and when its issuer is asked again."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import strategies as st

from tests import births
from tests.schedule_rows import NOW, ago, ahead, chances, for_any, maybe_moments, shop, usages, written
from wechat_token.engine import birth, schedule
from wechat_token.models import Token

LIFE = 7200


def held(**fields: object) -> Token:
    """A ticket that was first had an hour ago, seconds after the issuer's last answer with another one."""
    usual = {
        "account": shop(), "kind": "jsapi_ticket", "version": 5, "value": "old", "issued_at": ago(3600), "life": LIFE,
        "answered_at": ago(3600), "born_after": ago(3620), "sent_at": NOW, "expires_at": ahead(3580),
    }  # fmt: skip
    return Token(**usual | fields)


def answer(
    token: Token, *, same: bool = True, life: int = LIFE, digest: str = "new", chance: float = 0.5,
    daily_limit: int = 10_000, is_ours: bool = True,
) -> Token:  # fmt: skip
    fields = birth.answered(
        token, same=same, digest=digest, life=life, now=NOW, endpoint="ticket_jsapi", chance=chance,
        daily_limit=daily_limit, is_ours=is_ours,
    )  # fmt: skip
    return written(token, fields)


def test_answered__the_same_value_is_not_born_again():
    token = answer(held())
    assert token.expires_at == ahead(3580)
    assert ahead(3560) < token.due_at < token.expires_at


def test_answered__another_value_was_not_born_before_the_last_answer_with_the_former():
    token = answer(held(answered_at=ago(25)), same=False)
    assert (token.born_after, token.expires_at) == (ago(25), ahead(LIFE - 25))


@pytest.mark.parametrize("fields", [{"answered_at": None, "life": 0}, {"former_digest": "new", "answered_at": ago(25)}])
def test_answered__of_unknown_birth_it_is_good_for_moments(fields):
    """The first one ever, and one that was there before."""
    token = answer(held(**fields), same=False)
    assert (token.born_after, token.expires_at) == (None, ahead(30))
    assert ahead(24) < token.due_at < ahead(30)


def test_answered__what_the_row_remembers_of_another_account_or_cannot_read_tells_no_birth():
    token = answer(held(answered_at=ago(25)), same=False, is_ours=False)
    assert (token.born_after, token.expires_at) == (None, ahead(30))


def test_answered__a_rest_is_believed():
    token = answer(held(born_after=None), life=5000)
    assert token.expires_at == ahead(5000)


@pytest.mark.parametrize(
    ("first_had", "good_for"),
    [
        (3600, 30),  # it may die at any time
        (LIFE - 12, 12),  # at its end it is asked for again, and not before
        (LIFE, 0.5),  # just beyond: the request may have arrived a moment early
        (LIFE + 8, 8),
        (LIFE + 60, 30),
        (LIFE + 599, 30),
        (LIFE + 600, 300),
    ],
)
def test_answered__in_doubt(first_had, good_for):
    token = answer(held(born_after=None, issued_at=ago(first_had)))
    assert token.expires_at == ahead(good_for)
    assert token.due_at <= token.expires_at


def test_answered__the_last_calls_of_a_day_are_spread_over_it():
    """A ticket that never changes, an issuer of odd habits: R16."""
    used = birth.CALLS_A_DAY - 10
    usage = {"day": schedule.beijing_day(NOW), "ticket_jsapi": used}
    token = answer(held(born_after=None, issued_at=ago(LIFE + 9000), usage=usage))
    assert (token.expires_at - NOW) == (schedule.next_beijing_midnight(NOW) - NOW) / 10


@pytest.mark.parametrize(
    ("limit", "first_had", "good_for"), [(10_000, 3600, 30), (10_000, LIFE + 8, 8), (600, 3600, 3 * 60 * 60)]
)
def test_answered__one_that_may_be_dead_is_asked_for_beyond_these_calls(limit, first_had, good_for):
    """After two lost answers in a day, say; as long as that is not half of what the issuer allows."""
    usage = {"day": schedule.beijing_day(NOW), "ticket_jsapi": birth.CALLS_A_DAY + 50}
    token = answer(held(born_after=None, issued_at=ago(first_had), usage=usage), daily_limit=limit)
    assert token.expires_at == min(ahead(good_for), ahead(LIFE))


def test_answered__two_in_turn_are_spread():
    usage = {"day": schedule.beijing_day(NOW), "ticket_jsapi": birth.CALLS_A_DAY}
    token = answer(held(former_digest="new", usage=usage), same=False)
    assert token.expires_at > ahead(1800)


@for_any(
    st.booleans(), st.integers(1, 30 * 86_400), st.integers(0, 30 * 86_400), maybe_moments, maybe_moments,
    maybe_moments, chances, usages, st.sampled_from(["new", "old", ""]),
)  # fmt: skip
def test_answered__is_believed_for_what_it_tells_at_most(same, life, told, first, born, last, chance, usage, digest):
    """Whatever stands in the row; and whoever is due is due while it is good, but not before now."""
    token = held(
        life=told, issued_at=first, born_after=born, answered_at=last, usage=usage or {}, former_digest="old"
    )  # fmt: skip
    token = answer(token, same=same, life=life, digest=digest, chance=chance)
    assert NOW < token.expires_at <= ahead(life)
    assert NOW <= token.due_at <= token.expires_at


@for_any(st.floats(0, 7200), st.floats(0, 7200), chances)
def test_answered__never_beyond_the_latest_birth_but_for_moments(since_first, before, chance):
    """However often it is repeated: past its latest possible end it is good for half a minute at most."""
    token = held(issued_at=ago(since_first), born_after=ago(since_first + before))
    certain = token.born_after + dt.timedelta(seconds=LIFE)
    token = answer(token, chance=chance)
    assert token.expires_at <= max(certain, ahead(30))


@pytest.mark.parametrize(
    ("world", "other", "dead", "stretch"), [("A", False, 5.0, 30.0), ("A", True, 30.0, 30.0), ("B", True, 0.0, 0.0)]
)
def test_births__seconds_of_a_dead_ticket(world, other, dead, stretch):
    runs = [births.run(world, days=4, seed=f"{world}-{n}", other=other) for n in range(6)]
    assert sum(run.dead for run in runs) / (4 * len(runs)) <= dead
    assert max(run.longest for run in runs) <= stretch
    assert max(run.busiest for run in runs) <= 320


def test_births__one_ticket_for_ever_costs_at_most_320_calls_a_day():
    assert 200 < births.run("stuck", days=3, seed="1").busiest <= 320
