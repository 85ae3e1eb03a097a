"""Which accounts are in trouble, worst first, and how many there are in each state: found by index, never by counting.

Whatever is in trouble has failed, is late or waits for another credential, and each is a range of an index. Each range
is read up to ``MOST`` rows: where more are in trouble than that, the longest in trouble are known and the number is
"1,000+".
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .. import clock, process
from ..conf import get_settings
from ..models import Account, Token
from .states import State, state_in_sql

MOST: Final = 1_000
WORST_FIRST: Final = (State.DEAD, State.HELD_UP, State.ATTENTION, State.WAITING, State.OVERDUE, State.RETRYING)
_RANK: Final = {state: rank for rank, state in enumerate(WORST_FIRST)}
COUNTED: Final = 3 * (MOST + 1)  # enough to know that MOST are good when all that can be in trouble are
FIGURES_KEPT: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Board:
    """``troubled``: the worst state of each account in trouble by its pk, worst first. ``counts``: accounts by state,
    ``MOST + 1`` for any number above ``MOST``.
    """

    troubled: Mapping[int, State]
    counts: Mapping[State, int]


def board(now: dt.datetime) -> Board:
    """Three queries for the troubled, and once a minute two for how many accounts there are.

    Read in the order of the index alone: a second column would sort a million rows when all are late.
    """
    failing = Token.objects.active().filter(failures__gt=0).order_by("-failures")
    waiting = Token.objects.active().filter(failures=0, waits_for__gt="").order_by("waits_for")
    late = Token.objects.active().filter(failures=0, due_at__lte=now).order_by("due_at")
    overlap, lease = get_settings().overlap, get_settings().lease
    worst: dict[int, State] = {}
    cut = False
    for tokens in (failing, waiting, late):
        told = tokens.annotate(told_state=state_in_sql(now, overlap=overlap, lease=lease))
        rows = list(told.values_list("account_id", "told_state")[: MOST + 1])
        cut |= len(rows) > MOST
        for account_id, value in rows:
            state = State(value)
            if state in _RANK and (account_id not in worst or _RANK[state] < _RANK[worst[account_id]]):
                worst[account_id] = state
    troubled = dict(sorted(worst.items(), key=lambda item: _RANK[item[1]]))
    counts = {state: min(count, MOST + 1) for state, count in Counter(troubled.values()).items()}
    active, inactive = _figures()
    if not cut:  # else nobody knows how many of the others are good
        counts[State.GOOD] = min(max(active - len(troubled), 0), MOST + 1)
    return Board(troubled, counts | {State.INACTIVE: min(inactive, MOST + 1)})


_active_and_inactive: tuple[int, int]
_counted_at: float  # monotonic
process.keep(globals(), _active_and_inactive=lambda: (0, 0), _counted_at=lambda: float("-inf"))


def _figures() -> tuple[int, int]:
    global _active_and_inactive, _counted_at
    now = clock.monotonic()
    if not _counted_at <= now < _counted_at + FIGURES_KEPT:
        active, inactive = (Account.objects.filter(is_active=on)[:COUNTED].count() for on in (True, False))
        _active_and_inactive, _counted_at = (active, inactive), now
    return _active_and_inactive


def recount() -> None:
    """Count anew the next time: an account was added, deleted or switched here."""
    global _counted_at
    _counted_at = float("-inf")
