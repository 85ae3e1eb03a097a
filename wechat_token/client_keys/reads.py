"""Which client key was given which token, so that a token found where it should not be leads to who let it leak.

One row for each key and token, and one line in the security log for each key, token and process. Reading costs one
look into a dict: the rest is done in the background, when a key reads a token's version for the first time here.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from contextlib import suppress
from typing import Final, NamedTuple

from django.db import Error as AnyDatabaseError
from django.views.decorators.debug import sensitive_variables

from .. import clock, process, security
from ..conf import get_settings
from ..engine import Entry, alias, aside, fingerprint, private
from ..exceptions import WeChatTokenError
from ..models import TokenRead
from ..redaction import Secret
from .keyring import Grant

logger = logging.getLogger("wechat_token.access")

NOTED_AT_MOST: Final = 100_000  # keys and tokens that a process knows to be recorded
PENDING_AT_MOST: Final = 10_000  # while the database is down
KEPT_AT_MOST: Final = 1_000_000  # rows, however young
PRUNED_AT_ONCE: Final = 10_000
READER_LENGTH: Final = 150  # characters stored; a user model of the site's own may have longer names


class Read(NamedTuple):
    """The first read of a token by a key in this process."""

    grant: Grant
    ref: str
    kind: str
    version: int
    value: Secret
    at: dt.datetime


_lock: threading.Lock  # never held during I/O
_noted: dict[tuple[int, str, str], int]  # (key, ref, kind): the version it was given last
_pending: list[Read]
_pruned: str  # the day on which this process last pruned
process.keep(globals(), _lock=threading.Lock, _noted=dict, _pending=list, _pruned=str)


def note(grant: Grant, entry: Entry) -> None:
    """A key was given a token. Waits for nothing."""
    what = grant.key_id, entry.ref, entry.kind
    if _noted.get(what) == entry.version:
        return
    with _lock:
        if _noted.get(what) == entry.version:
            return
        if len(_noted) >= NOTED_AT_MOST:
            _noted.clear()
        _noted[what] = entry.version
        if len(_pending) < PENDING_AT_MOST:
            _pending.append(Read(grant, entry.ref, entry.kind, entry.version, Secret(entry.value), clock.now()))
    aside("reads", flush)


def flush() -> None:
    """Write down and log what was noted. What the database does not take is kept for the next time."""
    global _pending
    while _pending:
        with _lock:
            reads, _pending = _pending, []
        try:
            with private():
                _record(reads)
                _prune_once_a_day()
        except (AnyDatabaseError, WeChatTokenError) as exc:
            logger.warning("Reads of tokens cannot be recorded now (%s).", type(exc).__name__)
            with _lock:
                _pending = [*reads, *_pending][:PENDING_AT_MOST]
            return


def revealed(token: Secret, *, user: str, ref: str, kind: str, version: int, address: str) -> None:
    """A person is about to be shown a token in the admin. Raises database errors: no record, no token."""
    mark = ""
    with suppress(WeChatTokenError):  # the site's own key cannot be read; doctor says so
        mark = fingerprint(token)
        reader = user[:READER_LENGTH]
        row = TokenRead(fingerprint=mark, reader=reader, ref=ref, kind=kind, version=version, at=clock.now())
        TokenRead.objects.using(alias()).bulk_create([row], ignore_conflicts=True)
    security.event(
        "token_revealed", user=user, account=ref, kind=kind, version=version, token=mark, address=address,
    )  # fmt: skip


def readers(token: Secret) -> list[TokenRead]:
    """Who was given this token, first reader first. Raises what :func:`fingerprint` raises."""
    return list(TokenRead.objects.filter(fingerprint=fingerprint(token)))


@sensitive_variables()
def _record(reads: list[Read]) -> None:
    marks = [fingerprint(read.value) for read in reads]
    rows = [
        TokenRead(
            fingerprint=mark, prefix=read.grant.prefix, reader=read.grant.name, ref=read.ref, kind=read.kind,
            version=read.version, at=read.at,
        )
        for mark, read in zip(marks, reads, strict=True)
    ]  # fmt: skip
    TokenRead.objects.using(alias()).bulk_create(rows, batch_size=500, ignore_conflicts=True)
    for mark, read in zip(marks, reads, strict=True):
        security.event(
            "token_read", key=read.grant.prefix, name=read.grant.name, account=read.ref, kind=read.kind,
            version=read.version, token=mark, key_fingerprint=read.grant.fingerprint,
        )  # fmt: skip


def _prune_once_a_day() -> None:
    global _pruned
    today = clock.now().date().isoformat()
    if _pruned == today:
        return
    prune()
    _pruned = today


def prune() -> None:
    """Delete what is older than ``LOG_DAYS``, or too much. Beat does so as well: where only people read tokens, nothing
    here is ever flushed."""
    reads = TokenRead.objects.using(alias())
    newest = reads.order_by("-pk").values_list("pk", flat=True).first() or 0
    oldest = clock.now() - dt.timedelta(days=get_settings().log_days)
    for old in (reads.filter(at__lt=oldest), reads.filter(pk__lte=newest - KEPT_AT_MOST)):
        while some := list(old.order_by("pk").values_list("pk", flat=True)[:PRUNED_AT_ONCE]):
            reads.filter(pk__in=some).delete()
