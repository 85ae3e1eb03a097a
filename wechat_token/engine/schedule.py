"""The decisions of a token's life, pure: a row and the time go in, what to do and what to write come out (R19).

Nothing here reads a clock, a setting, the database or the network, so weeks can be simulated in seconds and every
rule can be tested alone. ``chance`` is a number in [0, 1) that the caller draws.
"""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ErrorClass

if TYPE_CHECKING:
    from ..exceptions import UpstreamError
    from ..models import Token
    from ..platforms import ForcedRefreshRule, Issued, Renewal

Fields = dict[str, Any]

BEIJING: Final = dt.timezone(dt.timedelta(hours=8))

ALERT_BEFORE_END: Final = 600.0  # a transient failure is worth a message when the old token has this long to live

# No failure asks for a longer wait: the longest is 89506, an address barred for 24 hours, and its jitter.
LONGEST_WAIT: Final = dt.timedelta(hours=27)

# How long a request that we gave up may still be on its way to WeChat. A token that arrived sooner after a lost
# request than this may be displaced by it yet, so it is trusted for the overlap only and repaired (R2).
SETTLE: Final = 30.0
REPAIR_WITHIN: Final = 25.0  # plus a beat tick of 5 s: the 30 s of R2

BACKOFF_BASE: Final = 2.0
BACKOFF_CAP: Final = 300.0
BACKOFF_CAP_DEAD: Final = 60.0  # without a usable token callers are failing: look more often
BACKOFF_CAP_SPARING: Final = 900.0  # when half of the day's calls are gone: lost answers cost calls, too
HURRY_SHARE: Final = 0.5  # of WeChat's daily limit, up to which a repair does not ask what it costs
HUMAN_PROBE: Final = 900.0  # seconds between slow probes while somebody has to act
MANUAL_GAP: Final = 3.0  # a double click is one refresh


NO_FAILURE: Final[Fields] = {
    "failures": 0, "error_class": "", "errcode": None, "error": "", "rid": "", "egress_ip": "",
    "failed_at": None, "alerted_at": None, "waits_for": "",
}  # fmt: skip

IN_USE: Final = dt.timedelta(hours=24)  # for so long after somebody asked, a lazy credential is renewed ahead (R28)
ASKED_GAP: Final = dt.timedelta(hours=1)  # between writes of the time of the latest demand

# Who waits for a need is woken when that succeeds (R22). Its own due time is for the case that nobody tries the need
# any more: so much later than the need's next try, that with thousands of them beat has come to each.
WAIT_BEYOND: Final = 120.0
WAIT_LEAST: Final = 5.0

GUARD_SHARE: Final = 0.95  # of WeChat's daily limit (R16); the rest is for people with a console
# Calls of a day that complaints and hands cannot use up, so that renewals go on until midnight (R33).
RESERVE_SHARE: Final = 0.1
RESERVE_LEAST: Final = 30


class Reason(enum.StrEnum):
    """Why a refresh was asked for. Stored in the log; do not rename."""

    SCHEDULE = "schedule"
    CALLER = "caller"
    COMPLAINT = "complaint"
    ADMIN = "admin"
    COMMAND = "command"

    @property
    def by_hand(self) -> bool:
        return self in (Reason.ADMIN, Reason.COMMAND)


class Action(enum.Enum):
    FETCH = "fetch"  # claim and go
    BUSY = "busy"  # somebody else is fetching; `until` is when their lease ends
    NOT_DUE = "not due"  # nothing to do before `until`
    LIMITED = "limited"  # our own guard says no before `until`
    SLEEP = "sleep"  # nobody has asked for it lately: it is not renewed ahead any more (R28)


@dataclass(frozen=True, slots=True)
class Decision:
    action: Action
    until: dt.datetime | None = None


def seconds(value: float) -> dt.timedelta:
    return dt.timedelta(seconds=value)


# -- what a row says about its token ---------------------------------------------------------------


def usable_until(token: Token, overlap: float) -> dt.datetime | None:
    """Until when the stored token counts as good; None if there is none, WeChat was seen to refuse it, or it is
    another account's, whose AppID this row's account had before. :func:`wechat_token.querysets.usable` in Python.
    """
    if not token.version or token.expires_at is None or token.rejected_version == token.version:
        return None
    if token.issued_for != token.account.ref:
        return None
    if token.unanswered_since is None:
        return token.expires_at
    return min(token.expires_at, token.unanswered_since + seconds(overlap))


