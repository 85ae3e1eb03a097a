"""Handing out tokens: memory → cache → database → refresh.

The way of a read: a token this process trusts is returned without a lock and without I/O (R18). A second later one
thread looks it up again, the others keep the old entry meanwhile. Nobody waits for WeChat while a usable token
exists (R4); without one, one flight fetches and the others wait for it, not for ever (R5, R30).
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial

from asgiref.sync import sync_to_async
from django.db import Error as AnyDatabaseError

from .. import clock, process
from ..conf import get_settings
from ..exceptions import (
    AccountError,
    ErrorClass,
    RefreshRateLimited,
    StoreUnavailable,
    TokenUnavailable,
)
from ..models import ACCESS_TOKEN, Account, Token
from ..redaction import Secret
from . import accounts, ground, remote, rows, schedule, served
from .connections import NotHere, in_place, private, read, read_here
from .ground import Crowded, Flight, Key, NotYet
from .outcome import Complaint, Held, Outcome, Status, may_try_again
from .refresh import begin
from .schedule import Reason
from .served import Entry

AccountRef = str | Account | None

IDLE_SECONDS = 1.0  # an entry nobody looked up for longer is looked up before any thread gets it


def get_access_token(account: AccountRef = None) -> str:
    """A token that WeChat accepts, for an AppID, an :class:`Account`, or (left out) the only or default account.

    Raises ``AccountError`` (not found, inactive, ambiguous; the message names the choices) and ``TokenUnavailable``
    with the cause and ``retry_after`` in seconds. Keep the result for one call, not longer: asking again is cheaper
    than a dictionary of your own.
    """
    if type(account) is str:
        entry = served.young.get((account, ACCESS_TOKEN))
        if entry is not None and clock.monotonic() < entry.fresh_until:
            return entry.value
    return current_entry(accounts.resolve(account)).value


def refresh_access_token(account: AccountRef = None, *, stale_token: str, client: str = "") -> str:
    """Complain that WeChat refused ``stale_token`` (40001, 40014, 42001), and get the token to use now (R8).

    If it is not the current token, the current one is returned and WeChat is not called. If WeChat still accepts it,
    or does not tell, it is returned itself: the refusal had another cause. Raises as :func:`get_access_token` does,
    and ``RefreshRateLimited`` when too many false complaints came from ``client``.
    """
    stale = Secret(stale_token)
    del stale_token  # error reports show the locals of every frame an error passes (S2)
    return _token_after_complaint(account, stale, client)


async def aget_access_token(account: AccountRef = None) -> str:
    """:func:`get_access_token` for async code. A usable token is returned without leaving the loop; for another
    account's nobody waits.
    """
    if type(account) is str:
        entry = served.young.get((account, ACCESS_TOKEN))
        if entry is not None and clock.monotonic() < entry.fresh_until:
            return entry.value
    return (await acurrent_entry(await aresolve(account))).value


async def arefresh_access_token(account: AccountRef = None, *, stale_token: str, client: str = "") -> str:
    """:func:`refresh_access_token` for async code."""
    stale = Secret(stale_token)
    del stale_token  # as above
    if in_place() or get_settings().remote_url:
        return await sync_to_async(_token_after_complaint)(account, stale, client)
    return (await acomplain(await aresolve(account), stale, client)).value


def _token_after_complaint(account: AccountRef, stale: Secret, client: str) -> str:
    return complain(accounts.resolve(account), stale, client=client).value


async def aresolve(account: AccountRef, kind: str = ACCESS_TOKEN) -> Key:
    if account is not None or get_settings().remote_url:
        return accounts.resolve(account, kind)
    return await sync_to_async(accounts.resolve)(None, kind)


# -- reading ---------------------------------------------------------------------------------------

# One thread of a process revalidates an entry. The lock guards the table only and is never held during I/O; the hot
# path does not come here.
_lock: threading.Lock
_revalidating: dict[Key, float]  # until when (monotonic) the other threads keep the old entry meanwhile
_noted_until: dict[Key, float]  # until when (monotonic) this process need not note again that somebody asks
process.keep(globals(), _lock=threading.Lock, _revalidating=dict, _noted_until=dict)


def current_entry(key: Key, *, over_http: bool = False) -> Entry:
    """The entry to serve for ``key`` (ref, kind) now. Raises as :func:`get_access_token` does.

    ``over_http``: a thread of the web server, of which only a few may wait for one account (R33).
    """
    known = served.recall(key)
    now = clock.monotonic()
    if known is not None and now < known.fresh_until:
        return known
    if known is None or now >= known.dead_at:
        return _look_or_fetch(key, None, over_http=over_http)
    with _lock:
        others_keep_it_until = _revalidating.get(key)
        if others_keep_it_until is None:
            _revalidating[key] = _others_keep_until(known, now)
    if others_keep_it_until is not None:
        return known if now < others_keep_it_until else _look_or_fetch(key, known, over_http=over_http)
    try:
        return _look_or_fetch(key, known, over_http=over_http)
    finally:
        with _lock:
            _revalidating.pop(key, None)


def _others_keep_until(known: Entry, now: float) -> float:
    """Until when (monotonic) other threads may have an entry that one thread has just begun to look up.

    An entry in constant use was verified a moment ago; even if the look-up hangs, its token outlives a renewal
    elsewhere by the overlap, less the age it may have had in the cache. One that lay idle may be out of date by hours.
    """
    if now >= known.fresh_until + IDLE_SECONDS:
        return 0.0
    settings = get_settings()
    return known.fresh_until + max(settings.overlap - settings.cache_seconds - 10.0, 0.0)


def _look_or_fetch(key: Key, known: Entry | None, *, over_http: bool) -> Entry:
    """By cache, by the caller's own connection, or by a flight; with all of them down what was last known (R13)."""
    if get_settings().remote_url:
        return remote.look(key, known, over_http=over_http)
    return _asked(_look(key, known, over_http=over_http))


