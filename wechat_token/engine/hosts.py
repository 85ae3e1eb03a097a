"""What a host says of itself in its ``Host`` row: that it lives, what it does, what it cannot read or write (R31, R35).

Written every 30 s at most by a process, but for news, for the claim of a drain and for its end. Several processes share
the row. Each answers for the problems that it has met itself, and leaves those of the others alone while they live.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
from typing import Any, Final

from django.db import DatabaseError, IntegrityError, InterfaceError
from django.db.models import Q

from .. import __version__, clock, process
from ..conf import get_settings
from ..models import Host
from .connections import alias

SAY_EVERY: Final = 30.0  # seconds
FORGOTTEN_AFTER: Final = dt.timedelta(days=1)
PROBLEM_LASTS: Final = dt.timedelta(minutes=10)  # a problem that is not met again is over
LONGEST_TEXT: Final = 300

SIGNS: Final = ("beat_at", "worker_at", "ticked_at")

_said_at: float  # monotonic; 0: never
_written_at: float  # monotonic: when this process wrote the row itself
_problems: dict[str, dict[str, Any]]  # by subject: when this process met it last, and what it says
_signs: dict[str, float]  # monotonic: when each sign of life was last passed on
process.keep(globals(), _said_at=float, _written_at=float, _problems=dict, _signs=dict)


def name() -> str:
    return socket.gethostname()[:255] or "localhost"


def report(problem: Exception) -> None:
    """Say what keeps this host from working, on its own row and no account's: the others may be able to."""
    note(type(problem).__name__, str(problem))


def note(subject: str, text: str) -> None:
    """Say that something does not work here, or with an empty ``text`` that it does (again)."""
    was = subject in _problems
    if text:
        _problems[subject] = {
            "at": clock.now().isoformat(timespec="seconds"), "pid": os.getpid(), "text": text[:LONGEST_TEXT],
        }  # fmt: skip
    elif was:
        del _problems[subject]
    if was is not bool(text):
        say(at_once=True)


def sign(which: str) -> None:
    """Pass on one of ``SIGNS``, every 30 s at most. Failing to is no reason to stop."""
    now = clock.monotonic()
    if now < _signs.get(which, -SAY_EVERY) + SAY_EVERY:
        return
    _signs[which] = now
    say(which)


def say(which: str = "", *, at_once: bool = False) -> None:
    """Bring this host's row up to date, unless that was done a moment ago. Failing to is no reason to stop.

    ``which``: a sign of life to pass on.
    """
    global _said_at, _written_at
    started = clock.monotonic()
    if not at_once and not which and _said_at and started < _said_at + SAY_EVERY:
        return
    _said_at = started or 1e-9
    now = clock.now()
    hosts = Host.objects.using(alias())
    row = Q(name=name())
    # Another process of this host may have said so a moment ago; but what this one has met, it says itself.
    if not at_once and not (_problems and started > _written_at + 2 * SAY_EVERY):
        said = which or "seen_at"
        row &= Q((said, None)) | Q((f"{said}__lte", now - dt.timedelta(seconds=SAY_EVERY))) | Q((f"{said}__gt", now))
    try:
        known = hosts.filter(name=name()).values_list("problems", flat=True).first()
        merged = _merged(known, now)
        news: dict[str, Any] = {"seen_at": now, "version": __version__, "problems": merged}
        if isinstance(known, dict) and known.keys() != merged.keys():
            row = Q(name=name())  # news, whoever said something a moment ago
        if which:
            news[which] = now
        if known is None:
            hosts.create(name=name(), **news)
        elif hosts.filter(row).update(**news):
            _written_at = started
        hosts.filter(seen_at__lt=now - FORGOTTEN_AFTER).delete()
    except (DatabaseError, InterfaceError):
        return


def _merged(known: Any, now: dt.datetime) -> dict[str, Any]:
    """What the row is to say: what we have met, and what others have who still live and whom nothing contradicts."""
    oldest = (now - PROBLEM_LASTS).isoformat(timespec="seconds")
    ours = {subject: told for subject, told in _problems.items() if told["at"] >= oldest}
    theirs = {
        subject: told
        for subject, told in (known.items() if isinstance(known, dict) else ())
        if isinstance(told, dict) and str(told.get("at", "")) >= oldest and not _is_ours_or_dead(told)
    }
    return theirs | ours


def _is_ours_or_dead(told: dict[str, Any]) -> bool:
    """Whether the process that met it says otherwise now, or is gone, as far as this one can see."""
    pid = told.get("pid")
    if pid == os.getpid():
        return True
    try:
        os.kill(int(str(pid)), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return True
    except OSError:
        return False
    return False


def begin_drain() -> bool:
    """Take this host's turn to renew what is due; False if another process of it is at it."""
    now = clock.now()
    until = now + dt.timedelta(seconds=get_settings().drain_deadline)
    hosts = Host.objects.using(alias())
    never = until + dt.timedelta(seconds=get_settings().drain_deadline)  # what no clock of today can have written
    free = Q(drain_until=None) | Q(drain_until__lte=now) | Q(drain_until__gt=never)
    if hosts.filter(free, name=name()).update(drain_until=until, seen_at=now, ticked_at=now):
        return True
    try:
        if hosts.filter(name=name()).exists():
            return False
        hosts.create(name=name(), seen_at=now, drain_until=until, ticked_at=now, version=__version__)
    except IntegrityError:
        return False
    return True


def end_drain(seconds: float = 0.0) -> None:
    """``seconds``: how long the tick took."""
    now = clock.now()
    news = {"drain_until": None, "ticked_at": now, "tick_seconds": seconds}
    Host.objects.using(alias()).filter(name=name()).update(**news)
