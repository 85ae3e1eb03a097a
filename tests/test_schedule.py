"""The pure decisions before a request: what a row says, whether to fetch, quotas, complaints, claim and intent.

Examples one can read, and properties that hold for any row, time and chance.
"""

from __future__ import annotations

import datetime as dt
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from tests.schedule_rows import (
    EDITION,
    LEASE,
    LIMIT,
    NOW,
    OVERLAP,
    ago,
    ahead,
    clients,
    for_any,
    good,
    maybe_moments,
    moments,
    reasons,
    rows,
    shop,
    written,
)
from wechat_token.engine import complaints, schedule
from wechat_token.engine.schedule import Action, Reason, seconds
from wechat_token.models import Token
from wechat_token.platforms import ForcedRefreshRule

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
        ({"issued_for": "wxanother"}, None),  # another account's, whose AppID this one had before
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


def test_is_outdated__once_the_account_was_edited():
    assert not schedule.is_outdated(good())
    assert schedule.is_outdated(good(account=shop(edition=EDITION + 1)))


def test_planned_at__of_an_outdated_token_is_when_its_account_was_edited_at_the_latest():
    edited = shop(edition=int(ago(60).timestamp() * 1000))
    assert schedule.planned_at(good()) == ahead(2520)
    assert schedule.planned_at(good(account=edited)) == ago(60)
    assert schedule.planned_at(good(account=edited, due_at=ago(90))) == ago(90)
    assert schedule.planned_at(good(account=edited, due_at=None)) == ago(60)


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


@pytest.mark.parametrize("reason", [Reason.SCHEDULE, Reason.CALLER, Reason.ADMIN, Reason.COMMAND])
def test_decide__an_edited_account_is_due_whatever_was_planned(reason):
    """R10: the streak and the plan were of other credentials."""
    edited = good(edition=EDITION - 1, failures=3, due_at=ahead(900), sent_at=ago(1))
    assert decide(edited, reason=reason).action is Action.FETCH


def test_decide__an_edit_does_not_go_before_who_is_at_it():
    edited = good(edition=EDITION - 1, lease_owner="somebody", lease_until=ahead(10))
    assert decide(edited).action is Action.BUSY


def test_spared_until__true_complaints_share_the_reserve_with_the_rest_of_the_day():
    """R33: another system that ends our tokens again and again does not leave us without any."""
    day = {"day": schedule.beijing_day(NOW)}
    ask = partial(schedule.spared_until, now=NOW, endpoint="classic", daily_limit=2000)
    assert ask(good(usage={**day, "classic": 1699})) is None
    midnight = schedule.next_beijing_midnight(NOW)
    first, later = ask(good(usage={**day, "classic": 1700})), ask(good(usage={**day, "classic": 1890}))
    assert NOW < first < later < midnight
    assert ask(good(usage={**day, "classic": 1900})) == midnight


@pytest.mark.parametrize("reason", [Reason.ADMIN, Reason.COMMAND])
def test_decide__hands_leave_a_reserve_for_the_schedule(reason):
    """R33: a tenth of the day's calls, whoever else uses up the rest."""
    token = good(due_at=NOW, usage={"day": schedule.beijing_day(NOW), "classic": 1700})
    assert decide(token, reason=reason).action is Action.LIMITED
    assert decide(token, reason=Reason.SCHEDULE).action is Action.FETCH
    assert decide(token, reason=Reason.CALLER).action is Action.FETCH


@for_any(st.integers(1, 500_000), reasons)
def test_calls_allowed__below_wechats_limit_and_above_nothing(limit, reason):
    allowed = schedule.calls_allowed(limit, reason)
    assert allowed <= schedule.calls_allowed(limit, Reason.SCHEDULE) <= limit * schedule.GUARD_SHARE
    assert allowed >= 1 or limit < 3