def _look(key: Key, known: Entry | None, *, over_http: bool) -> Entry:
    give_up_at = clock.monotonic() + get_settings().wait_timeout
    found = served.look_up(key, known)
    if found is not None and served.is_confirmed(found, clock.now()):
        return _renewed_in_time(served.remember(found))
    fallback = found or known
    if known is not None and clock.monotonic() < known.blind_until and (entry := _usable(fallback)) is not None:
        return served.remember(entry, blind_until=known.blind_until)
    try:
        entry = _read(key)
        if entry is not None:
            return _renewed_in_time(served.publish(entry))
    except NotHere:
        pass
    except AnyDatabaseError as exc:
        # One failed statement must not bring back what lay idle, in memory or in a cache that missed a renewal: its
        # token may be long displaced. A flight asks again for a moment, on a connection of its own.
        if fallback is not None and clock.monotonic() < fallback.fresh_until + get_settings().cache_seconds:
            return _last_known(key, fallback, exc)
    except AccountError:  # deleted or deactivated
        served.forget(key)
        raise
    return _by_flight(key, fallback, give_up_at, over_http=over_http)


def _asked(entry: Entry) -> Entry:
    """Note that somebody asks for a lazy credential (R28), once an hour and process, and for nobody to wait for."""
    noted_until = _noted_until.get(entry.key, 0.0)
    if entry.kind != ACCESS_TOKEN and clock.monotonic() >= noted_until and not get_settings().paused:
        ground.aside(("asked", *entry.key), partial(_note_demand, entry))
    return entry


def _note_demand(entry: Entry) -> None:
    with private():
        rows.note_demand(entry.token_id)
    if len(_noted_until) >= get_settings().memory_entries:
        _noted_until.clear()
    _noted_until[entry.key] = clock.monotonic() + schedule.ASKED_GAP.total_seconds()


def _read(key: Key) -> Entry | None:
    """The row by the caller's own connection. Raises ``NotHere`` where that is no good."""

    def look() -> Entry | None:
        token = accounts.find(key, may_make=in_place())
        entry = served.entry_of(token, clock.now())
        if entry is None and token.version:
            served.drop(key, (token.version, token.revision))
        return entry

    return read_here(look)


def _renewed_in_time(entry: Entry) -> Entry:
    """Have an overdue token renewed in the background, because nobody else did (R7)."""
    settings = get_settings()
    turn = schedule.callers_turn(entry.due_at, entry.usable_until, settings.caller_grace)
    if turn is not None and clock.now() >= turn and not settings.paused:
        with suppress(Crowded):  # the next reader will do it
            begin(entry.key, Reason.CALLER)
    return served.newer(entry)


def _by_flight(key: Key, fallback: Entry | None, give_up_at: float, *, over_http: bool) -> Entry:
    try:
        if get_settings().paused:
            return _while_paused(key)
        while True:
            flight = begin(key, Reason.CALLER)
            if _is_in_constant_use(fallback, flight):
                assert fallback is not None  # noqa: S101  for the type checker
                return served.newer(fallback)
            left = give_up_at - clock.monotonic()
            outcome: Outcome = ground.wait(flight, left, over_http=over_http, reading=True)
            entry = _usable(outcome.entry) or _usable(fallback)
            if entry is not None:
                return served.newer(entry)
            if not may_try_again(outcome, flight.about):
                raise _unavailable(outcome)
            ground.wait_landed(flight, give_up_at - clock.monotonic())
    except AnyDatabaseError as exc:
        return _last_known(key, fallback, exc)
    except (Crowded, NotYet) as exc:
        return _usable(fallback) or _raise(_not_yet(key, exc))
    except AccountError:
        served.forget(key)
        raise


