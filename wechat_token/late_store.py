"""A token fetched while the caller itself holds SQLite's only write lock.

SQLite has one writer. A caller that wrote inside ``atomic()`` and then needs a token keeps every connection from
claiming, our own second one too, until its transaction ends, which is after we return. But as long as it holds the
lock, nobody else can claim either: the lock is the lease. So the token is fetched at once, served from memory and
cache, and stored by a thread as soon as the lock is free, whether the caller committed or rolled back (R3).
PostgreSQL and MySQL lock rows, and never come here; in-memory SQLite, which locks tables, always does.
"""

from __future__ import annotations

import copy
import random
import threading
from functools import partial

from django.db import OperationalError

from . import clock, schedule, shelf, transactions
from .conf import get_settings
from .exceptions import UpstreamError
from .models import Token
from .platforms import source_for
from .refresh import Outcome, Status
from .rows import assign, load, write
from .schedule import Action, Fields, Reason

PATIENCE = 300.0  # seconds the caller may keep the lock before the store is given up
_in_flight = threading.Lock()


def refresh_under_write_lock(token_id: int) -> Outcome:
    """Fetch for a caller that :func:`wechat_token.transactions.caller_holds_write_lock`."""
    with _in_flight:
        token = load(token_id)
        before = copy.copy(token)
        known = shelf.recall((token.account.appid, token.kind))
        if known is not None and known.version > token.version:  # fetched earlier in this very transaction
            return Outcome(Status.CURRENT, token)
        source, settings, now = source_for(token.kind), get_settings(), clock.now()
        endpoint = source.endpoint(token.account, forced=False)
        decision = schedule.decide(
            token, now, reason=Reason.CALLER, lease=settings.lease, overlap=settings.overlap,
            endpoint=endpoint, daily_limit=source.daily_limit(token.account, forced=False),
        )  # fmt: skip
        if decision.action is not Action.FETCH:
            status = Status.BUSY if decision.action is Action.BUSY else Status.CURRENT
            return Outcome(status, token, decision.until)
        displaces = source.displaces(token.account, forced=False)
        written: Fields = schedule.intent(
            token, now, lease=settings.lease, endpoint=endpoint, displaces=displaces, forced=False
        )
        assign(token, written)
        chance = random.random()  # noqa: S311  jitter, not a secret
        try:
            issued = source.fetch(token.account, forced=False)
            failure = None
        except UpstreamError as exc:
            failure = exc
        if failure is not None:
            written |= schedule.after_failure(
                token, before, failure, displaces=displaces, now=clock.now(),
                overlap=settings.overlap, chance=chance,
            )  # fmt: skip
        else:
            same = bool(token.version) and token.value.reveal() == issued.value.reveal()
            renewal = source.renewal(token.account, issued.expires_in)
            written |= schedule.after_success(token, issued, same=same, now=clock.now(), renewal=renewal, chance=chance)
        assign(token, written)
        entry = shelf.entry_of(token, clock.now())
        if entry is not None:
            # Trusted until the store is done: the database knows nothing of it yet.
            shelf.publish(entry)
            shelf.remember(entry, seconds=PATIENCE)
        threading.Thread(target=partial(_store, before, written), name="wechat_token-late-store").start()
        if failure is not None:
            return Outcome(Status.FAILED, token, token.due_at, failure)
        return Outcome(Status.RENEWED, token)


def _store(before: Token, written: Fields) -> None:
    """Write the result on a connection of this thread as soon as the lock is free; give way to a newer revision."""
    give_up_at = clock.monotonic() + PATIENCE
    try:
        while clock.monotonic() < give_up_at:
            try:
                stored = write(before, written)
            except OperationalError:
                clock.sleep(0.05)
                continue
            entry = shelf.entry_of(before, clock.now()) if stored else None
            if entry is not None:
                shelf.publish(entry)
            else:  # somebody refreshed after the lock was freed: theirs is the newer token
                shelf.forget((before.account.appid, before.kind))
            return
    finally:
        transactions.close_connections()