@for_any(st.integers(60, 500_000))
def test_calls_allowed__the_reserve_is_a_tenth_and_thirty_at_least(limit):
    reserve = schedule.calls_allowed(limit, Reason.SCHEDULE) - schedule.calls_allowed(limit, Reason.COMPLAINT)
    assert reserve >= max(limit // 10, 30)


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
    if decide(token, now, reason).action is Action.FETCH and reason is not Reason.COMPLAINT:  # which only probes
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


def charged(left: float, since: dt.datetime, **others: list[float]) -> Token:
    """A row on which the client "till" has an allowance of ``left`` since then."""
    return good(complaints={"till": [left, since.timestamp()], **others})


def test_complaint_allowance__a_burst_at_first():
    assert complaints.complaint_allowance(good(), "till", NOW) == complaints.COMPLAINT_BURST


def test_complaint_allowance__refills_one_in_twenty_minutes():
    token = charged(0.0, ago(1200))
    assert complaints.complaint_allowance(token, "till", NOW) == pytest.approx(1)
    assert complaints.next_complaint_at(token, "till", NOW) == NOW


def test_complaint_allowance__a_clock_set_back_takes_nothing_away():
    assert complaints.complaint_allowance(charged(3.0, ahead(900)), "till", NOW) == 3


def test_complaint_allowance__is_each_clients_own():
    """R33: who complains falsely costs only itself."""
    assert complaints.complaint_allowance(charged(0.0, NOW), "app", NOW) == complaints.COMPLAINT_BURST


def test_accepted__charges_the_client_that_was_wrong_and_nobody_else():
    token = charged(5.0, NOW, app=[4.0, NOW.timestamp()])
    written(token, complaints.accepted(token, "till", NOW))
    assert complaints.complaint_allowance(token, "till", NOW) == 4
    assert complaints.complaint_allowance(token, "app", NOW) == 4


def test_accepted__remembers_few_clients_the_latest_among_them():
    token = good()
    for number in range(2 * complaints.CLIENTS_REMEMBERED):
        written(token, complaints.accepted(token, f"client {number}", NOW + seconds(number)))
    assert len(token.complaints) == complaints.CLIENTS_REMEMBERED
    assert f"client {2 * complaints.CLIENTS_REMEMBERED - 1}" in token.complaints


@for_any(st.lists(st.floats(0, 3000), max_size=200))
def test_complaint_allowance__a_day_costs_the_burst_and_the_refill(waits):
    token, now, probes = good(), NOW, 0
    for wait in waits:
        now += seconds(wait)
        if complaints.complaint_allowance(token, "till", now) >= 1:
            written(token, complaints.accepted(token, "till", now))
            probes += 1
    # What has been refilled but for half a complaint is forgiven with its client.
    most = complaints.COMPLAINT_BURST + (now - NOW).total_seconds() * complaints.COMPLAINT_REFILL
    assert probes <= most + 1e-6


@for_any(rows, clients, moments)
def test_next_complaint_at__is_when_the_allowance_is_there(token, client, now):
    charge = token.complaints.get(client) if isinstance(token.complaints, dict) else None
    if isinstance(charge, list) and len(charge) == 2 and charge[0] is not None:
        now = max(now, dt.datetime.fromtimestamp(charge[1], dt.UTC))
    at = complaints.next_complaint_at(token, client, now)
    assert at >= now
    assert complaints.complaint_allowance(token, client, at + seconds(1)) >= 1


@pytest.mark.parametrize(("since", "answers"), [(0, True), (1.9, True), (2, False), (-9, False)])
def test_is_judged__for_two_seconds_after_wechat_accepted_it(since, answers):
    token = written(good(), complaints.accepted(good(), "till", ago(since)))
    assert complaints.is_judged(token, NOW) is answers


@pytest.mark.parametrize(("since", "answers"), [(0, True), (4.9, True), (5, False)])
def test_is_judged__for_five_seconds_after_wechat_did_not_tell(since, answers):
    assert complaints.is_judged(written(good(), complaints.undecided(ago(since))), NOW) is answers


def test_is_judged__not_once_it_was_refused():
    token = written(good(), complaints.accepted(good(), "till", NOW))
    assert not complaints.is_judged(written(token, {"rejected_version": 5}), NOW)
    token = written(good(), complaints.accepted(good(), "till", NOW))
    assert not complaints.is_judged(written(token, schedule.rejected(token, NOW)), NOW)


@for_any(rows, moments)
def test_undecided__changes_nothing_but_when_to_ask_again(token, now):
    """R29: cannot tell is not no."""
    assert set(complaints.undecided(now)) == {"probe_after"}


def test_refused__is_written_once_a_minute_and_news_for_ten():
    token = written(good(), complaints.refused(good(), NOW))
    assert complaints.refused(token, ahead(59)) == {}
    assert complaints.refused(token, ahead(60)) == {"complaints_refused_at": ahead(60)}
    assert complaints.refuses_complaints(token, ahead(599))
    assert not complaints.refuses_complaints(token, ahead(600))
    assert not complaints.refuses_complaints(good(), NOW)


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


def test_intent__clears_the_streak_of_an_edited_account():
    """R10: the failures were of other credentials; the token in hand stays."""
    token = good(edition=EDITION - 1, failures=7, error_class="human", errcode=40125, alerted_at=ago(9))
    written(token, schedule.claim(token, NOW, owner="me", lease=LEASE))
    assert schedule.is_outdated(token)  # a complaint's claim only probes: the edit is not dealt with yet
    written(token, schedule.intent(token, NOW, lease=LEASE, endpoint="stable", displaces=False, forced=False))
    assert (token.failures, token.error_class, token.errcode, token.alerted_at) == (0, "", None, None)
    assert (token.edition, token.version) == (EDITION, 5)


def test_claim__keeps_the_streak_of_an_account_nobody_edited():
    assert "failures" not in schedule.claim(good(failures=7), NOW, owner="me", lease=LEASE)


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
