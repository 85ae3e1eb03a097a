"""Who asked for what: counted in memory, written down about once a minute in the background.

A process that is killed loses the counts of its last minute. The counts are for people, no rule depends on
them.
"""

from __future__ import annotations

import datetime as dt
import logging
import operator
import threading
from collections.abc import Iterable
from typing import Final, NamedTuple

from django.db import Error as AnyDatabaseError
from django.db import IntegrityError, transaction
from django.db.models import F, Q, Sum

from .. import clock, process
from ..conf import get_settings
from ..engine import alias, aside, in_test_case, private, schedule
from ..models import ClientKey, KeyUsage
from . import reads as token_reads

logger = logging.getLogger("wechat_token.access")

LAST_USE_GAP: Final = dt.timedelta(minutes=1)  # between writes of last_used_at, whichever process does it
ROWS_AT_ONCE: Final = 200  # of one transaction: on SQLite it keeps other writers waiting


class Row(NamedTuple):
    """Sorted alike in every process, so that two of them cannot lock each other out."""

    day: str
    key_id: int
    appid: str


class Asked(NamedTuple):
    """``by_url``, ``by_body``: of all of these, how many came in WeChat's dialect, by where the key was."""

    reads: int = 0
    complaints: int = 0
    refusals: int = 0
    by_url: int = 0
    by_body: int = 0

    def plus(self, other: Asked) -> Asked:
        return Asked(*map(operator.add, self, other))


# A forked child counts nothing again: its parent goes on for itself.
_lock: threading.Lock  # held for one addition at a time, never during I/O
_asked: dict[Row, Asked]
_last_used: dict[int, dt.datetime]
_next_flush: float  # monotonic
_pruned: str  # the day on which this process last pruned
process.keep(globals(), _lock=threading.Lock, _asked=dict, _last_used=dict, _next_flush=float, _pruned=str)


def count(key_id: int, appid: str, asked: Asked) -> None:
    """Count one request of a key. ``appid`` must be '' unless the key may use that account."""
    now = clock.now()
    row = Row(schedule.beijing_day(now), key_id, appid)
    with _lock:
        former = _asked.get(row)
        _asked[row] = asked if former is None else former.plus(asked)
        _last_used[key_id] = now
    flush_if_due()


def flush_if_due() -> None:
    """Start writing down what was counted, if the last time is long enough ago."""
    global _next_flush
    now, gap = clock.monotonic(), get_settings().usage_seconds
    if now < _next_flush <= now + gap and not in_test_case():
        return
    _next_flush = now + gap
    aside("usage", flush)


def flush() -> None:
    """Write down what was counted. What the database does not take is kept for the next time."""
    global _asked, _last_used, _pruned
    token_reads.flush()
    with _lock:
        asked, _asked = _asked, {}
        last_used, _last_used = _last_used, {}
    if not asked:
        return
    today = schedule.beijing_day(clock.now())
    try:
        with private():
            _write_usage(asked)
            _write_last_used(last_used)
            if _pruned != today:
                _prune(dt.date.fromisoformat(today))
                _pruned = today
    except AnyDatabaseError as exc:
        logger.warning("The use of client keys cannot be written down now (%s).", type(exc).__name__)
        _put_back(asked, last_used)


def _write_usage(asked: dict[Row, Asked]) -> None:
    """Add ``asked`` to the rows; what is committed is taken out of it. Deleted keys are passed over."""
    living = set(ClientKey.objects.filter(pk__in={row.key_id for row in asked}).values_list("pk", flat=True))
    rows = sorted(asked)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[start : start + ROWS_AT_ONCE]
        with transaction.atomic(using=alias()):
            for row in part:
                if row.key_id in living:
                    _add(row, asked[row])
        _drop(asked, part)


def _add(row: Row, asked: Asked) -> None:
    stored = KeyUsage.objects.filter(day=row.day, key_id=row.key_id, appid=row.appid)
    more = {name: F(name) + number for name, number in asked._asdict().items()}
    if stored.update(**more):
        return
    try:
        with transaction.atomic(using=alias()):
            KeyUsage.objects.create(**row._asdict(), **asked._asdict())
    except IntegrityError:  # another process was faster
        stored.update(**more)


def _drop(asked: dict[Row, Asked], rows: Iterable[Row]) -> None:
    for row in rows:
        del asked[row]


def _write_last_used(last_used: dict[int, dt.datetime]) -> None:
    for key_id, at in sorted(last_used.items()):
        long_ago = Q(last_used_at=None) | Q(last_used_at__lte=at - LAST_USE_GAP)
        ClientKey.objects.filter(long_ago, pk=key_id).update(last_used_at=at)


def _prune(today: dt.date) -> None:
    KeyUsage.objects.filter(day__lt=today - dt.timedelta(days=get_settings().log_days)).delete()


def used_since(since: dt.date) -> tuple[int, int, int]:
    """Requests since that day: all of them, those in WeChat's dialect with the key in the URL, and in the body."""
    names = ("reads", "complaints", "refusals", "by_url", "by_body")
    sums = KeyUsage.objects.filter(day__gte=since).aggregate(**{name: Sum(name) for name in names})
    reads, complaints, refusals, by_url, by_body = (sums[name] or 0 for name in names)
    return reads + complaints + refusals, by_url, by_body


def _put_back(asked: dict[Row, Asked], last_used: dict[int, dt.datetime]) -> None:
    with _lock:
        for row, was in asked.items():
            _asked[row] = _asked.get(row, Asked()).plus(was)
        for key_id, at in last_used.items():
            _last_used.setdefault(key_id, at)
