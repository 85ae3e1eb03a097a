"""When people are told about a cause: once when it breaks, again with growing gaps, once when it is over. Pure (R19).

A problem is told of when it was seen twice, some seconds apart, and over when it was missed for a while, which grows
with each time it comes back: what flaps sends less and less.
"""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass, replace
from typing import Any, Final

SURE_AFTER: Final = 8.0  # seconds between the first and the second look at a problem
OVER_AFTER: Final = 20.0  # seconds for which it is missed before it is over
OVER_AFTER_AT_MOST: Final = 3600.0
FORGOTTEN_AFTER: Final = 6 * 3600.0  # after its end: a problem that comes back later is a new one
REMIND_AFTER: Final = (3600.0, 4 * 3600.0, 12 * 3600.0, 24 * 3600.0)  # since the last message; the last one for good
GROWN_AFTER: Final = 900.0  # since the last message, if it concerns twice as many by now
TRY_AGAIN_AFTER: Final = (15.0, 60.0, 240.0, 600.0)  # after each try that did not reach everybody; then no more
SENDING: Final = 120.0  # seconds for which whoever sends is left alone: longer than all its deadlines together


class Event(enum.StrEnum):
    """Part of what webhooks are sent; do not rename."""

    BROKEN = "broken"
    REMINDER = "reminder"
    OVER = "over"
    TEST = "test"


class Step(enum.Enum):
    NOTHING = "nothing"
    WRITE = "write"  # the state as it is now, nothing to send
    SEND = "send"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class State:
    """What is stored about a cause. ``told``: messages so far about this break; ``told_at``: when the last one went
    out, the one about its end too. ``delivered``, ``attempts``, ``sending_until`` are of the message under way.
    """

    cause: str
    first_at: dt.datetime
    revision: int = 0
    gone_at: dt.datetime | None = None
    text: str = ""
    count: int = 0
    told: int = 0
    told_at: dt.datetime | None = None
    flaps: int = 0
    delivered: tuple[str, ...] = ()
    attempts: int = 0
    sending_until: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """``state``: what to write first, on condition that nobody else has; with SEND it also takes the turn."""

    step: Step
    state: State
    event: Event = Event.BROKEN


_NOTHING_SENT: Final[dict[str, Any]] = {"delivered": (), "attempts": 0, "sending_until": None}


def decide(cause: str, state: State | None, now: dt.datetime, *, present: bool, count: int = 0) -> Decision | None:
    """What to do about a cause now. None: nothing is known and nothing is wrong."""
    if state is None:
        return Decision(Step.WRITE, State(cause, now)) if present else None
    if state.sending_until is not None and now < state.sending_until:
        return Decision(Step.NOTHING, state)
    return _present(state, now, count) if present else _absent(state, now)


def _present(state: State, now: dt.datetime, count: int) -> Decision:
    if state.gone_at is not None:
        if is_over(state):  # it has come back: a break of its own, which has to be seen twice, too
            renewed = State(state.cause, now, state.revision, told_at=state.told_at, flaps=state.flaps + 1)
            return Decision(Step.WRITE, renewed)
        return Decision(Step.WRITE, replace(state, gone_at=None, **_NOTHING_SENT))
    if state.told == 0:
        sure = _since(state.first_at, now) >= SURE_AFTER
        return _send(state, now, Event.BROKEN) if sure else Decision(Step.NOTHING, state)
    gap = REMIND_AFTER[min(state.told, len(REMIND_AFTER)) - 1]
    since = _since(state.told_at, now)
    grown = count >= 2 * max(state.count, 1) and since >= GROWN_AFTER
    return _send(state, now, Event.REMINDER) if since >= gap or grown else Decision(Step.NOTHING, state)


def _absent(state: State, now: dt.datetime) -> Decision:
    if is_over(state):
        forgotten = _since(state.told_at, now) >= FORGOTTEN_AFTER
        return Decision(Step.FORGET if forgotten else Step.NOTHING, state)
    if state.told == 0 and not state.delivered:
        if state.told_at is None:
            return Decision(Step.FORGET, state)
        return Decision(Step.WRITE, replace(state, gone_at=now, **_NOTHING_SENT))  # it flapped: nobody noticed
    if state.gone_at is None:
        return Decision(Step.WRITE, replace(state, gone_at=now, told=max(state.told, 1), **_NOTHING_SENT))
    hold = min(OVER_AFTER * 2.0**state.flaps, OVER_AFTER_AT_MOST)
    over = _since(state.gone_at, now) >= hold
    return _send(state, now, Event.OVER) if over else Decision(Step.NOTHING, state)


def is_over(state: State) -> bool:
    """Whether its end was told, or there was nothing to tell."""
    return state.gone_at is not None and state.told == 0


def _send(state: State, now: dt.datetime, event: Event) -> Decision:
    return Decision(Step.SEND, replace(state, sending_until=now + dt.timedelta(seconds=SENDING)), event)


def _since(moment: dt.datetime | None, now: dt.datetime) -> float:
    return (now - moment).total_seconds() if moment is not None else float("inf")


def sent(state: State, event: Event, now: dt.datetime, *, text: str, count: int, reached: set[str], all_of: set[str]
         ) -> State:  # fmt: skip
    """The state after a try to send ``event`` that has ``reached`` these of ``all_of`` whom it was for."""
    delivered = {*state.delivered, *reached}
    if not all_of <= delivered and state.attempts < len(TRY_AGAIN_AFTER):
        pause = dt.timedelta(seconds=TRY_AGAIN_AFTER[state.attempts])
        return replace(
            state, delivered=tuple(sorted(delivered)), attempts=state.attempts + 1, sending_until=now + pause,
            text=text or state.text,
        )  # fmt: skip
    done = replace(state, text=text or state.text, told_at=now, **_NOTHING_SENT)
    if event is Event.OVER:
        return replace(done, told=0)
    return replace(done, told=state.told + 1, count=count)
