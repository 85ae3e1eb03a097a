"""What a credential needs before it can be fetched: getting it, and complaining about it (R20, R21).

Nobody holds a lease or a connection meanwhile: a flight waits for another flight of this process, as callers do, for
what is left of its callers' time. The needs of the platforms have no circle, so neither have the flights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from .. import clock
from ..models import Token
from ..platforms import Material, Need
from ..redaction import Secret
from . import ground, served
from .ground import Crowded, Flight, Key, NotYet
from .outcome import Complaint, Held, Outcome, may_try_again, name_of
from .schedule import Reason
from .served import Entry


class Begin(Protocol):
    """The one door, :func:`wechat_token.engine.refresh.begin`."""

    def __call__(
        self, key: Key, reason: Reason, *, complaint: Complaint | None = None, scheduled: bool | None = False,
        look_in_cache: bool = False,
    ) -> Flight: ...  # fmt: skip


def gather(flight: Flight, needs: Iterable[Need], begin: Begin, give_up_at: float) -> Material | Held:
    """What ``flight`` needs, or what it has to wait for. ``give_up_at``: monotonic.

    Raises what a refresh of the needs raises (:func:`wechat_token.engine.refresh.begin`).
    """
    values: dict[Need, Secret] = {}
    for need in needs:
        found = _current(flight, (flight.key[0], need.kind), begin, give_up_at)
        if isinstance(found, Held):
            return found
        values[need] = Secret(found.value)
    return Material(values)


def complain(flight: Flight, need: Need, complaint: Complaint, begin: Begin, give_up_at: float) -> Entry | Held:
    """Complain about the very value that was refused, and get the one to use now: the same, if it is not to blame."""
    key = flight.key[0], need.kind
    try:
        while True:
            other = begin(key, Reason.COMPLAINT, complaint=complaint, scheduled=None)
            outcome: Outcome = ground.follow(flight, other, give_up_at - clock.monotonic())
            entry = _usable(outcome.entry)
            if entry is not None and (Secret(entry.value) != complaint.stale or other.about == complaint):
                return entry
            if other.about == complaint:
                return _held(key, outcome)
            ground.wait_landed(other, give_up_at - clock.monotonic())
    except (Crowded, NotYet) as exc:
        return Held(" ".join(key), doing=str(exc))


def _current(flight: Flight, key: Key, begin: Begin, give_up_at: float) -> Entry | Held:
    known = served.recall(key)
    if known is not None and clock.monotonic() < known.fresh_until:
        return known
    try:
        while True:
            other = begin(key, Reason.CALLER, scheduled=None, look_in_cache=True)
            outcome: Outcome = ground.follow(flight, other, give_up_at - clock.monotonic(), reading=True)
            entry = _usable(outcome.entry)
            if entry is not None:
                return entry
            if not may_try_again(outcome, other.about):
                return _held(key, outcome)
            ground.wait_landed(other, give_up_at - clock.monotonic())
    except (Crowded, NotYet) as exc:
        return Held(" ".join(key), doing=str(exc))


def _usable(entry: Entry | None) -> Entry | None:
    return entry if entry is not None and clock.now() < entry.usable_until and not served.is_outdated(entry) else None


def _held(key: Key, outcome: Outcome) -> Held:
    if outcome.held is not None:
        return outcome.held
    token: Token = outcome.token
    return Held(token.waits_for or name_of(token), outcome)