def _is_in_constant_use(entry: Entry | None, flight: Flight) -> bool:
    """Whether the entry was verified a moment before this flight began to look it up again: then it serves meanwhile,
    also when the database hangs (R4, R13); not for longer than a renewal elsewhere leaves it alive.
    """
    if entry is None or flight.began >= entry.fresh_until + IDLE_SECONDS or served.is_outdated(entry):
        return False
    return clock.monotonic() < min(_others_keep_until(entry, entry.fresh_until), entry.dead_at)


def _while_paused(key: Key) -> Entry:
    entry = read(lambda: served.entry_of(accounts.find(key, may_make=True), clock.now()))
    return served.remember(entry) if entry is not None else _raise(_paused(key))


def _usable(entry: Entry | None) -> Entry | None:
    return entry if entry is not None and clock.now() < entry.usable_until and not served.is_outdated(entry) else None


def _last_known(key: Key, fallback: Entry | None, exc: Exception) -> Entry:
    """The database is down: what the cache or this process last knew, until it is dead (R13)."""
    entry = _usable(fallback)
    if entry is None:
        raise StoreUnavailable(key[0], exc) from exc
    return served.go_blind(entry)


def _raise(error: TokenUnavailable) -> Entry:
    raise error


# -- reading in an event loop ----------------------------------------------------------------------


async def acurrent_entry(key: Key) -> Entry:
    """:func:`current_entry` for async code: it waits for the flight, and holds no thread while it does."""
    known = served.recall(key)
    now = clock.monotonic()
    if known is not None and now < known.fresh_until:
        return known
    if in_place() or get_settings().remote_url or get_settings().paused:
        return await sync_to_async(current_entry)(key)
    usable = known if known is not None and now < known.dead_at else None
    give_up_at = now + get_settings().wait_timeout
    try:
        while True:
            flight = begin(key, Reason.CALLER, look_in_cache=True)
            if usable is not None and _is_in_constant_use(usable, flight):
                return served.newer(usable)
            left = give_up_at - clock.monotonic()
            outcome: Outcome = await ground.wait_async(flight, left, reading=True)
            entry = _usable(outcome.entry) or _usable(usable)
            if entry is not None:
                return _asked(served.newer(entry))
            if not may_try_again(outcome, flight.about):
                raise _unavailable(outcome)
            await ground.wait_landed_async(flight, give_up_at - clock.monotonic())
    except AnyDatabaseError as exc:
        return _last_known(key, usable, exc)
    except (Crowded, NotYet) as exc:
        return _usable(usable) or _raise(_not_yet(key, exc))


# -- complaints ------------------------------------------------------------------------------------

ANSWERS_A_COMPLAINT = (Status.RENEWED, Status.UNCHANGED, Status.CURRENT, Status.ACCEPTED, Status.UNDECIDED)


def complain(key: Key, stale: Secret, *, client: str = "", payer: str = "", over_http: bool = False) -> Entry:
    """One complaint; those of one process about one token are answered together. Raises as its public twin."""
    if get_settings().remote_url:
        return remote.complain(key, stale, over_http=over_http)
    if get_settings().paused:
        return _another_while_paused(current_entry(key), stale, key)
    current = _another_than(stale, key)
    if current is not None:
        return current
    complaint = Complaint(stale, client, payer or client)
    give_up_at = clock.monotonic() + get_settings().wait_timeout
    try:
        while True:
            flight = begin(key, Reason.COMPLAINT, complaint=complaint)
            outcome: Outcome = ground.wait(flight, give_up_at - clock.monotonic(), over_http=over_http)
            answer = _answer(outcome, complaint, flight.about)
            if answer is not None:
                return answer
            ground.wait_landed(flight, give_up_at - clock.monotonic())
    except (Crowded, NotYet) as exc:
        raise _not_yet(key, exc) from None
    except AnyDatabaseError as exc:
        raise StoreUnavailable(key[0], exc) from exc


def _another_than(stale: Secret, key: Key) -> Entry | None:
    """The current token, if a look at the row is all it takes to see that the complaint is about an older one."""
    with suppress(NotHere, AnyDatabaseError):
        entry = _read(key)
        if entry is not None and Secret(entry.value) != stale:
            return served.publish(entry)
    return None


