"""One attempt to renew one row: the row as we last wrote it, and the steps that write it again or ask WeChat.

The order of the steps is :mod:`refresh`'s. Here each is one statement or one request; none waits or tries again.
"""

from __future__ import annotations

import copy
import datetime as dt
import logging
import random
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from django.db import DatabaseError, InterfaceError
from django.dispatch import Signal

from .. import clock, signals
from ..conf import get_settings
from ..encryption import fingerprints
from ..exceptions import AnswerError, EncryptionKeyError, ErrorClass, TransportError, UpstreamError
from ..models import ACCESS_TOKEN, RefreshLog, Token
from ..platforms import Call, Issued, Material, checked, platform, source_for
from ..redaction import Secret
from . import birth, complaints, rows, schedule
from .connections import private
from .ground import Flight
from .outcome import name_of
from .rows import Change, Dependents
from .schedule import Decision, Fields, Reason

logger = logging.getLogger("wechat_token")

END_OF_LIFE: Final = dt.timedelta(seconds=240)
TOLERATED_SKEW: Final = 30.0  # seconds between WeChat's clock and ours that every margin of the schedule absorbs

Result = Issued | UpstreamError
FieldsOf = Callable[[Token], Fields]


class Attempt:
    def __init__(self, token: Token, reason: Reason, client: str) -> None:
        settings = get_settings()
        self.token = token
        self.reason = reason
        self.client = client
        self.ref = token.account.ref
        self.lease, self.overlap = settings.lease, settings.overlap
        self.source = source_for(token.account.platform, token.kind)
        self.material = Material()
        self.owner = uuid.uuid4().hex
        self.before = copy.copy(token)  # the row as it was before the intent of the latest request
        self.due_before = token.due_at
        self.began = clock.monotonic()
        self.leased_at = 0.0  # monotonic, just before the latest write that begins or extends our lease
        self.call: Call | None = None
        self.forced = False  # whether the latest request we declared is a forced one
        self.same = False  # whether WeChat returned the token we hold
        self.answers: str | None = None  # the payer of a complaint that the same value, issued again, is the answer to
        self.refusal: Fields = {}
        self.outdated = schedule.is_outdated(token)
        self._unreadable = False
        self._tried: tuple[str, Fields] = ("", {})  # the step at which the database broke off: it may have been taken
        self._undeclared: Fields = {}  # the intent of a request that left without a claim
        self._alerts = False

    def endpoint(self, *, forced: bool = False) -> str:
        return self.source.endpoint(self.token.account, forced=forced)

    def displaces(self, *, forced: bool = False) -> bool:
        return self.source.displaces(self.token.account, forced=forced)

    # -- before the claim --------------------------------------------------------------------------

    def judge_readable(self) -> None:
        """An unreadable value is no value (R36): its key is lost, WeChat's next token takes its place."""
        try:
            self.token.value.reveal()
        except EncryptionKeyError:
            self._unreadable = True
            self.token.rejected_version = self.token.version

    def decide(self, now: dt.datetime) -> Decision:
        return schedule.decide(
            self.token, now, reason=self.reason, lease=self.lease, overlap=self.overlap, endpoint=self.endpoint(),
            daily_limit=self.source.daily_limit(self.token.account, forced=False), lazy=self.source.lazy,
        )  # fmt: skip

    def prepare(self, material: Material) -> None:
        """What can fail by itself (R31). Raises ``EncryptionKeyError`` and ``ConfigurationError``."""
        self.material = material
        self.call = self.source.prepare(self.token.account, material, forced=False)

    def claim(self, now: dt.datetime, *, probing: bool) -> bool:
        """Take the lease, in the same UPDATE as the intent (R2); a complaint's first call only probes."""
        self.before = copy.copy(self.token)
        self.leased_at = clock.monotonic()
        fields = schedule.claim(self.token, now, owner=self.owner, lease=self.lease)
        if not probing:
            fields |= self._intent(now, forced=False)
        self._tried = ("claim", fields)
        claimed = rows.claim([Change(self.token, fields)])[0]
        self._tried = ("", {})
        return claimed

    def has_claimed(self) -> bool:
        """Whether a claim that broke off was committed all the same."""
        return self._tried[0] == "claim" and rows.has_landed(self.token, self._tried[1])

    def hold_back(self, until: dt.datetime | None) -> UpstreamError:
        """Our own daily guard (R16). Said once per streak; the row sleeps until the counters start anew.

        A refresh by hand that meets the reserve (R33) holds back nobody else.
        """
        failure = self._no_calls_left()
        if self.reason.by_hand or until is None or (self.token.due_at is not None and self.token.due_at >= until):
            return failure
        self._alerts = rows.write(self.token, self._held_back(self.token, until, failure))
        return failure

    def spared_until(self) -> dt.datetime | None:
        """For a complaint that has proved true: until when no call may follow (R33); None if one may now."""
        limit = self.source.daily_limit(self.token.account, forced=False)
        return schedule.spared_until(self.token, clock.now(), endpoint=self.endpoint(), daily_limit=limit)

    def give_up_until(self, until: dt.datetime) -> UpstreamError:
        """The refused token is served no more, and the row waits for its turn at the reserve."""
        failure = self._no_calls_left()
        self._alerts = self._write(
            "give up",
            lambda token: self._held_back(token, until, failure) | self.refusal | schedule.released(until),
        )
        return failure

    def _no_calls_left(self) -> UpstreamError:
        message = f"Held back: today's calls of the {self.endpoint()} endpoint are used up."
        return UpstreamError(message, error_class=ErrorClass.QUOTA, has_left=False)

    def _held_back(self, token: Token, until: dt.datetime, failure: UpstreamError) -> Fields:
        return {
            "failures": token.failures + 1,
            "error_class": failure.error_class.value,
            "error": str(failure),
            "failed_at": clock.now(),
            "due_at": until,
        }

    def log_held_back(self, flight: Flight, failure: UpstreamError) -> None:
        if self._alerts:
            self.log(flight, RefreshLog.Outcome.LIMITED, endpoint=self.endpoint())
            self._alert(flight, failure)

    # -- under the lease ---------------------------------------------------------------------------

    def _intent(self, now: dt.datetime, *, forced: bool, token: Token | None = None) -> Fields:
        return schedule.intent(
            token or self.token, now, lease=self.lease, endpoint=self.endpoint(forced=forced),
            displaces=self.displaces(forced=forced), forced=forced,
        )  # fmt: skip

    def declare(self, *, forced: bool, **also: object) -> bool:
        """Write the intent of a further request under the lease we hold. False: we have been overtaken."""
        before = copy.copy(self.token)
        leased_at = clock.monotonic()
        now = clock.now()
        if not self._write("declare", lambda token: self._intent(now, forced=forced, token=token) | also):
            return False
        self.before, self.leased_at, self.forced = before, leased_at, forced
        return True

    def probe(self) -> tuple[bool, UpstreamError | None] | None:
        """Ask WeChat whether it still accepts the token complained about (R8). None: it does not; else whether it
        does, with what kept it from telling.
        """
        try:
            verdict, failure = self.source.is_accepted(self.token.account, Secret(self.token.value.reveal())), None
        except UpstreamError as exc:
            verdict, failure = None, exc
        except Exception as exc:  # whatever a source raises: it says nothing about the token
            verdict, failure = None, _broken(exc, has_left=True)
        return None if verdict is False else (bool(verdict), failure)

    def note_refusal(self, flight: Flight) -> None:
        """Prepare what to write about a refused token; tell if somebody outside renewed it (R14)."""
        self.refusal = schedule.rejected(self.token, clock.now())
        if "foreign_refreshes" in self.refusal:
            count = self.refusal["foreign_refreshes"]
            self._tell(flight, signals.foreign_refresh_detected, count=count)

    def fetch(self, *, forced: bool = False, unclaimed: bool = False) -> Result:
        """One request, and whatever becomes of it (R31)."""
        if unclaimed:
            self._undeclared = self._intent(clock.now(), forced=False)
            self._undeclared |= {name: getattr(self.token, name) for name in ("lease_until", "due_at")}
            self.before = copy.copy(self.token)
            rows.assign(self.token, self._undeclared)
        elif (held_up := self._held_up()) > get_settings().lease_margin:
            # This process stood still since it wrote its intent. What it sent now could arrive after the lease, when
            # somebody else has a newer token, and displace that one unnoticed (R2).
            return TransportError(
                f"Held up for {held_up:.0f} s before the request, which was not sent.", may_have_issued=False
            )
        call = self.call
        try:
            if forced or call is None:
                call = self.source.prepare(self.token.account, self.material, forced=forced)
        except Exception as exc:
            return _broken(exc, has_left=False)
        try:
            return checked(call())
        except UpstreamError as exc:
            return exc
        except BaseException as exc:
            return _broken(exc, has_left=True)

    def _held_up(self) -> float:
        """Seconds since our lease was written, by the clock that says more: a suspended machine stops one of them."""
        by_lease = 0.0
        if self.token.lease_until is not None:
            by_lease = (clock.now() - self.token.lease_until).total_seconds() + self.lease
        return max(clock.monotonic() - self.leased_at, by_lease)

    def is_held(self, result: Result) -> bool:
        """Whether WeChat returned the very token we hold."""
        if not isinstance(result, Issued) or not self.token.version or self._unreadable:
            return False
        return self.token.issued_for == self.ref and Secret(self.token.value.reveal()) == result.value

    def needs_force(self, result: Result) -> bool:
        """R9: WeChat refuses this very token and yet hands it out again."""
        self.same = self.is_held(result)
        has_rule = self.has_forced_refresh()
        return self.same and has_rule and self.token.rejected_version == self.token.version

    def has_forced_refresh(self) -> bool:
        return self.source.forced_refresh(self.token.account) is not None

    def may_force_at(self, now: dt.datetime) -> dt.datetime:
        """When WeChat's ration lets a forced refresh leave (R9); now, where there is none."""
        rule = self.source.forced_refresh(self.token.account)
        if rule is None:
            return now
        return schedule.forced_refresh_allowed_at(self.token, rule, self.endpoint(forced=True), now)

    def forced_refresh_spent(self) -> UpstreamError | None:
        """Why no forced refresh may leave now; None if one may."""
        self.same = False
        rule = self.source.forced_refresh(self.token.account)
        now = clock.now()
        allowed_at = self.may_force_at(now)
        if rule is None or allowed_at <= now:
            return None
        if self.token.expires_at is not None:  # near its end a plain request brings another token by itself
            allowed_at = min(allowed_at, max(self.token.expires_at - END_OF_LIFE, now + schedule.seconds(rule.min_gap)))
        return _forced_refresh_spent(allowed_at - now, has_left=True)

    def forced_in_vain(self) -> UpstreamError:
        rule = self.source.forced_refresh(self.token.account)
        return _forced_refresh_spent(schedule.seconds(rule.min_gap if rule is not None else 30.0), has_left=True)

    # -- the store ---------------------------------------------------------------------------------

    def fields_for(self, result: Result) -> FieldsOf:
        """What to write about a result, given the row as it is then."""
        chance = random.random()  # noqa: S311  jitter, not a secret
        mark = ""
        if isinstance(result, Issued) and self.token.kind == ACCESS_TOKEN:
            mark = fingerprints(result.value)[0]
        return partial(self._fields, result, chance, mark)

    def _fields(self, result: Result, chance: float, mark: str, token: Token) -> Fields:
        now = clock.now()
        if isinstance(result, Issued):
            renewal = self.source.renewal(token.account, result.expires_in)
            fields = schedule.after_success(
                token, result, same=self.same, now=now, renewal=renewal, chance=chance, issued_for=self.ref
            )
            if mark:
                fields |= schedule.fingerprinted(
                    token, mark, same=self.same, ends_former=self.forced, issued_for=self.ref, overlap=self.overlap
                )
            if self.source.repeats:
                fields |= self._belief(token, result, now, chance)
            return self._due_if_edited(token, {**self._undeclared, **fields}, now)
        limit = self.source.daily_limit(token.account, forced=self.forced)
        fields = schedule.after_failure(
            token, self.before, result, displaces=self.displaces(forced=self.forced), now=now, overlap=self.overlap,
            chance=chance, hurry=schedule.may_hurry(token, now, endpoint=self.endpoint(forced=self.forced),
                                                    daily_limit=limit),
        )  # fmt: skip
        self._alerts = schedule.deserves_alert(token, result.error_class, now, self.overlap)
        if self._alerts:
            fields["alerted_at"] = now
        return self._due_if_edited(token, {**self._undeclared, **fields}, now)

    def _belief(self, token: Token, issued: Issued, now: dt.datetime, chance: float) -> Fields:
        """Its life by the birth rule (R23)."""
        is_ours = bool(token.version) and not self._unreadable and token.issued_for == self.ref
        fields = birth.answered(
            token, same=self.same, digest=birth.digest_of(issued.value.reveal()), life=issued.expires_in, now=now,
            endpoint=self.endpoint(), chance=chance, daily_limit=self.source.daily_limit(token.account, forced=False),
            is_ours=is_ours,
        )  # fmt: skip
        if not self.same and is_ours:
            fields["former_digest"] = birth.digest_of(token.value.reveal())
        if self.same and self.answers is not None:
            fields |= complaints.repeated(token, self.answers, now)
        return fields

    def _due_if_edited(self, token: Token, fields: Fields, now: dt.datetime) -> Fields:
        """What was edited while WeChat was asked is due at once (R10), and beat looks at the due time alone."""
        return fields | {"due_at": now} if schedule.is_outdated(token) and not self._undeclared else fields

    def store(self, fields: FieldsOf) -> bool:
        """Write the result under our lease (R2)."""
        return self._write("store", fields)

    def _write(self, step: str, fields_of: FieldsOf) -> bool:
        """Write under our lease. An edit of the row in between is taken in; a new owner fences us off.

        What left without a claim gives way to whoever claimed or renewed the row since it was read.
        """
        owner = "" if self._undeclared else self.owner
        for _ in range(rows.LOOK_AGAIN):
            tried, before = self._tried
            dependents = self._dependents(before) if tried == step else None
            if tried and rows.has_landed(self.token, before) and tried == step:
                self._tried = ("", {})
                if dependents is not None and dependents.hold_until is None:
                    with suppress(DatabaseError):  # they have due times of their own
                        rows.wake(self.token, dependents)
                return True
            self._tried = (step, fields_of(self.token))
            written = rows.store([Change(self.token, self._tried[1], owner, self._dependents(self._tried[1]))])[0]
            self._tried = ("", {})
            if written:
                return True
            fresh = rows.load(self.token)
            if fresh is None:
                return False
            if owner:
                overtaken = fresh.lease_owner != owner
            else:
                overtaken = bool(fresh.lease_owner) or fresh.version != self.token.version
                rows.assign(fresh, self._undeclared)
            if overtaken:
                return False
            self.token = fresh
        return False

    def _dependents(self, fields: Fields) -> Dependents | None:
        """Who hears of this write: those who wait for us if we succeed, and if we fail all who need us (R22)."""
        kinds = platform(self.token.account.platform).dependents(self.token.kind)
        if not kinds or "failures" not in fields or fields.get("lease_owner") != "":
            return None  # nobody needs it, or this is not the end of a refresh
        now, after = clock.now(), self.as_if_stored(lambda token: fields)
        if not after.failures:
            return Dependents(kinds, now) if schedule.lets_go(self.token, now, self.overlap) else None
        until = schedule.holds_up(after, now, self.overlap)
        return None if until is None else Dependents(kinds, now, until, name_of(after))

    def lay_down(self) -> bool:
        """Give the lease back after a refusal that another credential is to blame for: as if nothing had been sent, but
        for the count of calls (R21).
        """
        as_before = {name: getattr(self.before, name) for name in ("unanswered_since", "sent_at")}
        return self.release(**as_before)

    def fail(self, failure: UpstreamError) -> bool:
        """Store a failure without the lease, which is given back already; whoever wrote since then knows better."""
        fields = self.fields_for(failure)(self.token)
        return rows.store([Change(self.token, fields, dependents=self._dependents(fields))])[0]

    def as_if_stored(self, fields: FieldsOf) -> Token:
        """The row as it will be, for callers who wait while the database does not take it."""
        token = copy.copy(self.token)
        rows.assign(token, fields(token))
        return token

    def release(self, **also: object) -> bool:
        """Give the lease back without a result; what was due before is due again, at once if it was edited."""
        due_at = clock.now() if self.outdated else self.due_before
        return self._write("release", lambda token: schedule.released(due_at) | also)

    def step_back(self, *, may_have_issued: bool) -> bool:
        """We were overtaken. If our request displaces, one of two tokens is dead, and a repair is due (R2)."""
        sent_at, repair = self.token.sent_at, may_have_issued and self.displaces(forced=self.forced)
        for _ in range(rows.LOOK_AGAIN):
            fresh = rows.load(self.token)
            if fresh is None:
                return True
            if not repair or sent_at is None:
                self.token = fresh
                return True
            fields = schedule.overtaken(fresh, sent_at, clock.now(), lease=self.lease)
            if rows.store([Change(fresh, fields)])[0]:
                self.token = fresh
                return True
            clock.sleep(0.05)  # whoever writes the row all the time is not to be raced
        return False

    # -- the record --------------------------------------------------------------------------------

    def log_result(self, flight: Flight, result: Result) -> None:
        if isinstance(result, Issued):
            _warn_of_skew(result)
            outcome = RefreshLog.Outcome.UNCHANGED if self.same else RefreshLog.Outcome.RENEWED
            self.log(flight, outcome, endpoint=self.endpoint(forced=self.forced))
            return
        lost = self.displaces(forced=self.forced) and result.may_have_issued
        self.log(
            flight, RefreshLog.Outcome.LOST if lost else RefreshLog.Outcome.FAILED,
            endpoint=self.endpoint(forced=self.forced), failure=result,
        )  # fmt: skip
        self.alert_if_news(flight, result)

    def alert_if_news(self, flight: Flight, failure: UpstreamError) -> None:
        """Tell people about a failure that was stored, once a streak (R10)."""
        if self._alerts:
            self._alert(flight, failure)

    def log(self, flight: Flight, outcome: str, *, endpoint: str, failure: UpstreamError | None = None) -> None:
        """One row for every refresh (R15), written last and on its own: it may fail, the token may not."""
        entry = RefreshLog(
            ref=self.ref,
            platform=self.token.account.platform,
            kind=self.token.kind,
            at=clock.now(),
            reason=self.reason.value,
            client=self.client[:100],
            endpoint=endpoint,
            outcome=outcome,
            errcode=failure.errcode if failure else None,
            error=str(failure)[:255] if failure else "",
            rid=failure.rid[:64] if failure else "",
            duration_ms=max(int((clock.monotonic() - self.began) * 1000), 0),
            version=self.token.version,
        )
        try:
            with private() as using:
                entry.save(using=using)
        except (DatabaseError, InterfaceError) as exc:
            logger.warning("A refresh of %s left no log row: %s", self.ref, type(exc).__name__)
        self._tell(flight, signals.refresh_finished, entry=entry)

    def _alert(self, flight: Flight, failure: UpstreamError) -> None:
        judged_by_table = failure.errcode is not None or isinstance(failure, TransportError | AnswerError)
        self._tell(
            flight,
            signals.attention_needed,
            error_class=failure.error_class,
            errcode=failure.errcode,
            message=str(failure),
            action=self.source.explain(failure).advise(failure.egress_ip, on_stable=not self.displaces())
            if judged_by_table
            else "",
            usable_until=schedule.usable_until(self.token, self.overlap),
        )

    def _tell(self, flight: Flight, signal: Signal, **payload: object) -> None:
        flight.tell(partial(signal.send_robust, Token, appid=self.ref, kind=self.token.kind, **payload))


def _broken(exc: BaseException, *, has_left: bool) -> UpstreamError:
    """An exception nobody expected, as a failure to be stored. Its type only: its text may hold anything (S2)."""
    return UpstreamError(
        f"The request broke off with {type(exc).__name__}.",
        error_class=ErrorClass.UNKNOWN,
        may_have_issued=has_left,
        has_left=has_left,
    )


def _forced_refresh_spent(wait: dt.timedelta, *, has_left: bool) -> UpstreamError:
    return UpstreamError(
        "WeChat refuses the current token but returns it again, and no forced refresh may leave now.",
        error_class=ErrorClass.QUOTA,
        retry_after=wait.total_seconds(),
        has_left=has_left,
    )


def _warn_of_skew(issued: Issued) -> None:
    if issued.skew is not None and abs(issued.skew) > TOLERATED_SKEW:
        logger.warning(
            "This host's clock differs from WeChat's by %.0f s: tokens may be served too long or renewed "
            "too early. Synchronise it (NTP).",
            issued.skew,
        )
