"""THE refresh: read → decide → needs → claim → fetch → store → tell.

Beat, callers, complaints, admin and commands come here. One door, :func:`begin`; what happens behind it is read top to
bottom in :class:`_Refresh`. What to do and what to write is decided in :mod:`schedule` from the row and the time; this
file does it, in a flight of its own (:mod:`ground`), with the database at hand for a step at a time
(:mod:`connections`).

Every ending is recorded (R31): what can fail by itself happens before the claim, and from the claim on whatever is
raised ends as a stored failure or success, with its row in the log and its signals.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from django.db import DatabaseError, InterfaceError

from .. import clock
from ..conf import get_settings
from ..exceptions import (
    AccountInactive,
    ConfigurationError,
    EncryptionKeyError,
    UpstreamError,
)
from ..models import RefreshLog, Token
from ..platforms import Material, Need
from ..redaction import Secret
from . import accounts, complaints, ground, hosts, needs, rows, schedule, served
from .attempt import Attempt, Result
from .connections import PATIENCE, lock_is_held, patiently, private
from .ground import Flight, Key
from .outcome import Complaint, Held, Outcome, Status
from .schedule import Action, Fields, Reason
from .served import Entry

logger = logging.getLogger("wechat_token")

READ_PATIENCE: Final = 1.0  # the same for a reader, who may have something to fall back on
ALONE: Final = 60.0  # seconds for which a flight that is locked out goes on after its callers have left
UNCLAIMED_AFTER: Final = 0.5  # seconds of lock after which a request that cannot displace leaves unclaimed
STORE_PATIENCE: Final = 300.0  # seconds for which an answer of WeChat's is offered to the database
STORE_ALONE: Final = 1.0  # longest pause between these offers
MATERIAL_SECONDS: Final = 5.0  # how long after it was got a need may be used
LANDING: Final = 2.0  # seconds for which a person waits for the record of what they did
POLL_FIRST, POLL_LAST = 0.05, 0.25  # seconds between looks at another process's refresh


def begin(
    key: Key, reason: Reason, *, complaint: Complaint | None = None, client: str = "", scheduled: bool | None = False,
    look_in_cache: bool = False, forced: bool = False,
) -> Flight:  # fmt: skip
    """The one door: a refresh of ``key`` in a flight, or the one under way. Its ``result`` is an :class:`Outcome`, or
    raises ``AccountNotFound``, ``AccountInactive``, ``EncryptionKeyError``, ``ConfigurationError`` or a database error;
    an upstream failure is an outcome, not an exception.

    ``scheduled``: counts against the batch's threads, not the callers'; None: another flight needs it.
    ``look_in_cache``: whoever asks could not.
    ``forced``: ask for a new token although the old one is good, within WeChat's ration (R9); by hand only.
    Raises ``ground.Crowded``, and ``ConfigurationError`` where this site fetches nothing.
    """
    refuse_where_nothing_is_fetched()

    def work(flight: Flight) -> None:
        if not (look_in_cache and _answered_by_cache(flight)):
            _Refresh(flight, reason, complaint, client, forced=forced).run()

    return ground.start(key, work, scheduled=scheduled, about=complaint)


def refuse_where_nothing_is_fetched() -> None:
    """Raises ``ConfigurationError`` on a site that makes no call to WeChat."""
    settings = get_settings()
    if settings.remote_url:
        # Accounts may be here with a copied database; renewing them here would kill the other site's tokens.
        raise ConfigurationError("This site takes its tokens from REMOTE_URL and renews none itself.")
    if settings.paused:
        raise ConfigurationError("This site is paused (WECHAT_TOKEN['PAUSED']) and makes no call to WeChat.")


def refresh_now(key: Key, reason: Reason, client: str = "", *, forced: bool = False) -> Outcome:
    """Refresh for somebody who waits for what becomes of it: the admin, a command. ``forced``: see :func:`begin`.

    Raises what :func:`begin` names, and ``ground.NotYet``.
    """
    settings = get_settings()
    give_up_at = clock.monotonic() + settings.wait_timeout + settings.lease
    while True:
        former = ground.under_way(key)
        flight = begin(key, reason, client=client, forced=forced)
        outcome: Outcome = ground.wait(flight, give_up_at - clock.monotonic())
        joined_in_vain = forced or outcome.status in (Status.CURRENT, Status.ACCEPTED, Status.UNDECIDED)
        ours = flight is not former or not joined_in_vain
        with suppress(ground.NotYet):  # a command may end the process next: let the record be written
            ground.wait_landed(flight, LANDING if ours else give_up_at - clock.monotonic())
        if ours or clock.monotonic() >= give_up_at:
            return outcome


def _answered_by_cache(flight: Flight) -> bool:
    known = served.recall(flight.key)
    found = served.look_up(flight.key, known)
    now = clock.now()
    if found is None or not served.is_confirmed(found, now):
        return False
    entry = served.remember(found)
    flight.answer(Outcome(Status.CURRENT, Token(pk=entry.token_id), entry))
    turn = schedule.callers_turn(entry.due_at, entry.usable_until, get_settings().caller_grace)
    return turn is None or now < turn


class _Refresh:
    """One refresh, in its flight."""

    def __init__(
        self, flight: Flight, reason: Reason, complaint: Complaint | None, client: str, *, forced: bool
    ) -> None:
        self.flight = flight
        self.reason = reason
        self.complaint = complaint
        self.forced = forced
        self.client = complaint.client if complaint is not None else client
        self.payer = complaint.payer if complaint is not None else ""
        self.began = clock.monotonic()
        self.attempt: Attempt | None = None
        self.held_back: Attempt | None = None
        self.unclaimed = False
        self.material: Material | None = None
        self.material_until = 0.0  # monotonic
        self.repeated = False  # whether a need was blamed: at most one further fetch follows (R21)

    def run(self) -> None:
        outcome = self._claim_and_ask()
        self.flight.answer(outcome)
        if outcome.status is Status.CURRENT and outcome.entry is not None:
            served.share(outcome.entry)

    def _claim_and_ask(self) -> Outcome:
        outcome = self._claimed_or_done()
        if outcome is None:
            assert self.attempt is not None  # noqa: S101  for the type checker: claimed means there is one
            outcome = self._ask(self.attempt)
        return outcome

    # -- before anything is at stake ---------------------------------------------------------------

    def _claimed_or_done(self) -> Outcome | None:
        """Read, decide and claim; again while a lock or another process is in the way. None: go on and ask WeChat."""
        pause = POLL_FIRST
        give_up_at = self.began + get_settings().wait_timeout
        failing_since: float | None = None
        while True:
            tried_at = clock.monotonic()
            try:
                with private():
                    outcome = self._read_decide_claim()
                failing_since = None
                self.flight.goes_on("another process is fetching it")
            except (EncryptionKeyError, ConfigurationError) as exc:
                with suppress(DatabaseError), private():
                    hosts.report(exc)
                raise
            except AccountInactive:
                with suppress(DatabaseError), private():
                    self._sleep_while_inactive()
                raise
            except (DatabaseError, InterfaceError) as exc:
                now = clock.monotonic()
                if lock_is_held(exc):
                    self.flight.is_blocked("waiting for a lock on its row in the database", tried_at)
                    if self._may_leave_unclaimed():
                        self.unclaimed = True
                        return None
                    if now - self.began > max(ALONE, get_settings().wait_timeout) and not self.flight.is_awaited:
                        raise
                else:
                    self.flight.goes_on(f"waiting for the database ({type(exc).__name__})")
                    failing_since = now if failing_since is None else failing_since
                    if now - failing_since > (READ_PATIENCE if self.reason is Reason.CALLER else PATIENCE):
                        self._keep_what_is_known()
                        raise
                clock.sleep(POLL_FIRST)
                continue
            if outcome is not None and outcome.status is Status.WAITING:
                waiting = self._get_needs(outcome)
                if waiting is None:
                    continue
                return waiting
            if outcome is None or outcome.status is not Status.BUSY:
                if self.held_back is not None and outcome is not None and outcome.error is not None:
                    self.held_back.log_held_back(self.flight, outcome.error)
                return outcome
            if not self.flight.is_awaited or clock.monotonic() > give_up_at:
                return outcome
            clock.sleep(pause)
            pause = min(pause * 1.5, POLL_LAST)

    def _keep_what_is_known(self) -> None:
        """The database is down: readers go on with what memory has for a while, without waiting each time (R13)."""
        known = served.recall(self.flight.key)
        if known is not None and clock.monotonic() < known.dead_at:
            served.go_blind(known)

    def _may_leave_unclaimed(self) -> bool:
        """Whether the caller may be what holds the lock that the claim needs, and the request can do no harm (R1). Not
        where no caller has a transaction: then it is a queue for the row, such as a crowd makes on a busy server.
        """
        attempt = self.attempt
        return (
            attempt is not None
            and attempt.call is not None
            and self.complaint is None
            and not self.forced
            and not attempt.displaces()
            and self.flight.locked_for >= UNCLAIMED_AFTER
            and self.flight.may_hold_lock
        )

    def _read_decide_claim(self) -> Outcome | None:
        """One look at the row on one connection. None: it is claimed for us."""
        if self.attempt is not None and self.attempt.has_claimed():
            return None
        self.attempt = None
        token = accounts.find(self.flight.key, may_make=True)
        attempt = Attempt(token, self.reason, self.client)
        now = clock.now()
        attempt.judge_readable()
        entry = served.entry_of(token, now)
        if entry is not None:
            self.flight.current = Outcome(Status.CURRENT, token, served.remember(entry))
        elif token.version:  # what memory has of it is dead, whatever it says of itself
            served.drop(self.flight.key, (token.version, token.revision))
        if self.complaint is not None:
            outcome = self._judge_complaint(attempt, self.complaint, entry)
            if outcome is not None:
                return outcome
        elif self.reason is Reason.CALLER and entry is not None:
            # A reader waits for no renewal while there is a usable token (R4).
            self.flight.answer(self.flight.current)
            turn = schedule.callers_turn(entry.due_at, entry.usable_until, get_settings().caller_grace)
            if turn is not None and now < turn:
                return Outcome(Status.CURRENT, token, entry)
        decision = attempt.decide(now)
        if decision.action is Action.FETCH:
            if self.forced and attempt.may_force_at(now) > now:
                return Outcome(Status.LIMITED, token, entry, attempt.may_force_at(now))
            if self._lacks_needs(attempt):
                self.attempt = attempt
                return Outcome(Status.WAITING, token, entry)
            attempt.prepare(self.material or Material())
            self.attempt = attempt
            undeclared = self.complaint is not None or self.forced
            return None if attempt.claim(now, probing=undeclared) else Outcome(Status.BUSY, token)
        if decision.action is Action.LIMITED:
            why = attempt.hold_back(decision.until)
            self.held_back = attempt
            return Outcome(Status.LIMITED, token, entry, decision.until, why)
        if decision.action is Action.SLEEP:
            rows.fall_asleep(token)
        status = Status.BUSY if decision.action is Action.BUSY else Status.CURRENT
        return Outcome(status, token, entry, decision.until)

    # -- what it needs (R20) -----------------------------------------------------------------------

    def _lacks_needs(self, attempt: Attempt) -> bool:
        in_hand = self.material is not None and clock.monotonic() < self.material_until
        return bool(attempt.source.needs) and not in_hand

    def _get_needs(self, found: Outcome) -> Outcome | None:
        """Get them, with nothing claimed and no connection held. None: look at the row again."""
        attempt = self.attempt
        assert attempt is not None  # noqa: S101  for the type checker: set where the needs were missed
        self.attempt = None
        give_up_at = self.began + get_settings().wait_timeout
        gathered = needs.gather(self.flight, attempt.source.needs, begin, give_up_at)
        if isinstance(gathered, Held):
            return self._wait_for(attempt, gathered, found)
        self.material, self.material_until = gathered, clock.monotonic() + MATERIAL_SECONDS
        return None

    def _wait_for(self, attempt: Attempt, held: Held, found: Outcome) -> Outcome | None:
        """Waiting is no failure (R22): no streak and no alert, just a later due time. None: the row has changed,
        perhaps because what it waits for has come.
        """
        fields = schedule.waiting(attempt.token, held.root, held.until, clock.now())
        in_time = clock.monotonic() < self.began + get_settings().wait_timeout
        if fields and not self._patiently(lambda: self._begin_to_wait(attempt, fields)) and in_time:
            return None
        return Outcome(Status.WAITING, attempt.token, found.entry, held.until, held=held)

    def _begin_to_wait(self, attempt: Attempt, fields: Fields) -> bool:
        """Whether it does: not if the row has changed, nor if what it waits for has come by now. Who brings that looks
        for those who wait when it is stored, so that one of the two sees the other.
        """
        if not rows.write(attempt.token, fields):
            return False
        overlap = get_settings().overlap
        roots = [rows.find((self.flight.key[0], need.kind)) for need in attempt.source.needs]
        return not all(root is not None and schedule.is_usable(root, clock.now(), overlap) for root in roots)

    def _blamed(self, attempt: Attempt, result: Result) -> Need | None:
        if self.repeated or self.unclaimed or not isinstance(result, UpstreamError) or result.errcode is None:
            return None
        return attempt.source.blame(result.errcode)

    def _lay_blame(self, attempt: Attempt, need: Need, failure: UpstreamError) -> Outcome:
        """A need was refused: complain about that very value and, if there is another one, try once more (R21)."""
        self.repeated, self.material, self.attempt = True, None, None
        entry = served.entry_of(attempt.token, clock.now())
        if not self._patiently(attempt.lay_down):
            return self._superseded(attempt, may_have_issued=False)
        attempt.log(self.flight, RefreshLog.Outcome.FAILED, endpoint=attempt.endpoint(), failure=failure)
        stale = attempt.material[need]
        complaint = Complaint(stale, self.client or attempt.token.kind, attempt.token.kind)
        answer = needs.complain(self.flight, need, complaint, begin, self.began + get_settings().wait_timeout)
        if isinstance(answer, Entry) and Secret(answer.value) == stale:  # it is not to blame
            self._patiently(partial(attempt.fail, failure))
            attempt.alert_if_news(self.flight, failure)
            return self._outcome(attempt, failure, attempt.token)
        if isinstance(answer, Held):
            found = Outcome(Status.FAILED, attempt.token, entry, error=failure)
            return self._wait_for(attempt, answer, found) or found
        return self._claim_and_ask()

    # -- complaints --------------------------------------------------------------------------------

    def _judge_complaint(self, attempt: Attempt, complaint: Complaint, entry: Entry | None) -> Outcome | None:
        """What needs no call: a complaint about an older token (R8), one just judged, one too many (R33)."""
        token, now = attempt.token, clock.now()
        if entry is None:
            # Everybody knows already: an ordinary caller without a token.
            self.complaint, attempt.reason = None, Reason.CALLER
            self.reason = Reason.CALLER
            return None
        if Secret(entry.value) != complaint.stale:
            return Outcome(Status.CURRENT, token, entry)
        if complaints.is_judged(token, now, repeats=attempt.source.repeats):
            return Outcome(Status.ACCEPTED, token, entry)
        if complaints.complaint_allowance(token, complaint.payer, now) < 1:
            fields = complaints.refused(token, now)
            if fields and not schedule.lease_is_live(token, now, attempt.lease):
                rows.write(token, fields)
            return Outcome(Status.LIMITED, token, entry, complaints.next_complaint_at(token, complaint.payer, now))
        return None

    def _sleep_while_inactive(self) -> None:
        """An account that is off is never due. Its edit says so; where that was lost, whoever finds it does."""
        token = rows.find(self.flight.key)
        if token is not None and token.due_at is not None and not token.lease_owner:
            rows.write(token, {"due_at": None, "edition": token.account.edition})

    @property
    def _locked(self) -> str:
        return " while a lock is held on its row in the database" if self.unclaimed else ""

    # -- from the claim to the store ---------------------------------------------------------------

    def _ask(self, attempt: Attempt) -> Outcome:
        self.flight.goes_on(f"asking WeChat{self._locked}")
        if self.forced:
            return self._by_force(attempt)
        if self.complaint is not None:
            verdict = attempt.probe()
            if verdict is not None:
                accepted, failure = verdict
                if accepted:
                    return self._complaint_was_false(attempt)
                return self._cannot_tell(attempt, failure)
            refused = self._refused(attempt)
            if refused is not None:
                return refused
        result = attempt.fetch(unclaimed=self.unclaimed)
        need = self._blamed(attempt, result)
        if need is not None and isinstance(result, UpstreamError):
            return self._lay_blame(attempt, need, result)
        if attempt.needs_force(result):
            forced = self._forced(attempt)
            if forced is None:
                return self._superseded(attempt, may_have_issued=False)
            result = forced
        return self._store(attempt, result)

    def _complaint_was_false(self, attempt: Attempt) -> Outcome:
        fields = complaints.accepted(attempt.token, self.payer, clock.now())
        self._patiently(partial(attempt.release, **fields))
        attempt.log(self.flight, RefreshLog.Outcome.REFUSED, endpoint="probe")
        return Outcome(Status.ACCEPTED, attempt.token, served.entry_of(attempt.token, clock.now()))

    def _cannot_tell(self, attempt: Attempt, failure: UpstreamError | None) -> Outcome:
        """Nothing is marked, forced or counted (R29). A plain request that cannot displace may find a new token."""
        also = complaints.undecided(clock.now())
        if not attempt.displaces() and not attempt.outdated and self._patiently(partial(attempt.declare, forced=False)):
            result = attempt.fetch()
            if isinstance(result, UpstreamError):
                need = self._blamed(attempt, result)
                if need is not None:
                    return self._lay_blame(attempt, need, result)
                if not result.has_left:
                    also["usage"] = attempt.before.usage
            elif attempt.source.repeats:
                attempt.same, attempt.answers = attempt.is_held(result), self.payer
                return self._store(attempt, result)
            elif not attempt.is_held(result):
                return self._store(attempt, result)
        self._patiently(partial(attempt.release, **also))
        attempt.log(self.flight, RefreshLog.Outcome.UNDECIDED, endpoint="probe", failure=failure)
        return Outcome(Status.UNDECIDED, attempt.token, served.entry_of(attempt.token, clock.now()), error=failure)

    def _refused(self, attempt: Attempt) -> Outcome | None:
        """WeChat refuses the token: it is served no more, here and elsewhere. None: fetch another."""
        self.flight.current = None
        attempt.note_refusal(self.flight)
        until = attempt.spared_until()
        if until is not None:
            return self._refused_without_a_call(attempt, until)
        if not self._patiently(partial(attempt.declare, forced=False, **attempt.refusal)):
            return self._superseded(attempt, may_have_issued=False)
        served.withdraw(self.flight.key, (attempt.token.version, attempt.token.revision))
        return None

    def _refused_without_a_call(self, attempt: Attempt, until: dt.datetime) -> Outcome:
        why: UpstreamError | None = None
        with suppress(DatabaseError, InterfaceError):
            why = patiently(partial(attempt.give_up_until, until))
            attempt.log_held_back(self.flight, why)
        served.withdraw(self.flight.key, (attempt.token.version, attempt.token.revision))
        return Outcome(Status.LIMITED, attempt.token, None, until, why)

    def _forced(self, attempt: Attempt) -> Result | None:
        """R9: WeChat refuses this very token and yet hands it out again. Only a forced refresh helps."""
        spent = attempt.forced_refresh_spent()
        if spent is not None:
            return spent
        if not self._patiently(partial(attempt.declare, forced=True)):
            return None
        result = attempt.fetch(forced=True)
        return attempt.forced_in_vain() if attempt.is_held(result) else result

    def _by_force(self, attempt: Attempt) -> Outcome:
        """A person wants a new token now. On an endpoint without a ration of its own every request brings one."""
        forced = attempt.has_forced_refresh()
        if not self._patiently(partial(attempt.declare, forced=forced)):
            return self._superseded(attempt, may_have_issued=False)
        result = attempt.fetch(forced=forced)
        need = self._blamed(attempt, result)
        if need is not None and isinstance(result, UpstreamError):
            return self._lay_blame(attempt, need, result)
        attempt.same = attempt.is_held(result)
        return self._store(attempt, result)

    # -- the store ---------------------------------------------------------------------------------

    def _store(self, attempt: Attempt, result: Result) -> Outcome:
        """Offer the result to the database, answer after the first attempt, and go on until it is taken."""
        flight = self.flight
        flight.goes_on(f"storing the token{self._locked}")
        flight.holds_answer = not isinstance(result, UpstreamError)
        fields = attempt.fields_for(result)
        give_up_at = clock.monotonic() + STORE_PATIENCE
        pause = POLL_FIRST
        while True:
            tried_at = clock.monotonic()
            try:
                with private():
                    stored = attempt.store(fields)
                break
            except (DatabaseError, InterfaceError) as exc:
                answer = self._outcome(attempt, result, attempt.as_if_stored(fields))
                flight.current = answer if answer.entry is not None else None
                flight.answer(answer)
                if lock_is_held(exc):
                    flight.is_blocked("waiting for a lock on its row, to store the token", tried_at)
                if clock.monotonic() > give_up_at:
                    return self._not_stored(attempt, self._outcome(attempt, result, attempt.as_if_stored(fields)))
            clock.sleep(pause)
            pause = min(pause * 1.5, STORE_ALONE)
        flight.holds_answer = False
        if not stored:
            return self._superseded(attempt, may_have_issued=getattr(result, "may_have_issued", True))
        outcome = self._outcome(attempt, result, attempt.token)
        flight.current = outcome if outcome.entry is not None else None
        if outcome.entry is not None:
            served.remember(outcome.entry)
        flight.answer(outcome)
        if outcome.entry is not None:
            served.share(outcome.entry)
        else:
            served.withdraw(flight.key, (attempt.token.version, attempt.token.revision))
        attempt.log_result(flight, result)
        return outcome

    def _not_stored(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """The database did not take it: let this process live on it (R13). The row's lease and intent are still there
        and bring a repair when the database is back.
        """
        logger.error("A token could not be stored for %.0f s: account=%s", STORE_PATIENCE, attempt.ref)
        if outcome.entry is not None:
            served.remember(outcome.entry)
        return outcome

    def _outcome(self, attempt: Attempt, result: Result, token: Token) -> Outcome:
        entry = served.entry_of(token, clock.now())
        if isinstance(result, UpstreamError):
            return Outcome(Status.FAILED, token, entry, token.due_at, result)
        return Outcome(Status.UNCHANGED if attempt.same else Status.RENEWED, token, entry)

    def _superseded(self, attempt: Attempt, *, may_have_issued: bool) -> Outcome:
        """Somebody took the lease from us. If our request displaces, one of the two tokens is dead: repair (R2)."""
        self._patiently(partial(attempt.step_back, may_have_issued=may_have_issued))
        attempt.log(self.flight, RefreshLog.Outcome.SUPERSEDED, endpoint=attempt.endpoint())
        return Outcome(Status.SUPERSEDED, attempt.token, served.entry_of(attempt.token, clock.now()))

    def _patiently(self, step: Callable[[], bool]) -> bool:
        """A step under our lease; False if the database does not take it. The lease ends by itself: what could not be
        given back falls due then.
        """
        try:
            return patiently(step)
        except (DatabaseError, InterfaceError):
            return False
