"""What a host says of itself in its ``Host`` row: that it lives, that it drains, what it cannot read (R31, R35).

Written every 30 s at most, but for the claim of a drain and its end.
"""

from __future__ import annotations

import datetime as dt
import socket
from typing import Final

from django.db import DatabaseError, IntegrityError, InterfaceError
from django.db.models import Q

from .. import clock, process
from ..conf import get_settings
from ..models import Host
from .connections import alias

SAY_EVERY: Final = 30.0  # seconds
FORGOTTEN_AFTER: Final = dt.timedelta(days=1)
PROBLEM_LASTS: Final = dt.timedelta(minutes=30)  # a problem that is not met again is over

_said_at: float  # monotonic; 0: never
_problems: dict[str, str]  # by type: when it was last met (ISO 8601), and what it says
process.keep(globals(), _said_at=float, _problems=dict)


def name() -> str:
    return socket.gethostname()[:255] or "localhost"


def report(problem: Exception) -> None:
    """Say what keeps this host from working, on its own row and no account's: the others may be able to."""
    kind = type(problem).__name__
    is_news = kind not in _problems
    _problems[kind] = f"{clock.now().isoformat(timespec='seconds')} {problem}"
    say(at_once=is_news)


def say(*, at_once: bool = False) -> None:
    """Bring this host's row up to date, unless that was done a moment ago. Failing to is no reason to stop."""
    global _said_at
    if not at_once and _said_at and clock.monotonic() < _said_at + SAY_EVERY:
        return
    _said_at = clock.monotonic() or 1e-9
    now = clock.now()
    hosts = Host.objects.using(alias())
    news = {"seen_at": now, "problems": _current(now)}
    # Another process of this host may have said so a moment ago; what it cannot read, this one cannot either.
    stale = Q() if at_once else Q(seen_at__lte=now - dt.timedelta(seconds=SAY_EVERY)) | Q(seen_at__gt=now)
    try:
        if not hosts.filter(stale, name=name()).update(**news) and not hosts.filter(name=name()).exists():
            hosts.create(name=name(), **news)
        hosts.filter(seen_at__lt=now - FORGOTTEN_AFTER).delete()
    except (DatabaseError, InterfaceError):
        return


def _current(now: dt.datetime) -> dict[str, str]:
    oldest = (now - PROBLEM_LASTS).isoformat(timespec="seconds")
    return {kind: text for kind, text in _problems.items() if text >= oldest}


def begin_drain() -> bool:
    """Take this host's turn to renew what is due; False if another process of it is at it."""
    now = clock.now()
    until = now + dt.timedelta(seconds=get_settings().drain_deadline)
    hosts = Host.objects.using(alias())
    never = until + dt.timedelta(seconds=get_settings().drain_deadline)  # what no clock of today can have written
    free = Q(drain_until=None) | Q(drain_until__lte=now) | Q(drain_until__gt=never)
    if hosts.filter(free, name=name()).update(drain_until=until, seen_at=now):
        return True
    try:
        if hosts.filter(name=name()).exists():
            return False
        hosts.create(name=name(), seen_at=now, drain_until=until)
    except IntegrityError:
        return False
    return True


def end_drain() -> None:
    Host.objects.using(alias()).filter(name=name()).update(drain_until=None)
