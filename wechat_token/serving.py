"""Handing out tokens: memory → cache → database → refresh.

The way of a read: a token this process trusts is returned without a lock and without I/O (R18). A second later one
thread looks it up again, the others keep the old entry meanwhile. Nobody waits for WeChat while a usable token
exists (R4); without one, one caller fetches and the others wait for it, not for ever (R5).
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial

from asgiref.sync import sync_to_async
from django.db import Error as AnyDatabaseError
from django.db import OperationalError

from . import background, clock, late_store, remote, schedule, shelf, transactions
from .conf import get_settings
from .directory import resolve, token_row
from .exceptions import AccountError, ErrorClass, RefreshRateLimited, StoreUnavailable, TokenUnavailable
from .models import ACCESS_TOKEN, Account, Token
from .redaction import Secret
from .refresh import Outcome, Status, refresh
from .rows import persist
from .schedule import Reason
from .shelf import Entry, Key

AccountRef = str | Account | None

POLL_FIRST, POLL_LAST = 0.05, 0.25  # seconds between looks at somebody else's refresh
IDLE_SECONDS = 1.0  # an entry nobody looked up for longer is looked up before any thread gets it
IDLE_PATIENCE = 1.0  # seconds to get past a database that fails, before an idle entry is served unverified
BLIND_SECONDS = 5.0  # how long an entry is kept unverified while cache and database are down (R13)


def get_access_token(account: AccountRef = None) -> str:
    """A token that WeChat accepts, for an AppID, an :class:`Account`, or (left out) the only or default account.

    Raises ``AccountError`` (not found, inactive, ambiguous; the message names the choices) and ``TokenUnavailable``
    with the cause and ``retry_after`` in seconds. Keep the result for one call, not longer: asking again is cheaper
    than a dictionary of your own.
    """
    if type(account) is str:
        entry = shelf.recall((account, ACCESS_TOKEN))
        if entry is not None and clock.monotonic() < entry.fresh_until:
            return entry.value
    return current_entry(resolve(account)).value


def refresh_access_token(account: AccountRef = None, *, stale_token: str, client: str = "") -> str:
    """Complain that WeChat refused ``stale_token`` (40001, 40014, 42001), and get the token to use now (R8).

    If it is not the current token, the current one is returned and WeChat is not called. If WeChat still accepts it,
    it is returned itself: the refusal had another cause. Raises as :func:`get_access_token` does, and
    ``RefreshRateLimited`` when too many complaints came in.
    """
    stale = Secret(stale_token)
    del stale_token  # error reports show the locals of every frame an error passes (S2)
    return _token_after_complaint(account, stale, client)


async def aget_access_token(account: AccountRef = None) -> str:
    """:func:`get_access_token` for async code. A token this process trusts is returned without leaving the loop."""
    if type(account) is str:
        entry = shelf.recall((account, ACCESS_TOKEN))
        if entry is not None and clock.monotonic() < entry.fresh_until:
            return entry.value
    return await sync_to_async(get_access_token)(account)


async def arefresh_access_token(account: AccountRef = None, *, stale_token: str, client: str = "") -> str:
    """:func:`refresh_access_token` for async code."""
    stale = Secret(stale_token)
    del stale_token  # as above
    return await sync_to_async(_token_after_complaint)(account, stale, client)


def _token_after_complaint(account: AccountRef, stale: Secret, client: str) -> str:
    return complain(resolve(account), stale, client=client).value


# -- reading ---------------------------------------------------------------------------------------

# One thread of a process revalidates an entry, one fetches a missing one. The lock guards the two tables only and is
# never held during I/O; the hot path does not come here.
_table_lock = threading.Lock()
_revalidating: dict[Key, float] = {}  # until when (monotonic) the other threads keep the old entry meanwhile
_flights: dict[tuple[Key, str], Future[Entry]] = {}


def current_entry(key: Key) -> Entry:
    """The entry to serve for ``key`` (AppID, kind) now. Raises as :func:`get_access_token` does."""
    known = shelf.recall(key)
    now = clock.monotonic()
    if known is not None and now < known.fresh_until:
        return known
    if known is None or now >= known.dead_at:
        return _together((key, ""), partial(_load_or_fetch, key))
    with _table_lock:
        others_keep_it_until = _revalidating.get(key)
        if others_keep_it_until is None:
            _revalidating[key] = _others_keep_until(known, now)
    if others_keep_it_until is not None:
        return known if now < others_keep_it_until else _together((key, ""), partial(_load_or_fetch, key, known))
    try:
        return _load_or_fetch(key, known)
    finally:
        with _table_lock:
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


def _load_or_fetch(key: Key, known: Entry | None = None) -> Entry:
    entry = _look(key, known)
    if entry is None:
        entry = _together((key, "fetch"), partial(_fetch, key, Reason.CALLER))
    return entry


def _look(key: Key, known: Entry | None) -> Entry | None:
    """The usable entry by cache or database, kept in memory; None if there is no usable token.

    With both down: what the cache or this process last knew, until it is dead (R13).
    """
    if get_settings().remote_url:
        return remote.look(key, known)
    now = clock.now()
    found = shelf.look_up(key, known)
    if found is None or not shelf.is_confirmed(found, now):
        try:
            token = _row(key, known)
        except AnyDatabaseError:
            fallback = found or known
            if fallback is None:
                raise
            return shelf.remember(fallback, seconds=BLIND_SECONDS)
        except AccountError:  # deleted or deactivated
            shelf.forget(key)
            raise
        found = shelf.entry_of(token, now)
        if found is None:
            shelf.forget(key)
            return None
        entry = shelf.publish(found)
    else:
        entry = shelf.remember(found)
    turn = schedule.callers_turn(entry.due_at, entry.usable_until, get_settings().caller_grace)
    if turn is not None and now >= turn:
        background.run(("renew", key), partial(refresh, entry.token_id, reason=Reason.CALLER))
    return entry


def _row(key: Key, known: Entry | None) -> Token:
    """The row by the database.

    One failed statement must not bring back what lay idle, in memory or in a cache that missed a renewal: its token
    may be long displaced. So the query is repeated for a moment, unless the entry was looked up not long ago.
    """
    query = partial(transactions.read, partial(token_row, key))
    if known is not None and clock.monotonic() < known.fresh_until + get_settings().cache_seconds:
        return query()
    return persist(query, patience=IDLE_PATIENCE)


# -- fetching --------------------------------------------------------------------------------------


def complain(key: Key, stale: Secret, *, client: str = "") -> Entry:
    """One complaint; those of one process about one token are answered together. Raises as its public twin."""
    digest = str(hash(stale.reveal()))
    if get_settings().remote_url:
        return _together((key, digest), partial(remote.complain, key, stale))
    return _together((key, digest), partial(_fetch, key, Reason.COMPLAINT, stale=stale, client=client))


def _fetch(key: Key, reason: Reason, *, stale: Secret | None = None, client: str = "") -> Entry:
    """Refresh, or wait for whoever is refreshing (R5)."""
    token_id = transactions.read(partial(token_row, key)).pk
    work = partial(refresh, token_id, reason=reason, stale=stale, client=client)
    give_up_at = clock.monotonic() + get_settings().wait_timeout
    pause = POLL_FIRST
    while True:
        outcome = _refresh_outside(token_id, work, complaint=stale is not None)
        entry = _entry_after(outcome)
        if entry is not None and (stale is None or outcome.status in ANSWERS_A_COMPLAINT):
            return entry  # after a failed refresh too: the old token serves until it is dead (R4)
        someone_is_at_it = outcome.status in (Status.BUSY, Status.SUPERSEDED)
        if not someone_is_at_it or clock.monotonic() + pause > give_up_at:
            raise _unavailable(outcome)
        clock.sleep(pause)
        pause = min(pause * 1.5, POLL_LAST)


ANSWERS_A_COMPLAINT = (Status.RENEWED, Status.UNCHANGED, Status.CURRENT, Status.ACCEPTED)


def _refresh_outside(token_id: int, work: partial[Outcome], *, complaint: bool) -> Outcome:
    try:
        if complaint or not transactions.no_second_connection():
            return transactions.outside(work)
    except OperationalError:
        if complaint or not transactions.caller_holds_write_lock():
            raise
    return late_store.refresh_under_write_lock(token_id)


def _entry_after(outcome: Outcome) -> Entry | None:
    found = shelf.entry_of(outcome.token, clock.now())
    if found is None:
        return None
    known = shelf.recall((found.appid, found.kind))
    if known is not None and known.version == found.version and known.due_at == found.due_at:
        return known
    return shelf.publish(found)


def _together(flight: tuple[Key, str], work: partial[Entry]) -> Entry:
    """Run ``work`` once for all threads of this process that want the same at the same time."""
    with _table_lock:
        future = _flights.get(flight)
        leading = future is None
        if future is None:
            future = _flights[flight] = Future()
    if not leading:
        settings = get_settings()
        try:
            return future.result(timeout=settings.wait_timeout + settings.request_deadline)
        except FutureTimeout:
            raise TokenUnavailable(
                "No token yet: another thread of this process is still fetching it.", appid=flight[0][0]
            ) from None
    try:
        entry = _or_say_why(work, flight[0][0])
        future.set_result(entry)
    except BaseException as exc:
        future.set_exception(exc)
        raise
    else:
        return entry
    finally:
        with _table_lock:
            _flights.pop(flight, None)


def _or_say_why(work: partial[Entry], appid: str) -> Entry:
    try:
        return work()
    except AnyDatabaseError as exc:
        raise StoreUnavailable(appid, exc) from exc


def _unavailable(outcome: Outcome) -> TokenUnavailable:
    """Why there is no token, from the row: the same words whoever asks (R5)."""
    token = outcome.token
    until = outcome.until or token.due_at
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
        f"No usable {token.kind} for the WeChat account {token.account.appid}. {cause}".rstrip(),
        appid=token.account.appid,
        retry_after=max(wait, 1.0),
        error_class=error_class,
        errcode=errcode,
        rid=rid,
    )


def _after_fork() -> None:
    """A forked child starts with no flights: their leaders live on in the parent only."""
    global _table_lock
    _table_lock = threading.Lock()
    _revalidating.clear()
    _flights.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