async def acomplain(key: Key, stale: Secret, client: str) -> Entry:
    """:func:`complain` for async code, which holds no thread."""
    if get_settings().paused:
        return _another_while_paused(await acurrent_entry(key), stale, key)
    complaint = Complaint(stale, client, client)
    give_up_at = clock.monotonic() + get_settings().wait_timeout
    try:
        while True:
            flight = begin(key, Reason.COMPLAINT, complaint=complaint)
            outcome: Outcome = await ground.wait_async(flight, give_up_at - clock.monotonic())
            answer = _answer(outcome, complaint, flight.about)
            if answer is not None:
                return answer
            await ground.wait_landed_async(flight, give_up_at - clock.monotonic())
    except (Crowded, NotYet) as exc:
        raise _not_yet(key, exc) from None
    except AnyDatabaseError as exc:
        raise StoreUnavailable(key[0], exc) from exc


def _answer(outcome: Outcome, complaint: Complaint, about: object) -> Entry | None:
    """What a complaint is told; None if the flight it joined was about something else and does not tell."""
    entry = outcome.entry
    if entry is not None and Secret(entry.value) != complaint.stale:
        return entry  # the complaint was about an older token (R8)
    if about != complaint or (outcome.status is Status.LIMITED and _payer(about) != complaint.payer):
        return None
    if entry is not None and outcome.status in ANSWERS_A_COMPLAINT:
        return entry
    raise _unavailable(outcome)


def _payer(about: object) -> str:
    return about.payer if isinstance(about, Complaint) else ""


def _another_while_paused(entry: Entry, stale: Secret, key: Key) -> Entry:
    return entry if Secret(entry.value) != stale else _raise(_paused(key))


# -- why there is no token -------------------------------------------------------------------------


def _paused(key: Key) -> TokenUnavailable:
    return TokenUnavailable(
        f"This site is paused (WECHAT_TOKEN['PAUSED']) and has no usable {key[1]} for the WeChat account {key[0]}.",
        appid=key[0],
        retry_after=60.0,
        error_class=ErrorClass.HUMAN,
    )


def _not_yet(key: Key, exc: Exception) -> TokenUnavailable:
    return TokenUnavailable(
        f"No usable {key[1]} for the WeChat account {key[0]} yet. What holds it up: {exc}",
        appid=key[0],
        retry_after=1.0,
        error_class=ErrorClass.TRANSIENT,
    )


def _unavailable(outcome: Outcome) -> TokenUnavailable:
    """Why there is no token, from the row: the same words whoever asks (R5)."""
    token: Token = outcome.token
    until = outcome.until or token.due_at
    if outcome.held is not None:
        return _held_up(outcome.token, outcome.held)
    wait = (until - clock.now()).total_seconds() if until is not None else 1.0
    error_class = ErrorClass(token.error_class) if token.error_class else None
    errcode, rid, cause = token.errcode, token.rid, token.error
    if outcome.error is not None:
        error_class, errcode, rid = outcome.error.error_class, outcome.error.errcode, outcome.error.rid
        cause = str(outcome.error)
    kind: type[TokenUnavailable] = TokenUnavailable
    if outcome.status is Status.LIMITED:
        kind, cause = RefreshRateLimited, cause or "Too many complaints about this account's token."
    elif outcome.status is Status.BUSY:
        cause = "Another process is fetching it."
    return kind(
        f"No usable {token.kind} for the WeChat account {token.account.ref}. {cause}".rstrip(),
        appid=token.account.ref,
        retry_after=max(wait, 1.0),
        error_class=error_class,
        errcode=errcode,
        rid=rid,
    )


def _held_up(token: Token, held: Held) -> TokenUnavailable:
    """What it waits for is what to mend: the cause is that one's (R22)."""
    why = _unavailable(held.outcome) if held.outcome is not None else None
    cause = str(why) if why is not None else held.doing
    return TokenUnavailable(
        f"No usable {token.kind} for the WeChat account {token.account.ref}. It waits for {held.root}: {cause}",
        appid=token.account.ref,
        retry_after=why.retry_after if why is not None else schedule.WAIT_LEAST,
        error_class=why.error_class if why is not None else ErrorClass.TRANSIENT,
        errcode=why.errcode if why is not None else None,
        rid=why.rid if why is not None else "",
    )


__all__ = [
    "AccountRef",
    "acomplain",
    "acurrent_entry",
    "aget_access_token",
    "arefresh_access_token",
    "aresolve",
    "complain",
    "current_entry",
    "get_access_token",
    "refresh_access_token",
]
