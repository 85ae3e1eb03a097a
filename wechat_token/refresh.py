"""THE refresh: decide → claim → fetch → store → publish. Beat, callers, complaints, admin and commands all come here.

Read top to bottom. What to do and what to write is decided in :mod:`wechat_token.schedule` from the row and the time;
this file does it. Every write is one conditional UPDATE that commits at once: nobody may call :func:`refresh` inside
a transaction that is not a test's (callers go through :func:`wechat_token.transactions.outside`).
"""

from __future__ import annotations

import copy
import datetime as dt
import enum
import logging
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from django.db import DatabaseError, InterfaceError, OperationalError
from django.dispatch import Signal

from . import clock, rows, schedule, shelf, signals
from .conf import get_settings
from .exceptions import (
    AccountInactive,
    AnswerError,
    ConfigurationError,
    ErrorClass,
    TransportError,
    UpstreamError,
)
from .models import RefreshLog, Token
from .platforms import CredentialSource, Issued, source_for
from .platforms.errcodes import explain
from .redaction import Secret
from .schedule import Action, Fields, Reason

logger = logging.getLogger("wechat_token")
T = TypeVar("T")

TOLERATED_SKEW = 30.0  # seconds between WeChat's clock and ours that every margin of the schedule absorbs


class Status(enum.Enum):
    RENEWED = "renewed"  # a new token is stored
    UNCHANGED = "unchanged"  # WeChat returned the token we hold; its times are stored
    CURRENT = "current"  # no call: not due, or the complaint named a token that is no longer current
    ACCEPTED = "accepted"  # complaint refused: WeChat still accepts the token
    BUSY = "busy"  # somebody else is at it
    LIMITED = "limited"  # no call: a guard holds it back
    FAILED = "failed"
    SUPERSEDED = "superseded"  # our answer came too late to be stored


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a refresh did, and the row afterwards. ``until``: when to ask again, where that is known."""

    status: Status
    token: Token
    until: dt.datetime | None = None
    error: UpstreamError | None = None


def refresh(token_id: int, *, reason: Reason, stale: Secret | None = None, client: str = "") -> Outcome:
    """Renew one token if this is the moment and nobody else is doing it.

    ``stale``: for a complaint, the token that was refused (R8). ``client``: the name of who asked, for the log.
    Raises ``AccountNotFound``, ``AccountInactive``, ``EncryptionKeyError`` and database errors; an upstream failure
    is an outcome, not an exception.
    """
    if get_settings().remote_url:
        # Accounts may be here with a copied database; renewing them here would kill the other site's tokens.
        raise ConfigurationError("This site takes its tokens from REMOTE_URL and renews none itself.")
    token = rows.load(token_id)
    if not token.account.is_active:
        raise AccountInactive(f"The WeChat account {token.account.appid} is inactive. Activate it in the admin.")
    run = _Run(token, reason, client)
    now = clock.now()
    if stale is not None:
        if not schedule.is_usable(token, now, run.overlap):
            stale, reason = None, Reason.CALLER  # everybody knows already: an ordinary caller without a token
        elif not _same(token.value, stale):
            return Outcome(Status.CURRENT, token)  # R8: the complaint is about an older token
        elif schedule.recently_accepted(token, now):
            return Outcome(Status.ACCEPTED, token)
    decision = schedule.decide(
        token, now, reason=reason, lease=run.lease, overlap=run.overlap,
        endpoint=run.endpoint(), daily_limit=run.source.daily_limit(token.account, forced=False),
    )  # fmt: skip
    if decision.action is Action.BUSY:
        return Outcome(Status.BUSY, token, decision.until)
    if decision.action is Action.NOT_DUE:
        return Outcome(Status.CURRENT, token, decision.until)
    if decision.action is Action.LIMITED:
        return run.limited(decision.until)
    if stale is not None and schedule.complaint_allowance(token, now) < 1:
        return Outcome(Status.LIMITED, token, schedule.next_complaint_at(token, now))
    if not run.claim(now, complaint=stale is not None):
        return Outcome(Status.BUSY, token)
    if stale is not None:
        verdict = run.probe()
        if verdict is not None:
            return verdict
    return run.fetch_and_store()


@dataclass(slots=True)
class _Run:
    """One refresh under way: the row as we last wrote it, and what is needed to write it again."""

    token: Token
    reason: Reason
    client: str
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)
    lease: float = field(default_factory=lambda: get_settings().lease)
    overlap: float = field(default_factory=lambda: get_settings().overlap)
    source: CredentialSource = field(init=False)
    before: Token = field(init=False)  # the row as it was before the intent of the latest request
    started: float = field(default_factory=clock.monotonic)
    leased_at: float = 0.0  # monotonic, just before the latest write that begins or extends our lease
    forced: bool = False  # whether the latest request we declared is a forced one
    due_before: dt.datetime | None = None

    def __post_init__(self) -> None:
        self.source = source_for(self.token.kind)
        self.before = copy.copy(self.token)
        self.due_before = self.token.due_at

    def endpoint(self, *, forced: bool = False) -> str:
        return self.source.endpoint(self.token.account, forced=forced)

    def displaces(self, *, forced: bool = False) -> bool:
        return self.source.displaces(self.token.account, forced=forced)

    # -- claim -------------------------------------------------------------------------------------

    def claim(self, now: dt.datetime, *, complaint: bool) -> bool:
        """Take the lease, in the same UPDATE as the intent (R2); a complaint's first call only probes."""
        self.leased_at = clock.monotonic()
        fields = schedule.claim(self.token, now, owner=self.owner, lease=self.lease)
        if complaint:
            fields |= schedule.complaint_spent(self.token, now)
        else:
            fields |= self._intent(now, forced=False)
        return rows.persist(lambda: rows.write(self.token, fields), patience=rows.PATIENCE)

    def _intent(self, now: dt.datetime, *, forced: bool) -> Fields:
        return schedule.intent(
            self.token, now, lease=self.lease, endpoint=self.endpoint(forced=forced),
            displaces=self.displaces(forced=forced), forced=forced,
        )  # fmt: skip

    def declare(self, *, forced: bool, **also: object) -> bool:
        """Write the intent of a further request under the lease we hold. False: we have been overtaken."""
        self.before = copy.copy(self.token)
        self.leased_at = clock.monotonic()
        fields = self._intent(clock.now(), forced=forced) | also
        declared = rows.persist(lambda: rows.write(self.token, fields, owner=self.owner), patience=rows.PATIENCE)
        self.forced = declared and forced
        return declared

    # -- fetch -------------------------------------------------------------------------------------

    def probe(self) -> Outcome | None:
        """Ask WeChat whether it still accepts the token complained about. None: it does not, go on and fetch (R8)."""
        try:
            accepted = self.source.is_accepted(self.token.account, self.token.value)
            failure = None
        except UpstreamError as exc:
            accepted, failure = None, exc
        if failure is not None:
            self._release()
            self._log(RefreshLog.Outcome.FAILED, endpoint="probe", failure=failure)
            return Outcome(Status.FAILED, self.token, self.due_before, failure)
        if accepted:
            self._release(accepted_at=clock.now())
            self._log(RefreshLog.Outcome.REFUSED, endpoint="probe")
            return Outcome(Status.ACCEPTED, self.token)
        foreign_before = self.token.foreign_refreshes
        if not self.declare(forced=False, **schedule.rejected(self.token, clock.now())):
            return Outcome(Status.SUPERSEDED, self.token)
        shelf.forget((self.token.account.appid, self.token.kind))
        if self.token.foreign_refreshes > foreign_before:
            self._send(signals.foreign_refresh_detected, count=self.token.foreign_refreshes)
        return None

    def fetch_and_store(self) -> Outcome:
        issued = self._fetch(forced=False)
        if isinstance(issued, UpstreamError):
            return self.store_failure(issued, forced=False)
        same = self._is_held(issued)
        rule = self.source.forced_refresh(self.token.account)
        if same and rule is not None and self.token.rejected_version == self.token.version:
            # R9: WeChat refuses this very token and yet hands it out again. Only a forced refresh helps.
            now = clock.now()
            allowed_at = schedule.forced_refresh_allowed_at(self.token, rule, self.endpoint(forced=True), now)
            if allowed_at > now:
                return self.store_failure(_forced_refresh_spent(allowed_at - now), forced=True)
            if not self.declare(forced=True):
                return self.superseded()
            issued = self._fetch(forced=True)
            if isinstance(issued, UpstreamError):
                return self.store_failure(issued, forced=True)
            if self._is_held(issued):
                return self.store_failure(_forced_refresh_spent(schedule.seconds(rule.min_gap)), forced=True)
            same = False
        return self.store_success(issued, same=same)

    def _fetch(self, *, forced: bool) -> Issued | UpstreamError:
        held_up = self._held_up()
        if held_up > get_settings().lease_margin:
            # This process stood still since it wrote its intent. What it sent now could arrive after the lease, when
            # somebody else has a newer token, and displace that one unnoticed (R2).
            return TransportError(
                f"Held up for {held_up:.0f} s before the request, which was not sent.", may_have_issued=False
            )
        try:
            return self.source.fetch(self.token.account, forced=forced)
        except UpstreamError as exc:
            return exc

    def _held_up(self) -> float:
        """Seconds since our lease was written, by the clock that says more: a suspended machine stops one of them."""
        by_lease = 0.0
        if self.token.lease_until is not None:
            by_lease = (clock.now() - self.token.lease_until).total_seconds() + self.lease
        return max(clock.monotonic() - self.leased_at, by_lease)

    def _is_held(self, issued: Issued) -> bool:
        return bool(self.token.version) and _same(self.token.value, issued.value)

    # -- store -------------------------------------------------------------------------------------

    def store_success(self, issued: Issued, *, same: bool) -> Outcome:
        renewal = self.source.renewal(self.token.account, issued.expires_in)
        chance = random.random()  # noqa: S311  jitter, not a secret

        def fields(token: Token) -> Fields:
            return schedule.after_success(token, issued, same=same, now=clock.now(), renewal=renewal, chance=chance)

        try:
            stored = self._store(fields)
        except (OperationalError, InterfaceError):
            # WeChat has issued it and the database is gone: let the cache and this process live on it (R13).
            # The row's lease and intent are still there and bring a repair when the database is back.
            logger.exception("A new WeChat token could not be stored: account=%s", self.token.account.appid)
            rows.assign(self.token, fields(self.token))
            stored = True
        if not stored:
            return self.superseded()
        if issued.skew is not None and abs(issued.skew) > TOLERATED_SKEW:
            logger.warning(
                "This host's clock differs from WeChat's by %.0f s: tokens may be served too long or renewed "
                "too early. Synchronise it (NTP).",
                issued.skew,
            )
        self._publish()
        outcome = RefreshLog.Outcome.UNCHANGED if same else RefreshLog.Outcome.RENEWED
        self._log(outcome, endpoint=self.endpoint())
        return Outcome(Status.UNCHANGED if same else Status.RENEWED, self.token)

    def store_failure(self, failure: UpstreamError, *, forced: bool) -> Outcome:
        displaces = self.displaces(forced=forced)
        limit = self.source.daily_limit(self.token.account, forced=forced)
        chance = random.random()  # noqa: S311  jitter, not a secret
        now = clock.now()

        def fields(token: Token) -> Fields:
            after = schedule.after_failure(
                token, self.before, failure, displaces=displaces, now=now, overlap=self.overlap, chance=chance,
                hurry=schedule.may_hurry(token, now, endpoint=self.endpoint(forced=forced), daily_limit=limit),
            )  # fmt: skip
            if schedule.deserves_alert(token, failure.error_class, now, self.overlap):
                after["alerted_at"] = now
            return after

        alerted_before = self.token.alerted_at
        if not self._store(fields):
            return self.superseded(may_have_issued=failure.may_have_issued)
        self._publish()
        lost = displaces and failure.may_have_issued
        self._log(
            RefreshLog.Outcome.LOST if lost else RefreshLog.Outcome.FAILED,
            endpoint=self.endpoint(forced=forced), failure=failure,
        )  # fmt: skip
        if self.token.alerted_at != alerted_before:
            self._alert(failure)
        return Outcome(Status.FAILED, self.token, self.token.due_at, failure)

    def _store(self, fields: Callable[[Token], Fields]) -> bool:
        """Write under our lease (R2). An edit of the row in between is taken in; a new owner fences us off."""

        def attempt() -> bool:
            while not rows.write(self.token, fields(self.token), owner=self.owner):
                fresh = Token.objects.select_related("account").filter(pk=self.token.pk).first()
                if fresh is None or fresh.lease_owner != self.owner:
                    return False
                self.token = fresh
            return True

        return rows.persist(attempt, patience=self.lease)

    def superseded(self, *, may_have_issued: bool = True) -> Outcome:
        """Somebody took the lease from us. If our request displaces, one of the two tokens is dead: repair (R2)."""
        sent_at = self.token.sent_at
        fresh = rows.load(self.token.pk)
        if may_have_issued and self.displaces(forced=self.forced) and sent_at is not None:
            while not rows.write(
                fresh, schedule.overtaken(fresh, sent_at, clock.now(), lease=self.lease)
            ):  # pragma: no branch
                fresh = rows.load(self.token.pk)
        self.token = fresh
        self._log(RefreshLog.Outcome.SUPERSEDED, endpoint=self.endpoint())
        return Outcome(Status.SUPERSEDED, fresh)

    def limited(self, until: dt.datetime | None) -> Outcome:
        """Our own daily guard (R16). Said once per streak; the row sleeps until the counters start anew."""
        if self.token.due_at is None or until is None or self.token.due_at < until:
            message = f"Held back: today's calls of the {self.endpoint()} endpoint are used up."
            fields: Fields = {
                "failures": self.token.failures + 1,
                "error_class": ErrorClass.QUOTA.value,
                "error": message,
                "failed_at": clock.now(),
                "due_at": until,
            }
            if rows.write(self.token, fields):
                self._publish()
                self._log(RefreshLog.Outcome.LIMITED, endpoint=self.endpoint())
                self._alert(UpstreamError(message, error_class=ErrorClass.QUOTA))
        return Outcome(Status.LIMITED, self.token, until)

    def _release(self, **also: object) -> None:
        """Give the lease back without a result; what was due before is due again."""
        fields = schedule.released(self.due_before) | also
        rows.persist(lambda: rows.write(self.token, fields, owner=self.owner), patience=rows.PATIENCE)

    # -- publish -----------------------------------------------------------------------------------

    def _publish(self) -> None:
        entry = shelf.entry_of(self.token, clock.now())
        if entry is None:
            shelf.forget((self.token.account.appid, self.token.kind))
        else:
            shelf.publish(entry)

    def _log(self, outcome: str, *, endpoint: str, failure: UpstreamError | None = None) -> None:
        """One row for every refresh (R15), written last and on its own: it may fail, the token may not."""
        entry = RefreshLog(
            account=self.token.account,
            kind=self.token.kind,
            at=clock.now(),
            reason=self.reason.value,
            client=self.client[:100],
            endpoint=endpoint,
            outcome=outcome,
            errcode=failure.errcode if failure else None,
            error=str(failure)[:255] if failure else "",
            rid=failure.rid[:64] if failure else "",
            duration_ms=max(int((clock.monotonic() - self.started) * 1000), 0),
            version=self.token.version,
        )
        try:
            entry.save()
        except DatabaseError as exc:
            logger.warning("A refresh of %s left no log row: %s", self.token.account.appid, type(exc).__name__)
        self._send(signals.refresh_finished, entry=entry)

    def _alert(self, failure: UpstreamError) -> None:
        judged_by_table = failure.errcode is not None or isinstance(failure, TransportError | AnswerError)
        self._send(
            signals.attention_needed,
            error_class=failure.error_class,
            errcode=failure.errcode,
            message=str(failure),
            action=explain(failure).advise(failure.egress_ip) if judged_by_table else "",
            usable_until=schedule.usable_until(self.token, self.overlap),
        )

    def _send(self, signal: Signal, **payload: object) -> None:
        signal.send_robust(Token, appid=self.token.account.appid, kind=self.token.kind, **payload)


def _forced_refresh_spent(wait: dt.timedelta) -> UpstreamError:
    return UpstreamError(
        "WeChat refuses the current token but returns it again, and no forced refresh may leave now.",
        error_class=ErrorClass.QUOTA,
        retry_after=wait.total_seconds(),
    )


def _same(stored: Secret, other: Secret) -> bool:
    return Secret(stored.reveal()) == other
