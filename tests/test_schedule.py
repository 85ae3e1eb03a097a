"""The pure decisions: examples one can read, and properties that hold for any row, time and chance."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wechat_token import schedule
from wechat_token.exceptions import ErrorClass, UpstreamError
from wechat_token.models import Account, Token
from wechat_token.platforms import ForcedRefreshRule, Issued, Renewal
from wechat_token.platforms.official_account import OfficialAccountAccessToken
from wechat_token.redaction import Secret
from wechat_token.schedule import Action, Reason, seconds

NOW = dt.datetime(2026, 3, 2, 4, 0, tzinfo=dt.UTC)
LEASE, OVERLAP, GRACE, LIMIT = 15.0, 300.0, 15.0, 2000
RULE = ForcedRefreshRule(per_day=20, min_gap=30.0)
SOURCE = OfficialAccountAccessToken()


def ago(value: float) -> dt.datetime:
    return NOW - seconds(value)


def ahead(value: float) -> dt.datetime:
    return NOW + seconds(value)


def good(**fields: Any) -> Token:
    """A row an hour into a life of two, due when its lead begins."""
    usual: dict[str, Any] = {
        "version": 5, "value": "old", "issued_at": ago(3600), "sent_at": ago(3600), "expires_at": ahead(3600),
        "due_at": ahead(2520),
    }  # fmt: skip
    return Token(**usual | fields)


def written(token: Token, fields: schedule.Fields) -> Token:
    for name, value in fields.items():
        setattr(token, name, value)
    return token


def decide(token: Token, now: dt.datetime = NOW, reason: Reason = Reason.SCHEDULE) -> schedule.Decision:
    return schedule.decide(
        token, now, reason=reason, lease=LEASE, overlap=OVERLAP, endpoint="classic", daily_limit=LIMIT
    )


def failure(
    error_class: ErrorClass = ErrorClass.TRANSIENT, *, lost: bool = False, retry_after: float | None = None
) -> UpstreamError:
    return UpstreamError("no", error_class=error_class, may_have_issued=lost, retry_after=retry_after)


# -- strategies: any row that could be in a table, and more

offsets = st.floats(-100_000, 100_000, allow_nan=False)
moments = offsets.map(ahead)
maybe_moments = st.none() | moments
chances = st.floats(0, 1, exclude_max=True)
classes = st.sampled_from(list(ErrorClass))
reasons = st.sampled_from(list(Reason))
lives = st.integers(1, 30 * 86_400)
usages = st.one_of(
    st.builds(
        lambda day, calls: {"day": schedule.beijing_day(NOW + dt.timedelta(days=day)), "classic": calls},
        st.integers(-1, 1), st.integers(0, 3000),
    ),
    st.sampled_from([{}, {"day": 7}, {"classic": "many"}, [], None, "nonsense", {"day": None, "classic": -1}]),
)  # fmt: skip
rows = st.builds(
    Token,
    account=st.just(Account(appid="wx0123456789abcdef")),
    version=st.integers(0, 5), value=st.just("old"), issued_at=maybe_moments, expires_at=maybe_moments,
    rejected_version=st.integers(0, 5), due_at=maybe_moments, lease_owner=st.sampled_from(["", "somebody"]),
    lease_until=maybe_moments, sent_at=maybe_moments, unanswered_since=maybe_moments, lost_at=maybe_moments,
    usage=usages, forced_at=maybe_moments, accepted_at=maybe_moments,
    complaint_allowance=st.none() | st.floats(-5, 20), complained_at=maybe_moments,
    failures=st.integers(0, 10_000), alerted_at=maybe_moments, foreign_refreshes=st.integers(0, 9),
)  # fmt: skip
failures = st.builds(failure, classes, lost=st.booleans(), retry_after=st.none() | st.floats(1, 86_400))


def for_any(*strategies: Any) -> Any:
    """``given``, without a time limit on each example: it would make the suite depend on the machine's load."""
    return lambda test: settings(deadline=None)(given(*strategies)(test))


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
    at = schedule.next_complaint_at(token, now)
    assert at >= now
    assume(token.complained_at is not None and token.complained_at <= now)
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


# -- the answer is in


def succeed(
    token: Token, life: int, *, same: bool = False, chance: float = 0.5, renewal: Renewal | None = None,
    now: dt.datetime = NOW,
) -> Token:  # fmt: skip
    renewal = renewal or SOURCE.renewal(Account(endpoint="classic"), life)
    issued = Issued(Secret("new"), life)
    return written(token, schedule.after_success(token, issued, same=same, now=now, renewal=renewal, chance=chance))


def test_after_success__a_new_token():
    token = succeed(good(sent_at=ago(2), unanswered_since=ago(2), lease_owner="me", failures=3), 7200)
    assert (token.version, token.value.reveal(), token.expires_at) == (6, "new", ahead(7198))
    assert (token.lease_owner, token.unanswered_since, token.failures) == ("", None, 0)


