"""The pure decisions before a request: what a row says, whether to fetch, quotas, complaints, claim and intent.

Examples one can read, and properties that hold for any row, time and chance.
"""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from tests.schedule_rows import (
    LEASE,
    LIMIT,
    NOW,
    OVERLAP,
    ago,
    ahead,
    for_any,
    good,
    maybe_moments,
    moments,
    reasons,
    rows,
    written,
)
from wechat_token import schedule
from wechat_token.models import Token
from wechat_token.platforms import ForcedRefreshRule
from wechat_token.schedule import Action, Reason, seconds

GRACE = 15.0
RULE = ForcedRefreshRule(per_day=20, min_gap=30.0)


def decide(token: Token, now: dt.datetime = NOW, reason: Reason = Reason.SCHEDULE) -> schedule.Decision:
    return schedule.decide(
        token, now, reason=reason, lease=LEASE, overlap=OVERLAP, endpoint="classic", daily_limit=LIMIT
    )


# -- what a row says about its token


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({}, ahead(3600)),
        ({"version": 0}, None),
        ({"expires_at": None}, None),
        ({"rejected_version": 5}, None),
        ({"rejected_version": 4}, ahead(3600)),
        ({"unanswered_since": ago(100)}, ahead(200)),
        ({"unanswered_since": NOW, "expires_at": ahead(60)}, ahead(60)),
    ],
)
def test_usable_until__examples(fields, end):
    assert schedule.usable_until(good(**fields), OVERLAP) == end


@for_any(rows)
def test_usable_until__never_past_its_life_nor_a_doubt_and_the_overlap(token):
    end = schedule.usable_until(token, OVERLAP)
    if end is not None:
        assert end <= token.expires_at
        assert token.unanswered_since is None or end <= token.unanswered_since + seconds(OVERLAP)


@for_any(rows, moments)
def test_is_usable__only_before_the_end(token, now):
    end = schedule.usable_until(token, OVERLAP)
    assert schedule.is_usable(token, now, OVERLAP) == (end is not None and now < end)


@pytest.mark.parametrize(
    ("due", "end", "told"),
    [(2520, 3600, 2820), (3500, 3600, 3600), (-100, 3600, 300), (None, 3600, 300), (2520, 100, 100)],
)
def test_reliable_until__examples(due, end, told):
    """R12: the token's own end, or the planned renewal and the overlap after it."""
    assert schedule.reliable_until(ahead(end), None if due is None else ahead(due), NOW, OVERLAP) == ahead(told)


@for_any(moments, maybe_moments, moments)
def test_reliable_until__never_more_than_can_be_relied_on(end, due, now):
    told = schedule.reliable_until(end, due, now, OVERLAP)
    assert told <= end
    assert told <= max(due or now, now) + seconds(OVERLAP)


def test_callers_turn__after_the_grace():
    assert schedule.callers_turn(NOW, ahead(1080), GRACE) == ahead(15)


def test_callers_turn__without_a_due_time_never():
    assert schedule.callers_turn(None, ahead(1080), GRACE) is None


@for_any(moments, maybe_moments, st.floats(0, 1000))
def test_callers_turn__not_before_it_is_due_and_well_before_the_end(due, end, grace):
    turn = schedule.callers_turn(due, end, grace)
    assert due <= turn <= due + seconds(grace)
    if end is not None and end > due:
        assert turn - due <= (end - due) / 4 + dt.timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("until", "live"), [(None, False), (-1, False), (0, False), (1, True), (15, True), (30, True), (31, False)]
)
def test_lease_is_live__only_one_that_we_could_have_granted(until, live):
    token = good(lease_until=None if until is None else ahead(until))
    assert schedule.lease_is_live(token, NOW, LEASE) is live


# -- whether to fetch


def test_decide__not_before_it_is_due():
    assert decide(good()) == schedule.Decision(Action.NOT_DUE, ahead(2520))


def test_decide__fetches_what_is_due():
    assert decide(good(due_at=NOW)).action is Action.FETCH


def test_decide__somebody_is_at_it():
    token = good(due_at=NOW, lease_owner="somebody", lease_until=ahead(10))
    assert decide(token) == schedule.Decision(Action.BUSY, ahead(10))


