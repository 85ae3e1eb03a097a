"""Telling people what :mod:`problems` finds, by the rules of :mod:`telling`: of all processes of a site one sends.

Who sends is settled by a conditional UPDATE of the cause's ``Alert`` row. While the database takes none there is only
one cause to tell of, the database itself, and its state is in the cache; without a cache, in this process alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from django.core.cache import caches
from django.db import Error as AnyDatabaseError

from .. import clock, process
from ..conf import get_settings
from . import channels, facts, problems, telling
from .alert_states import InCache, InDatabase, States
from .evidence import Database, Facts
from .problems import Problem
from .telling import Event, State, Step

logger = logging.getLogger("wechat_token.alerts")

TURN: Final = 8  # seconds for which one look is everybody's
AT_ONCE: Final = 10  # messages of one look: robots take twenty a minute
REST_FACTOR: Final = 20.0  # looks take 5 % of a process's time at most, but where that would be too rare
LONGEST_REST: Final = 20.0  # seconds

_rests_until: float  # monotonic
process.keep(globals(), _rests_until=float)


def go(state: Database) -> None:
    """Look, and tell what is due. ``state``: of the database, as was seen just now."""
    global _rests_until
    if get_settings().paused or not channels.configured():
        return
    if clock.monotonic() < _rests_until or not _is_our_turn(state):
        return
    began = clock.monotonic()
    outage = {problem.id: problem for problem in problems.problems(Facts(clock.now(), database=state))}
    outage = outage if state is not Database.OK else {}
    found: dict[str, Problem] = {}
    if state is Database.OK:
        with suppress(AnyDatabaseError):
            found = {problem.id: problem for problem in problems.problems(facts.collect())}
            now = clock.monotonic()
            _rests_until = now + min((now - began) * REST_FACTOR, LONGEST_REST)
            _tell(InDatabase(), found)
    _tell(InCache(), outage)


def _is_our_turn(state: Database) -> bool:
    """Makes looks rare, decides nothing: two processes that look at once do no harm."""
    try:
        return caches[get_settings().cache_alias].add(f"wechat_token:alerts:{state}", 1, timeout=TURN)
    except Exception:  # whatever a cache backend raises
        return True


def _tell(states: States, found: Mapping[str, Problem]) -> None:
    known = states.load(set(found))
    messages = 0
    unreachable: set[str] = set()  # who did not answer in this look is not waited for again
    for cause in [*found, *(known.keys() - found.keys())]:
        problem = found.get(cause)
        decision = telling.decide(
            cause, known.get(cause), clock.now(), present=problem is not None, count=problem.count if problem else 0
        )
        if decision is None or decision.step is Step.NOTHING:
            continue
        if decision.step is Step.FORGET:
            states.forget(decision.state)
            continue
        if decision.step is Step.SEND and messages >= AT_ONCE:
            continue
        written = states.write(decision.state)
        if written is not None and decision.step is Step.SEND:
            messages += 1
            states.write(_send(written, decision.event, problem, unreachable))


def _send(state: State, event: Event, problem: Problem | None, unreachable: set[str]) -> State:
    text = problem.text if problem is not None else state.text
    message = channels.Message(event, state.cause, text, clock.now(), state.first_at, problem)
    wanted = {channel.id for channel in channels.configured()}
    reached = channels.send(message, but={*state.delivered, *unreachable})
    missed = wanted - reached - set(state.delivered)
    unreachable |= missed
    if missed and state.attempts >= len(telling.TRY_AGAIN_AFTER):
        logger.error("Of %s nobody could be told by %d of the channels.", state.cause, len(missed))
    logger.log(
        logging.INFO if event is Event.OVER else logging.WARNING, "Alert %s %s: %s", state.cause, event.value, text
    )
    return telling.sent(
        state, event, clock.now(), text=text, count=problem.count if problem else state.count, reached=reached,
        all_of=wanted,
    )  # fmt: skip


def test() -> dict[str, str]:
    """Send a test message to everybody; what became of it, '' if it arrived, by the channel's name."""
    now = clock.now()
    message = channels.Message(Event.TEST, "test", "", now, now, None)
    return {channel.name: channels.try_to_send(channel, message) for channel in channels.configured()}