def test_after_success__the_life_counts_from_before_the_request():
    assert succeed(good(sent_at=ago(9)), 7200).expires_at == ahead(7191)


def test_after_success__the_same_token_keeps_its_version():
    token = succeed(good(sent_at=NOW, rejected_version=5), 400, same=True)
    assert (token.version, token.value.reveal(), token.rejected_version) == (5, "old", 0)


def test_after_success__a_lost_request_may_still_arrive():
    token = succeed(good(sent_at=NOW, unanswered_since=ago(12), lost_at=ago(12)), 7200)
    assert token.unanswered_since == NOW  # from here on it may be displaced
    assert token.due_at == ahead(schedule.SETTLE - 12)


def test_after_success__a_lost_request_has_settled():
    token = succeed(good(sent_at=NOW, unanswered_since=ago(31), lost_at=ago(31)), 7200)
    assert token.unanswered_since is None
    assert token.due_at > ahead(5000)


@for_any(rows, lives, chances, st.sampled_from(["stable", "classic"]))
def test_after_success__due_within_the_rule_and_before_the_end(token, life, chance, endpoint):
    token.sent_at, token.lost_at = ago(0.2), None
    renewal = SOURCE.renewal(Account(endpoint=endpoint), life)
    succeed(token, life, chance=chance, renewal=renewal)
    left = (token.expires_at - token.due_at).total_seconds()
    assert token.due_at > NOW
    assert left <= renewal.earliest + 1e-3
    if life > 60:
        assert left >= renewal.latest - 1e-3


@for_any(rows, lives, chances, st.booleans())
def test_after_success__ends_every_streak_and_the_lease(token, life, chance, same):
    version = token.version
    succeed(token, life, chance=chance, same=same)
    assert (token.failures, token.error_class, token.alerted_at, token.lease_owner) == (0, "", None, "")
    assert token.lease_until is None
    assert token.version == version + (not same)
    assert not (same and version and token.rejected_version == token.version)


@for_any(st.floats(0, 29.9), lives)
def test_after_success__trust_after_a_loss_is_for_the_overlap_and_repaired_in_time(since_loss, life):
    token = succeed(good(sent_at=NOW, unanswered_since=ago(since_loss), lost_at=ago(since_loss)), life)
    assert schedule.usable_until(token, OVERLAP) <= ahead(OVERLAP)
    assert token.due_at <= ahead(30)


def test_renewals__are_spread():
    """R6: accounts made together do not stay together."""
    dues = {succeed(good(sent_at=NOW), 7200, chance=n / 100).due_at for n in range(100)}
    assert len(dues) == 100
    assert max(dues) - min(dues) > seconds(200)


# -- the request failed


def fail(token: Token, error: UpstreamError, *, displaces: bool = True, chance: float = 0.5) -> Token:
    before = written(Token(), {f.attname: getattr(token, f.attname) for f in Token._meta.concrete_fields})
    written(token, schedule.intent(token, NOW, lease=LEASE, endpoint="classic", displaces=displaces, forced=False))
    return written(
        token,
        schedule.after_failure(token, before, error, displaces=displaces, now=NOW, overlap=OVERLAP, chance=chance),
    )


def test_after_failure__a_lost_answer_puts_the_token_in_doubt():
    token = fail(good(), failure(lost=True))
    assert (token.unanswered_since, token.lost_at) == (NOW, NOW)
    assert token.due_at <= ahead(schedule.REPAIR_WITHIN)


def test_after_failure__what_never_left_changes_nothing():
    token = fail(good(), failure())
    assert (token.unanswered_since, token.lost_at, token.failures) == (None, None, 1)


def test_after_failure__an_older_doubt_stays():
    assert fail(good(unanswered_since=ago(60), lost_at=ago(60)), failure()).unanswered_since == ago(60)


def test_after_failure__stable_loses_nothing():
    assert fail(good(), failure(lost=True), displaces=False).unanswered_since is None


@for_any(rows, failures, st.booleans(), chances)
def test_after_failure__is_always_visible_and_due_again(token, error, displaces, chance):
    count = token.failures
    fail(token, error, displaces=displaces, chance=chance)
    assert (token.failures, token.error_class) == (count + 1, error.error_class.value)
    assert token.failed_at == NOW
    assert token.lease_until is None
    assert NOW < token.due_at <= NOW + schedule.LONGEST_WAIT


@for_any(rows, chances)
def test_after_failure__a_loss_is_repaired_within_thirty_seconds(token, chance):
    """A beat tick of five seconds is still to be added."""
    assert fail(token, failure(lost=True), chance=chance).due_at <= ahead(25)


@for_any(rows, failures, chances)
def test_after_failure__no_failure_ever_improves_a_token(token, error, chance):
    before = schedule.usable_until(token, OVERLAP)
    fail(token, error, chance=chance)
    after = schedule.usable_until(token, OVERLAP)
    assert before is None or after is None or after <= before