def is_usable(token: Token, now: dt.datetime, overlap: float) -> bool:
    end = usable_until(token, overlap)
    return end is not None and now < end


def reliable_until(
    usable_end: dt.datetime, due_at: dt.datetime | None, now: dt.datetime, overlap: float
) -> dt.datetime:
    """What others may be told (R12): the token's own end, or the planned renewal + overlap if that is sooner."""
    planned = now if due_at is None else max(due_at, now)
    return min(usable_end, planned + seconds(overlap))


def is_outdated(token: Token) -> bool:
    """Whether the account was edited since this row was last claimed: it is due, whatever was planned (R10)."""
    return token.edition != token.account.edition


def planned_at(token: Token) -> dt.datetime | None:
    """When the next refresh is due: for an outdated token since its account was edited, which is what the edition says
    in Unix milliseconds.
    """
    if not is_outdated(token):
        return token.due_at
    edited_at = dt.datetime.fromtimestamp(token.account.edition / 1000, dt.UTC)
    return edited_at if token.due_at is None else min(token.due_at, edited_at)


def callers_turn(due_at: dt.datetime | None, usable_end: dt.datetime | None, grace: float) -> dt.datetime | None:
    """From when on callers renew an overdue token themselves, because nobody else did (R7)."""
    if due_at is None:
        return None
    if usable_end is None or usable_end <= due_at:
        return due_at
    return due_at + min(seconds(grace), (usable_end - due_at) / 4)


def lease_is_live(token: Token, now: dt.datetime, lease: float) -> bool:
    """Whether somebody is refreshing. A lease that ends later than any we grant was not granted by us."""
    return token.lease_until is not None and now < token.lease_until <= now + seconds(2 * lease)


# -- whether to fetch ------------------------------------------------------------------------------


def decide(
    token: Token, now: dt.datetime, *, reason: Reason, lease: float, overlap: float,
    endpoint: str, daily_limit: int, lazy: bool = False,
) -> Decision:  # fmt: skip
    """What a refresh for ``reason`` is to do with this row now. Complaints have further rules of their own.

    ``lazy``: whether it is renewed ahead only while somebody asks for it.
    """
    if lease_is_live(token, now, lease):
        return Decision(Action.BUSY, token.lease_until)
    if lazy and reason is Reason.SCHEDULE and not is_in_use(token, now):
        return Decision(Action.SLEEP)
    allowed, until = calls_allowed(daily_limit, reason), next_beijing_midnight(now)
    if is_outdated(token) and reason is not Reason.COMPLAINT:
        end = usable_until(token, overlap)
        if end is not None and now < end - seconds(overlap):
            # Nothing but the edit asks for it, and edits are made by hand: the reserve is for the token's end (R33).
            allowed, until = calls_allowed(daily_limit, Reason.ADMIN), min(until, end - seconds(overlap))
    elif reason.by_hand:
        if token.sent_at is not None and token.sent_at <= now < token.sent_at + seconds(MANUAL_GAP):
            return Decision(Action.NOT_DUE, token.sent_at + seconds(MANUAL_GAP))
    elif reason is not Reason.COMPLAINT and _may_wait(token, now, overlap):
        return Decision(Action.NOT_DUE, token.due_at)
    # A complaint asks WeChat about the token first, which costs none of these calls.
    if reason is not Reason.COMPLAINT and calls_today(token, endpoint, now) >= allowed:
        return Decision(Action.LIMITED, until)
    return Decision(Action.FETCH)


