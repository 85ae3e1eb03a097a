"""The pure decisions after a request: what an answer, a failure or an edit writes, and how long to wait."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from tests.schedule_rows import (
    LEASE,
    NOW,
    OVERLAP,
    REF,
    ago,
    ahead,
    chances,
    failure,
    failures,
    for_any,
    good,
    lives,
    rows,
    written,
)
from wechat_token.engine import schedule
from wechat_token.engine.schedule import seconds
from wechat_token.exceptions import ErrorClass, UpstreamError
from wechat_token.models import Account, Token
from wechat_token.platforms import Issued, Renewal
from wechat_token.platforms.official_account import OfficialAccountAccessToken
from wechat_token.redaction import Secret

SOURCE = OfficialAccountAccessToken()


# -- the answer is in


def succeed(
    token: Token, life: int, *, same: bool = False, chance: float = 0.5, renewal: Renewal | None = None,
    now: dt.datetime = NOW,
) -> Token:  # fmt: skip
    renewal = renewal or SOURCE.renewal(Account(endpoint="classic"), life)
    issued = Issued(Secret("new"), life)
    fields = schedule.after_success(
        token, issued, same=same, now=now, renewal=renewal, chance=chance, issued_for=token.account.ref
    )
    return written(token, fields)


def test_after_success__a_new_token():
    token = succeed(good(sent_at=ago(2), unanswered_since=ago(2), lease_owner="me", failures=3), 7200)
    assert (token.value.reveal(), token.issued_for, token.expires_at) == ("new", REF, ahead(7198))
    assert (token.lease_owner, token.unanswered_since, token.failures) == ("", None, 0)


def test_after_success__versions_grow_across_a_restored_backup():
    """R32: memory and cache may know versions that the restored row does not; none of them is as late as now."""
    yesterday = good(sent_at=NOW, version=int(ago(86_400).timestamp() * 1000))
    assert succeed(yesterday, 7200).version == int(NOW.timestamp() * 1000)


def test_after_success__versions_grow_while_the_clock_is_behind():
    tomorrow = int(ahead(86_400).timestamp() * 1000)
    assert succeed(good(sent_at=NOW, version=tomorrow), 7200).version == tomorrow + 1


def test_after_success__another_accounts_token_is_replaced():
    assert schedule.is_usable(succeed(good(sent_at=NOW, issued_for="wxanother"), 7200), NOW, OVERLAP)


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
    assert token.version == version if same else token.version > version
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
    token = fail(good(), failure(left=False))
    assert (token.unanswered_since, token.lost_at, token.failures) == (None, None, 1)


def test_after_failure__what_never_left_is_not_counted():
    """Hours without a network must not use up the day's calls: a test account (测试号) has 200."""
    used = {"day": "2026-03-02", "classic": 7}
    assert fail(good(usage=used), failure(left=False)).usage == used
    assert fail(good(usage=used), failure(lost=True)).usage["classic"] == 8


def test_after_failure__a_refusal_by_wechat_is_counted():
    refused = UpstreamError("no", error_class=ErrorClass.HUMAN, errcode=40164)
    assert fail(good(), refused).usage == {"day": "2026-03-02", "classic": 1}


def test_after_failure__an_older_doubt_stays():
    assert fail(good(unanswered_since=ago(60), lost_at=ago(60)), failure()).unanswered_since == ago(60)


def test_after_failure__stable_loses_nothing():
    assert fail(good(), failure(lost=True), displaces=False).unanswered_since is None


@for_any(rows, failures, st.booleans(), chances)
def test_after_failure__is_always_visible_and_due_again(token, error, displaces, chance):
    count = 0 if schedule.is_outdated(token) else token.failures  # an edit begins a new streak
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


def test_retry_delay__is_sparing_when_half_of_the_calls_are_gone():
    assert schedule.retry_delay(failure(), failures=99, now=NOW, left=0, chance=0.5, hurry=False) >= 450


@pytest.mark.parametrize(("calls", "expected"), [(99, True), (100, False)])
def test_may_hurry__up_to_half_of_the_days_calls(calls, expected):
    token = good(usage={"day": schedule.beijing_day(NOW), "classic": calls})
    assert schedule.may_hurry(token, NOW, endpoint="classic", daily_limit=200) is expected


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


def test_woken__is_due_at_once_or_never():
    assert schedule.woken(True, NOW) == {"due_at": NOW}
    assert schedule.woken(False, NOW) == {"due_at": None}


def test_woken__leaves_who_is_at_it_alone():
    """Nothing of an edit takes a running refresh's lease away: its answer is stored, then the row is due again."""
    assert set(schedule.woken(True, NOW)) == {"due_at"}


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