# -- how long to wait (R10)


def delay(error: UpstreamError, *, failures: int = 0, left: float = 3600.0, chance: float = 0.5) -> float:
    return schedule.retry_delay(error, failures=failures, now=NOW, left=left, chance=chance)


@pytest.mark.parametrize(
    ("failures", "least", "most"), [(0, 1, 2), (1, 2, 4), (4, 16, 32), (9, 150, 300), (99, 150, 300)]
)
def test_retry_delay__transient_doubles_up_to_five_minutes(failures, least, most):
    assert delay(failure(), failures=failures, chance=0.0) == least
    assert least < delay(failure(), failures=failures, chance=0.999) < most


def test_retry_delay__looks_more_often_while_callers_are_failing():
    assert delay(failure(), failures=99, left=0) <= 60


def test_retry_delay__keeps_a_try_for_the_old_tokens_last_half():
    assert delay(failure(), failures=99, left=100) == 50


def test_retry_delay__people_take_time():
    assert 600 < delay(failure(ErrorClass.HUMAN)) < 1200
    assert delay(failure(ErrorClass.UNKNOWN)) == delay(failure(ErrorClass.HUMAN))


def test_retry_delay__quota_waits_for_midnight_in_beijing():
    midnight = (schedule.next_beijing_midnight(NOW) - NOW).total_seconds()
    assert midnight <= delay(failure(ErrorClass.QUOTA)) <= midnight + 600


def test_retry_delay__wechat_may_say_how_long():
    assert 3600 <= delay(failure(ErrorClass.HUMAN, retry_after=3600)) < 3960


@for_any(failures, st.integers(0, 10_000), st.floats(0, 10_000), chances)
def test_retry_delay__never_a_loop_never_for_ever(error, failed, left, chance):
    wait = delay(error, failures=failed, left=left, chance=chance)
    assert seconds(wait) <= schedule.LONGEST_WAIT
    assert wait >= 1.0


@for_any(st.integers(0, 40), chances)
def test_retry_delay__grows_with_the_streak(failed, chance):
    left = 1e6
    assert delay(failure(), failures=failed, left=left, chance=chance) <= delay(
        failure(), failures=failed + 1, left=left, chance=chance
    )


# -- overtaken, edited, refused


@for_any(rows)
def test_overtaken__repairs_within_thirty_seconds_unless_somebody_is_at_it(token):
    written(token, schedule.overtaken(token, ago(20), NOW, lease=LEASE))
    assert token.lost_at == NOW
    if not schedule.lease_is_live(token, NOW, LEASE):
        assert token.due_at <= ahead(25)
        assert token.unanswered_since is not None


def test_edited__forgets_the_streak_and_keeps_the_token():
    token = written(good(failures=7, error_class="human", lease_owner="me", lease_until=ahead(9)),
                    schedule.edited(good(), NOW))  # fmt: skip
    assert (token.failures, token.error_class, token.lease_owner, token.due_at) == (0, "", "", NOW)
    assert token.version == 5


def test_edited__a_request_under_way_counts_as_lost():
    token = good(lease_owner="me", sent_at=ago(1), unanswered_since=ago(1))
    assert schedule.edited(token, NOW)["lost_at"] == ago(1)


def test_rejected__by_somebody_elses_hand():
    fields = schedule.rejected(good(), NOW)
    assert (fields["rejected_version"], fields["foreign_refreshes"], fields["foreign_at"]) == (5, 1, NOW)


@pytest.mark.parametrize("fields", [{"unanswered_since": ago(9)}, {"expires_at": ago(1)}])
def test_rejected__perhaps_by_our_own(fields):
    assert "foreign_refreshes" not in schedule.rejected(good(**fields), NOW)


@for_any(rows)
def test_rejected__is_served_no_more(token):
    assume(token.version)
    assert schedule.usable_until(written(token, schedule.rejected(token, NOW)), OVERLAP) is None


# -- alerts


@pytest.mark.parametrize(
    ("fields", "error_class", "alert"),
    [
        ({}, ErrorClass.HUMAN, True),
        ({}, ErrorClass.QUOTA, True),
        ({"alerted_at": ago(9)}, ErrorClass.HUMAN, False),
        ({"failures": 9}, ErrorClass.TRANSIENT, False),  # still an hour to go
        ({"failures": 2, "expires_at": ahead(599)}, ErrorClass.TRANSIENT, True),
        ({"failures": 1, "expires_at": ahead(599)}, ErrorClass.TRANSIENT, False),
        ({"failures": 2, "version": 0}, ErrorClass.TRANSIENT, True),
    ],
)
def test_deserves_alert__examples(fields, error_class, alert):
    assert schedule.deserves_alert(good(**fields), error_class, NOW, OVERLAP) is alert
