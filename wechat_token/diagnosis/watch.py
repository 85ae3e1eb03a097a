"""Who watches: a thread of each process that ticks or gets requests, for as long as it does.

It looks at its own host (:mod:`pulse`) and, where somebody wants to be told, at the site (:mod:`alerts`). Nobody waits
for it: a request or a tick starts it, at the cost of one comparison, and goes on (R18, R33).
"""

from __future__ import annotations

import logging
from typing import Any, Final

from django.core import mail
from django.core.signals import request_finished

from .. import clock, conf, process
from ..conf import get_settings
from ..engine import aside, in_place
from . import alerts, facts, pulse
from .evidence import Database

logger = logging.getLogger("wechat_token")

ROUND: Final = 10.0  # seconds
LINGERS: Final = 180.0  # seconds for which it goes on after the last request or tick: monitors may ask once a minute

_wanted_until: float  # monotonic
_ticking_until: float
_starts_at: float  # the next look whether the thread runs
process.keep(globals(), _wanted_until=float, _ticking_until=float, _starts_at=float)


def connect() -> None:
    request_finished.connect(_after_request, dispatch_uid="wechat_token.watch")


def _after_request(**kwargs: Any) -> None:
    begin()


def begin(*, ticking: bool = False) -> None:
    """Watch for a while. ``ticking``: this process renews tokens."""
    global _wanted_until, _ticking_until, _starts_at
    now = clock.monotonic()
    if ticking:
        _ticking_until = now + LINGERS
    if now < _starts_at:
        return
    _starts_at, _wanted_until = now + ROUND / 2, now + LINGERS
    # Django's test runner fills an outbox, and drops its database while a thread may still look into it.
    if conf.problems() or get_settings().remote_url or in_place() or hasattr(mail, "outbox"):
        return
    aside("watch", _watch)


def _watch() -> None:
    while clock.monotonic() < _wanted_until:
        try:
            go()
        except Exception as exc:  # whatever it was, the next round may go well; its text may hold anything (S2)
            logger.warning("A look at the site broke off: %s", type(exc).__name__)
        clock.sleep(ROUND)


def go() -> None:
    """One round."""
    state = facts.database()
    if state is not Database.UNREACHABLE:
        pulse.go(ticking=clock.monotonic() < _ticking_until)
    alerts.go(state)
