"""A token's state in words, for the admin, ``status``, ``doctor`` and the health view: one definition, pure (R19)."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db.models import Case, CharField, Q, Value, When
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..engine import schedule
from ..exceptions import ErrorClass
from ..models import Endpoint
from ..platforms import meaning
from ..querysets import usable

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

    from ..models import Token
    from ..querysets import TokenQuerySet


class State(enum.StrEnum):
    """One word per row, worst first where several would fit. Part of ``status --json``; do not rename."""

    INACTIVE = "inactive"
    DEAD = "dead"  # no usable token, and the last try failed
    HELD_UP = "held_up"  # no usable token, because another credential that it needs has none (R22)
    ASLEEP = "asleep"  # nobody has asked for it lately (R28)
    WAITING = "waiting"  # no token yet, none tried
    REFRESHING = "refreshing"
    ATTENTION = "attention"  # a usable token, but somebody has to act before it ends
    RETRYING = "retrying"  # a usable token, the renewal failed and will be tried again
    OVERDUE = "overdue"  # a usable token nobody has renewed in time: is beat running?
    GOOD = "good"

    @property
    def is_healthy(self) -> bool:
        return self in (State.GOOD, State.REFRESHING, State.INACTIVE, State.ASLEEP)


LABELS: dict[State, _StrOrPromise] = {
    State.INACTIVE: _("inactive"),
    State.DEAD: _("no usable token"),
    State.HELD_UP: _("held up"),
    State.ASLEEP: _("not in use"),
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
    return Report(_state(token, now, overlap=overlap, lease=lease), left, end, action_for(token))


def _state(token: Token, now: dt.datetime, *, overlap: float, lease: float) -> State:
    if not token.account.is_active:
        return State.INACTIVE
    usable = schedule.is_usable(token, now, overlap)
    if schedule.lease_is_live(token, now, lease) and (usable or not token.failures):
        return State.REFRESHING
    if not usable:
        if schedule.is_asleep(token):
            return State.ASLEEP
        if token.waits_for:
            return State.HELD_UP
        return State.DEAD if token.failures or token.version else State.WAITING
    if token.failures:
        return State.RETRYING if token.error_class == ErrorClass.TRANSIENT else State.ATTENTION
    if schedule.is_asleep(token):
        return State.GOOD
    if token.due_at is None or now > token.due_at + schedule.seconds(OVERDUE_AFTER):
        return State.OVERDUE
    return State.GOOD


def in_state(
    tokens: TokenQuerySet, states: Collection[State], now: dt.datetime, *, overlap: float, lease: float
) -> TokenQuerySet:
    """The rows that :func:`report` gives one of these states."""
    told = tokens.annotate(told_state=state_in_sql(now, overlap=overlap, lease=lease))
    return told.filter(told_state__in=[state.value for state in states])


def state_in_sql(now: dt.datetime, *, overlap: float, lease: float) -> Case:
    """A row's state as the database tells it: the rules of :func:`report`. A property test holds the two together."""
    good = usable(now, overlap)
    leased = Q(lease_until__gt=now, lease_until__lte=now + schedule.seconds(2 * lease))
    failing = Q(failures__gt=0)
    overdue = Q(due_at=None, asked_at=None) | Q(due_at__lt=now - schedule.seconds(OVERDUE_AFTER))
    return Case(
        When(account__is_active=False, then=Value(State.INACTIVE.value)),
        When(leased & (good | Q(failures=0)), then=Value(State.REFRESHING.value)),
        When(good & failing & Q(error_class=ErrorClass.TRANSIENT.value), then=Value(State.RETRYING.value)),
        When(good & failing, then=Value(State.ATTENTION.value)),
        When(good & overdue, then=Value(State.OVERDUE.value)),
        When(good, then=Value(State.GOOD.value)),
        When(Q(due_at=None, asked_at__isnull=False), then=Value(State.ASLEEP.value)),
        When(~Q(waits_for=""), then=Value(State.HELD_UP.value)),
        When(failing | Q(version__gt=0), then=Value(State.DEAD.value)),
        default=Value(State.WAITING.value),
        output_field=CharField(),
    )


def action_for(token: Token) -> str:
    """What the last failure asks of a person, in their language; from the stored code, so any language will do."""
    if not token.failures or token.errcode is None:
        return ""
    meant = meaning(token.account.platform, token.kind, token.errcode)
    return meant.advise(token.egress_ip, on_stable=token.account.endpoint == Endpoint.STABLE)


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