def test_decide__a_person_may_ask_early_but_not_twice():
    assert decide(good(), reason=Reason.ADMIN).action is Action.FETCH
    assert decide(good(sent_at=ago(1)), reason=Reason.COMMAND).action is Action.NOT_DUE


def test_decide__no_token_is_due_whatever_the_row_says():
    assert decide(good(version=0, expires_at=None), reason=Reason.CALLER).action is Action.FETCH


def test_decide__a_failure_sets_the_pace_even_without_a_token():
    assert decide(good(version=0, failures=3), reason=Reason.CALLER).action is Action.NOT_DUE


def test_decide__a_backoff_longer_than_any_is_a_leftover():
    token = good(version=0, failures=1, due_at=NOW + dt.timedelta(days=400))
    assert decide(token, reason=Reason.CALLER).action is Action.FETCH


@pytest.mark.parametrize(("used", "action"), [(1899, Action.FETCH), (1900, Action.LIMITED), (5000, Action.LIMITED)])
def test_decide__own_guard_is_below_wechats(used, action):
    token = good(due_at=NOW, usage={"day": schedule.beijing_day(NOW), "classic": used})
    assert decide(token).action is action


@for_any(rows, moments, reasons)
def test_decide__never_a_second_request_under_a_live_lease(token, now, reason):
    decision = decide(token, now, reason)
    assert (decision.action is Action.BUSY) == schedule.lease_is_live(token, now, LEASE)


@for_any(rows, moments, reasons)
def test_decide__fetches_only_within_the_guard(token, now, reason):
    if decide(token, now, reason).action is Action.FETCH:
        assert schedule.calls_today(token, "classic", now) < LIMIT * schedule.GUARD_SHARE


@for_any(rows, moments)
def test_decide__never_waits_without_a_time(token, now):
    decision = decide(token, now)
    assert decision.action is Action.FETCH or decision.until > now


@for_any(rows, moments)
def test_decide__no_token_and_no_failure_is_never_left_waiting(token, now):
    assume(not schedule.is_usable(token, now, OVERLAP) and not token.failures)
    assert decide(token, now, Reason.CALLER).action is not Action.NOT_DUE


# -- quotas


@for_any(rows, moments)
def test_calls_today__is_a_number_whatever_the_row_holds(token, now):
    assert isinstance(schedule.calls_today(token, "classic", now), int)


@for_any(rows, moments)
def test_counted__is_one_more(token, now):
    before = schedule.calls_today(token, "classic", now)
    token.usage = schedule.counted(token, "classic", now)
    assert schedule.calls_today(token, "classic", now) == before + 1


def test_counted__keeps_the_other_endpoints_of_the_day():
    token = good(usage={"day": schedule.beijing_day(NOW), "stable": 7})
    assert schedule.counted(token, "stable_forced", NOW) == {
        "day": "2026-03-02", "stable": 7, "stable_forced": 1,
    }  # fmt: skip


def test_counted__a_new_day_begins_at_midnight_in_beijing():
    token = good(usage={"day": "2026-03-02", "classic": 1900})
    midnight = dt.datetime(2026, 3, 2, 16, 0, tzinfo=dt.UTC)
    assert schedule.calls_today(token, "classic", midnight - seconds(1)) == 1900
    assert schedule.calls_today(token, "classic", midnight) == 0
    assert schedule.next_beijing_midnight(midnight - seconds(1)) == midnight


@for_any(moments)
def test_next_beijing_midnight__is_ahead_and_within_a_day(now):
    midnight = schedule.next_beijing_midnight(now)
    assert now < midnight <= now + dt.timedelta(days=1)
    assert schedule.beijing_day(midnight) > schedule.beijing_day(now)


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({}, NOW),
        ({"forced_at": ago(29)}, ahead(1)),
        ({"forced_at": ago(31)}, NOW),
        ({"forced_at": ahead(3600)}, NOW),  # a clock that jumped: no reason to wait for an hour
        ({"usage": {"day": "2026-03-02", "stable_forced": 20}}, dt.datetime(2026, 3, 2, 16, 0, tzinfo=dt.UTC)),
        ({"usage": {"day": "2026-03-01", "stable_forced": 20}}, NOW),
    ],
)
def test_forced_refresh_allowed_at__examples(fields, allowed):
    assert schedule.forced_refresh_allowed_at(good(**fields), RULE, "stable_forced", NOW) == allowed