def calls_allowed(daily_limit: int, reason: Reason) -> int:
    """How many of a day's calls may have left before a refresh for this reason has to wait (R16, R33)."""
    allowed = int(daily_limit * GUARD_SHARE)
    if reason.by_hand or reason is Reason.COMPLAINT:
        allowed -= min(max(int(daily_limit * RESERVE_SHARE), RESERVE_LEAST), daily_limit // 2)
    return allowed


def _may_wait(token: Token, now: dt.datetime, overlap: float) -> bool:
    """Whether the due time holds: there is a good token until then, or a backoff that a failure has set.

    Otherwise it is a leftover (a row edited by hand, a clock that jumped), and waiting would be a silent stop.
    """
    if token.due_at is None or token.due_at <= now:
        return False
    backing_off = token.failures > 0 and token.due_at <= now + LONGEST_WAIT
    return backing_off or is_usable(token, now, overlap)


def spared_until(token: Token, now: dt.datetime, *, endpoint: str, daily_limit: int) -> dt.datetime | None:
    """For a complaint that has proved true: when the next call may leave; None if it may now.

    Beyond what complaints may use, the reserve is spent evenly over the rest of the day, so that another system that
    ends our tokens again and again does not leave us without any (R33).
    """
    used = calls_today(token, endpoint, now)
    if used < calls_allowed(daily_limit, Reason.COMPLAINT):
        return None
    left = calls_allowed(daily_limit, Reason.SCHEDULE) - used
    midnight = next_beijing_midnight(now)
    return midnight if left <= 0 else now + (midnight - now) / (left + 1)


def is_in_use(token: Token, now: dt.datetime) -> bool:
    """Whether somebody asked for a lazy credential lately. A clock set back does not make it unused."""
    return token.asked_at is not None and now < token.asked_at + IN_USE


def is_asleep(token: Token) -> bool:
    """Whether it is not renewed because nobody asks for it: the next request wakes it (R28)."""
    return token.due_at is None and token.asked_at is not None


def beijing_day(now: dt.datetime) -> str:
    return now.astimezone(BEIJING).date().isoformat()


def next_beijing_midnight(now: dt.datetime) -> dt.datetime:
    """When WeChat's daily counters are taken to start anew; WeChat does not say when they do."""
    local = now.astimezone(BEIJING)
    return (local + dt.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(dt.UTC)


def calls_today(token: Token, endpoint: str, now: dt.datetime) -> int:
    usage = token.usage if isinstance(token.usage, dict) else {}
    count = usage.get(endpoint) if usage.get("day") == beijing_day(now) else 0
    return count if isinstance(count, int) else 0


def counted(token: Token, endpoint: str, now: dt.datetime) -> dict[str, Any]:
    """``usage`` with one more call of ``endpoint``; yesterday's figures are dropped."""
    day = beijing_day(now)
    usage = token.usage if isinstance(token.usage, dict) and token.usage.get("day") == day else {"day": day}
    return {**usage, endpoint: calls_today(token, endpoint, now) + 1}


def counters_cleared(token: Token, forced_endpoint: str, now: dt.datetime) -> Fields:
    """WeChat has set the day's counters to zero. Nobody says that of forced refreshes: theirs goes on (R9).
    ``forced_endpoint``: the name they are counted under, '' where there are none.

    What waited for the quota to renew itself is tried again at once.
    """
    forced = calls_today(token, forced_endpoint, now) if forced_endpoint else 0
    fields: Fields = {"usage": {"day": beijing_day(now), forced_endpoint: forced} if forced else {}}
    return fields | ({"due_at": now} if token.error_class == ErrorClass.QUOTA and token.failures else {})


def forced_refresh_allowed_at(token: Token, rule: ForcedRefreshRule, endpoint: str, now: dt.datetime) -> dt.datetime:
    """When the next forced refresh may leave (R9): now, after the gap, or with tomorrow's budget."""
    if calls_today(token, endpoint, now) >= rule.per_day:
        return next_beijing_midnight(now)
    if token.forced_at is not None and token.forced_at <= now:
        return max(now, token.forced_at + seconds(rule.min_gap))
    return now


# -- what to write ---------------------------------------------------------------------------------


def claim(token: Token, now: dt.datetime, *, owner: str, lease: float) -> Fields:
    """Take the lease. Falls due again when the lease ends, so that a crashed holder is found by the ordinary query."""
    fields: Fields = {"lease_owner": owner, "lease_until": now + seconds(lease), "due_at": now + seconds(lease)}
    if token.lease_owner and token.unanswered_since is not None:
        # The former holder never came back: what it sent is lost, and may still be on its way.
        fields["lost_at"] = token.sent_at
    return fields


def intent(token: Token, now: dt.datetime, *, lease: float, endpoint: str, displaces: bool, forced: bool) -> Fields:
    """A request is about to leave (R2): count it, and doubt the stored token until the answer is in."""
    fields: Fields = {
        "sent_at": now,
        "usage": counted(token, endpoint, now),
        "lease_until": now + seconds(lease),
        "due_at": now + seconds(lease),
    }
    if displaces and token.unanswered_since is None:
        fields["unanswered_since"] = now
    if forced:
        fields["forced_at"] = now
    if is_outdated(token):  # an operator has edited the account: the streak was another one's (R10)
        fields |= {**NO_FAILURE, "edition": token.account.edition}
    return fields


def rejected(token: Token, now: dt.datetime) -> Fields:
    """WeChat refuses the stored token. If it died before its time and not by our hand, somebody else did it (R14)."""
    fields: Fields = {"rejected_version": token.version, "probe_after": None}
    if token.unanswered_since is None and token.expires_at is not None and now < token.expires_at:
        fields |= {"foreign_refreshes": token.foreign_refreshes + 1, "foreign_at": now}
    return fields


def released(due_at: dt.datetime | None) -> Fields:
    return {"lease_owner": "", "lease_until": None, "due_at": due_at}


def after_success(
    token: Token, issued: Issued, *, same: bool, now: dt.datetime, renewal: Renewal, chance: float, issued_for: str
) -> Fields:
    """The answer to the request of ``token.sent_at`` is in. ``issued_for``: the ref of the account that was asked.

    ``same``: WeChat returned the token we hold (stable, before its last 300 s), which is no error (R6).
    """
    sent_at = token.sent_at or now
    expires_at = sent_at + seconds(issued.expires_in)
    lead = renewal.latest + (renewal.earliest - renewal.latest) * chance
    due_at = max(expires_at - seconds(lead), now + seconds(min(5.0, issued.expires_in / 2)))
    fields: Fields = {
        "expires_at": expires_at,
        "unanswered_since": None,
        "lost_at": None,
        "probe_after": None,
        **NO_FAILURE,
    }
    if not same:
        # Versions grow also where yesterday's database was restored and memory and cache hold today's (R32).
        version = max(token.version + 1, int(sent_at.timestamp() * 1000))
        fields |= {"value": issued.value, "version": version, "issued_at": sent_at, "issued_for": issued_for}
    elif token.rejected_version == token.version:
        fields["rejected_version"] = 0
    if token.unanswered_since is not None and token.lost_at is not None:
        settled_at = token.lost_at + seconds(SETTLE)
        if sent_at < settled_at:  # the lost request may yet arrive after ours and displace this token
            fields |= {"unanswered_since": sent_at, "lost_at": token.lost_at}
            due_at = min(due_at, max(settled_at, now + seconds(5)))
    return fields | released(due_at)


def fingerprinted(
    token: Token, fingerprint: str, *, same: bool, ends_former: bool, issued_for: str, overlap: float
) -> Fields:  # fmt: skip
    """What the row is found by, with the answer to the request of ``token.sent_at``. ``ends_former``: the request left
    the former token no time.
    """
    if same or not token.version:
        return {"fingerprint": fingerprint}
    lives = token.sent_at is not None and token.expires_at is not None and token.issued_for == issued_for
    if ends_former or not lives or token.rejected_version == token.version:
        return {"fingerprint": fingerprint, "former_fingerprint": "", "former_until": None}
    until = min(token.expires_at, token.sent_at + seconds(overlap))  # type: ignore[type-var, operator]  # both set
    return {"fingerprint": fingerprint, "former_fingerprint": token.fingerprint, "former_until": until}


def after_failure(
    token: Token, before: Token, failure: UpstreamError, *, displaces: bool, now: dt.datetime,
    overlap: float, chance: float, hurry: bool = True,
) -> Fields:  # fmt: skip
    """The request of ``token.sent_at`` failed; ``before`` is the row as it was before the intent was written.

    ``hurry``: there are calls to spare today (:func:`may_hurry`).
    """
    lost = displaces and failure.may_have_issued
    fields: Fields = {
        "failures": token.failures + 1,
        "error_class": failure.error_class.value,
        "errcode": failure.errcode,
        "error": str(failure)[:255],
        "rid": failure.rid[:64],
        "egress_ip": failure.egress_ip[:64],
        "failed_at": now,
        "waits_for": "",
    }
    if lost:
        fields["lost_at"] = token.sent_at
    else:
        fields["unanswered_since"] = before.unanswered_since  # nothing was issued: the doubt was unfounded
    if not failure.has_left:
        # Nothing was sent, so nothing is used up: a long outage must not eat the day's calls (R16).
        fields |= {"usage": before.usage or {}, "forced_at": before.forced_at}
    doubtful = lost or before.unanswered_since is not None
    end = usable_until(token, overlap)
    left = (end - now).total_seconds() if end is not None else 0.0
    delay = retry_delay(failure, failures=token.failures, now=now, left=left, chance=chance, hurry=hurry)
    if doubtful and hurry and failure.error_class is ErrorClass.TRANSIENT:
        delay = min(delay, REPAIR_WITHIN)
    return fields | released(now + seconds(delay))


def may_hurry(token: Token, now: dt.datetime, *, endpoint: str, daily_limit: int) -> bool:
    """Whether there are calls to spare: a test account has 200 a day, and an outage can last for hours (R16)."""
    return calls_today(token, endpoint, now) < daily_limit * HURRY_SHARE


def retry_delay(
    failure: UpstreamError, *, failures: int, now: dt.datetime, left: float, chance: float, hurry: bool = True
) -> float:
    """Seconds until the next try (R10). ``failures`` before this one; ``left``: seconds the old token still lives."""
    if failure.error_class is ErrorClass.TRANSIENT:
        cap = BACKOFF_CAP if left > 0 else BACKOFF_CAP_DEAD
        if not hurry:
            cap = BACKOFF_CAP_SPARING
        delay = min(cap, BACKOFF_BASE * 2.0 ** min(failures, 16)) * (0.5 + chance / 2)
        # Do not sleep past the old token's end: keep a try for its last half.
        return min(delay, max(left / 2, 5.0)) if left > 0 else delay
    if failure.retry_after is not None:
        return failure.retry_after * (1 + chance / 10)
    if failure.error_class is ErrorClass.QUOTA:
        return (next_beijing_midnight(now) - now).total_seconds() + 600 * chance
    return HUMAN_PROBE * (0.75 + chance / 2)


def overtaken(token: Token, sent_at: dt.datetime, now: dt.datetime, *, lease: float) -> Fields:
    """A request of ours that displaces was overtaken: which of the two reached WeChat last is unknown (R2)."""
    fields: Fields = {"lost_at": now}
    if not lease_is_live(token, now, lease):
        since = max(sent_at, token.issued_at or sent_at)
        repair = now + seconds(REPAIR_WITHIN)
        fields["unanswered_since"] = min(token.unanswered_since or since, since)
        fields["due_at"] = repair if token.due_at is None else min(token.due_at, repair)
    return fields


# -- who waits for whom (R22) ----------------------------------------------------------------------


def waiting(token: Token, root: str, until: dt.datetime | None, now: dt.datetime) -> Fields:
    """What it needs cannot be had before ``until``: no failure, no streak. ``root``: what it waits for in the end.

    Nothing to write if the row says so already.
    """
    next_try = now + seconds(WAIT_LEAST) if until is None else max(until, now + seconds(WAIT_LEAST))
    if token.waits_for == root and token.due_at is not None and next_try <= token.due_at:
        return {}
    return {"waits_for": root, "due_at": next_try + seconds(WAIT_BEYOND)}


def holds_up(token: Token, now: dt.datetime, overlap: float) -> dt.datetime | None:
    """For a row whose refresh has just failed: until when those who need it are to wait; None if they need not."""
    if token.due_at is None or is_usable(token, now, overlap):
        return None
    return token.due_at + seconds(WAIT_BEYOND)


def lets_go(token: Token, now: dt.datetime, overlap: float) -> bool:
    """Whether others may have waited for this row, whose refresh succeeds now: ``token`` is as it was before."""
    return token.failures > 0 or bool(token.waits_for) or not is_usable(token, now, overlap)


def woken(active: bool, now: dt.datetime) -> Fields:
    """An operator changed the account (R10): beat is to find its token at once, or never again while it is off."""
    return {"due_at": now if active else None}


def deserves_alert(token: Token, error_class: ErrorClass, now: dt.datetime, overlap: float) -> bool:
    """Whether people are to be told about a failure: once per streak, at once if only they can help, else in time.

    ``token`` is the row before the failure is written.
    """
    if token.alerted_at is not None:
        return False
    if error_class is not ErrorClass.TRANSIENT:
        return True
    end = usable_until(token, overlap)
    return token.failures >= 2 and (end is None or end - now < seconds(ALERT_BEFORE_END))
