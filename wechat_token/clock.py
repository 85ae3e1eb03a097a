"""The two clocks everything reads, in one place, so that a simulation can replace them (R19).

Decisions never call these: they take ``now`` as a parameter. Only the I/O layers ask here.
"""

from __future__ import annotations

import datetime as dt
import time


def now() -> dt.datetime:
    """Wall clock, aware, UTC. What is written to rows and compared between hosts."""
    return dt.datetime.now(dt.UTC)


def monotonic() -> float:
    """Seconds that never jump. What memory entries and deadlines inside one process are measured by."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    time.sleep(seconds)
