"""A token's state in words, for the admin, ``status``, ``doctor`` and the health view. Pure (R19)."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from . import schedule
from .exceptions import ErrorClass
from .platforms.errcodes import lookup

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

    from .models import Token


class State(enum.StrEnum):
    """One word per row, worst first where several would fit. Part of ``status --json``; do not rename."""

    INACTIVE = "inactive"
    DEAD = "dead"  # no usable token, and the last try failed
    WAITING = "waiting"  # no token yet, none tried
    REFRESHING = "refreshing"
    ATTENTION = "attention"  # a usable token, but somebody has to act before it ends
    RETRYING = "retrying"  # a usable token, the renewal failed and will be tried again
    OVERDUE = "overdue"  # a usable token nobody has renewed in time: is beat running?
    GOOD = "good"

    @property
    def is_healthy(self) -> bool:
        return self in (State.GOOD, State.REFRESHING, State.INACTIVE)


LABELS: dict[State, _StrOrPromise] = {
    State.INACTIVE: _("inactive"),
    State.DEAD: _("no usable token"),
    State.WAITING: _("not fetched yet"),
    State.REFRESHING: _("refreshing"),
    State.ATTENTION: _("needs attention"),
    State.RETRYING: _("retrying"),
    State.OVERDUE: _("overdue"),
    State.GOOD: _("good"),
}

OVERDUE_AFTER = 60.0  # seconds past the due time: several ticks of beat


@dataclass(frozen=True, slots=True)
class Report:
    """``seconds_left``: how long the token counts as good; ``action``: what a person should do, '' if nothing."""

    state: State
    seconds_left: int
    usable_until: dt.datetime | None
    action: str

    @property
    def label(self) -> _StrOrPromise:
        return LABELS[self.state]


def report(token: Token, now: dt.datetime, *, overlap: float, lease: float) -> Report:
    end = schedule.usable_until(token, overlap)
    left = max(int((end - now).total_seconds()), 0) if end is not None else 0
    return Report(_state(token, now, left, lease), left, end, action_for(token))


def _state(token: Token, now: dt.datetime, left: int, lease: float) -> State:
    if not token.account.is_active:
        return State.INACTIVE
    if schedule.lease_is_live(token, now, lease) and (left or not token.failures):
        return State.REFRESHING
    if not left:
        return State.DEAD if token.failures or token.version else State.WAITING
    if token.failures:
        return State.RETRYING if token.error_class == ErrorClass.TRANSIENT else State.ATTENTION
    if token.due_at is None or now > token.due_at + schedule.seconds(OVERDUE_AFTER):
        return State.OVERDUE
    return State.GOOD


def action_for(token: Token) -> str:
    """What the last failure asks of a person, in their language; from the stored code, so any language will do."""
    if not token.failures or token.errcode is None:
        return ""
    return lookup(token.errcode).advise(token.egress_ip)


def duration(seconds: float) -> str:
    """``1 h 52 min``: the two largest units at most, down to the minute."""
    minutes, rest = divmod(max(int(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days and hours:
        return gettext("%(days)d d %(hours)d h") % {"days": days, "hours": hours}
    if days:
        return gettext("%(days)d d") % {"days": days}
    if hours and minutes:
        return gettext("%(hours)d h %(minutes)d min") % {"hours": hours, "minutes": minutes}
    if hours:
        return gettext("%(hours)d h") % {"hours": hours}
    if minutes:
        return gettext("%(minutes)d min") % {"minutes": minutes}
    return gettext("%(seconds)d s") % {"seconds": rest}