@for_any(st.lists(st.floats(0, 7200), max_size=80))
def test_forced_refresh_allowed_at__twenty_a_day_and_thirty_seconds_apart(waits):
    token, now, sent = good(), NOW, []
    for wait in waits:
        now += seconds(wait)
        if schedule.forced_refresh_allowed_at(token, RULE, "stable_forced", now) <= now:
            written(
                token,
                schedule.intent(token, now, lease=LEASE, endpoint="stable_forced", displaces=True, forced=True),
            )
            sent.append(now)
    assert all(later - earlier >= seconds(30) for earlier, later in pairwise(sent))
    days = [schedule.beijing_day(moment) for moment in sent]
    assert all(days.count(day) <= 20 for day in days)


# -- complaints


def test_complaint_allowance__a_burst_at_first():
    assert schedule.complaint_allowance(good(), NOW) == schedule.COMPLAINT_BURST


def test_complaint_allowance__refills_one_in_twenty_minutes():
    token = good(complaint_allowance=0.0, complained_at=ago(1200))
    assert schedule.complaint_allowance(token, NOW) == pytest.approx(1)
    assert schedule.next_complaint_at(token, NOW) == NOW


def test_complaint_allowance__a_clock_set_back_takes_nothing_away():
    assert schedule.complaint_allowance(good(complaint_allowance=3.0, complained_at=ahead(900)), NOW) == 3


@for_any(st.lists(st.floats(0, 3000), max_size=200))
def test_complaint_allowance__a_day_costs_the_burst_and_the_refill(waits):
    token, now, probes = good(), NOW, 0
    for wait in waits:
        now += seconds(wait)
        if schedule.complaint_allowance(token, now) >= 1:
            written(token, schedule.complaint_spent(token, now))
            probes += 1
    assert probes <= schedule.COMPLAINT_BURST + (now - NOW).total_seconds() * schedule.COMPLAINT_REFILL + 1e-6


@for_any(rows, moments)
def test_next_complaint_at__is_when_the_allowance_is_there(token, now):
    now = max(now, token.complained_at or now)
    at = schedule.next_complaint_at(token, now)
    assert at >= now
    assert schedule.complaint_allowance(token, at + seconds(1)) >= 1


@pytest.mark.parametrize(("since", "answers"), [(0, True), (9.9, True), (10, False), (-1, False)])
def test_recently_accepted__for_ten_seconds(since, answers):
    assert schedule.recently_accepted(good(accepted_at=ago(since)), NOW) is answers


def test_recently_accepted__not_once_it_was_refused():
    assert not schedule.recently_accepted(good(accepted_at=NOW, rejected_version=5), NOW)


# -- claim and intent


def test_claim__falls_due_again_when_the_lease_ends():
    token = written(good(), schedule.claim(good(), NOW, owner="me", lease=LEASE))
    assert (token.lease_owner, token.lease_until, token.due_at) == ("me", ahead(15), ahead(15))
    assert decide(token, ahead(14.9)).action is Action.BUSY
    assert decide(token, ahead(15)).action is Action.FETCH


def test_claim__of_a_crashed_holder_takes_its_request_for_lost():
    token = good(lease_owner="dead", lease_until=ago(1), sent_at=ago(16), unanswered_since=ago(16))
    assert schedule.claim(token, NOW, owner="me", lease=LEASE)["lost_at"] == ago(16)


def test_claim__of_a_holder_that_sent_nothing_loses_nothing():
    token = good(lease_owner="dead", lease_until=ago(1))
    assert "lost_at" not in schedule.claim(token, NOW, owner="me", lease=LEASE)


@for_any(rows, st.booleans(), st.booleans())
def test_intent__doubts_the_token_if_the_request_displaces_it(token, displaces, forced):
    since = token.unanswered_since
    written(token, schedule.intent(token, NOW, lease=LEASE, endpoint="classic", displaces=displaces, forced=forced))
    assert token.sent_at == NOW
    assert token.due_at == token.lease_until == ahead(LEASE)
    # The first request without an answer counts, not the latest.
    assert token.unanswered_since == (since or (NOW if displaces else None))
    if forced:
        assert token.forced_at == NOW
