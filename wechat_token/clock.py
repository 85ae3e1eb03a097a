"""The two clocks everything reads, in one place, so that a simulation can replace them (R19).

Decisions never call these: they take ``now`` as a parameter. Only the I/O layers ask here.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import Final

from . import process

# Below this a difference is the way to the database and back, and every margin of the schedule absorbs it.
TOLERATED: Final = 2.0

_ahead: dt.timedelta  # how much the hosts' common clock is ahead of this host's
process.keep(globals(), _ahead=dt.timedelta)


def now() -> dt.datetime:
    """Wall clock, aware, UTC. What is written to rows and compared between hosts: therefore the database's (R2)."""
    return wall() + _ahead


def wall() -> dt.datetime:
    """This host's own wall clock."""
    return dt.datetime.now(dt.UTC)


def ahead() -> float:
    """Seconds by which the database's clock was last seen ahead of this host's; 0 within ``TOLERATED``."""
    return _ahead.total_seconds()


def compare(common: dt.datetime, before: dt.datetime, after: dt.datetime) -> None:
    """Learn what the database's clock said at some moment between ``before`` and ``after`` of ours (:func:`wall`).

    A host whose clock is wrong would else take a living lease for dead, and a dead token for living. What was known
    before is kept as far as it can be true: a process that was held up in between has learned little.
    """
    global _ahead
    ahead = min(max(_ahead, common - after), common - before)
    _ahead = ahead if abs(ahead.total_seconds()) > TOLERATED else dt.timedelta()


def monotonic() -> float:
    """Seconds that never jump. What memory entries and deadlines inside one process are measured by."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    time.sleep(seconds)
