"""The ground a refresh stands on: flights that nobody's transaction, timeout or exit can take down.

A *flight* is one refresh of a credential in this process, at most one at a time, on a thread of its own; no exception,
cancellation or rollback of a caller reaches it. Callers only wait for its answer, none of them longer than its limit
(R30), and what held it up is what they are told. The answer is out before anybody else is told anything: receivers of
signals and other slow listeners have lanes of their own (R33).

In a test case or on in-memory SQLite a flight flies in place, on the thread and the connection of its caller.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Final

from .. import clock, process
from ..conf import get_settings
from . import threads
from .connections import caller_is_in_transaction, in_place
from .threads import Future

logger = logging.getLogger("wechat_token")

Key = tuple[str, str]  # ref of the account, kind of the credential

CALLERS_FLIGHTS: Final = 32  # at a time, of those that callers wait for; the batch has BATCH_THREADS of its own
FREE_SECONDS: Final = 1.0  # of a flight, in which anybody may wait for it
FREE_AGAIN: Final = 0.05  # the same where the flight before took longer than that: perhaps WeChat hangs (R33)
SLOW_KEPT: Final = 1000  # keys whose last flight was slow
WAITING: Final = 4  # threads that may wait for one flight afterwards
WAITING_OVER_HTTP: Final = 1  # the same for threads of the HTTP service: many servers have four in a process
ALL_WAITING_OVER_HTTP: Final = 3  # threads of the HTTP service that may wait for all flights together afterwards
LOCKED_SECONDS: Final = 2.0  # a caller in a transaction gives up then: the lock may be its own
SLICE: Final = 0.1  # seconds between a waiting caller's looks at its limits
ASIDE: Final = 8  # background jobs at a time
EXIT_PATIENCE: Final = 2.0  # seconds for which the process stays for an answer that is not stored yet


class Crowded(Exception):
    """No thread for another flight, or no place to wait for one."""


class NotYet(Exception):
    """The flight has no answer within the caller's limit. ``str()`` says what it is doing."""


class Waiter:
    """A caller that waits for a flight. ``in_transaction``: whether it may hold the lock that the flight waits for."""

    __slots__ = ("may_hold_lock",)

    def __init__(self, *, in_transaction: bool) -> None:
        self.may_hold_lock = in_transaction


class Flight:
    """One refresh under way. ``result`` is its answer, ``landed`` the end of all its work."""

    def __init__(self, key: Key, *, scheduled: bool | None = False) -> None:
        self.key = key
        self.scheduled = scheduled
        self.about: object = None  # what a complaint is about, for those who might join it
        self.doing = "starting"
        self.locked_since: float | None = None
        self.holds_answer = False  # WeChat has answered, the database has not taken it yet
        self.current: Any = None  # what readers may take at once, whatever else this flight is about (R4)
        self.waiting: list[Waiter | Flight] = []
        self.began = clock.monotonic()
        self.result: Future[Any] = Future()
        self.landed: Future[None] = Future()
        # Else a cancelled asyncio task would cancel what others wait for.
        self.result.set_running_or_notify_cancel()
        self.landed.set_running_or_notify_cancel()
        self._to_tell: list[Callable[[], object]] = []

    def answer(self, outcome: object) -> None:
        """Let the callers go. What is answered first counts."""
        if not self.result.done():
            self.result.set_result(outcome)

    def tell(self, work: Callable[[], object]) -> None:
        """Tell others what happened, once this flight has landed."""
        self._to_tell.append(work)

    def is_blocked(self, by: str, since: float | None = None) -> None:
        """A lock is in the way, since ``since`` (monotonic), when a statement began to wait for it, or since now."""
        self.doing = by
        if self.locked_since is None:
            self.locked_since = clock.monotonic() if since is None else since

    def goes_on(self, doing: str) -> None:
        self.doing, self.locked_since = doing, None

    @property
    def locked_for(self) -> float:
        return 0.0 if self.locked_since is None else clock.monotonic() - self.locked_since

    @property
    def may_hold_lock(self) -> bool:
        """Whether some caller, perhaps of a flight that waits for this one, sits in a transaction of its own."""
        return any(waiter.may_hold_lock for waiter in list(self.waiting))

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits; at first it is taken for granted: whoever starts a flight needs a moment for that."""
        if self.result.done():
            return False
        return bool(self.waiting) or (not self.scheduled and clock.monotonic() < self.began + FREE_SECONDS)

    def fly(self, work: Callable[[Flight], None]) -> None:
        try:
            work(self)
        except BaseException as exc:
            if self.result.done():
                # The type only: the text of a foreign exception may hold anything (S2).
                logger.warning("The refresh of %s %s broke off: %s", *self.key, type(exc).__name__)
            else:
                self.result.set_exception(exc)
        finally:
            with _table_lock:
                _landing.add(self)  # until its signals are in their lane: the process does not exit in between
                if _flights.get(self.key) is self:
                    del _flights[self.key]
                _slow.pop(self.key, None)
                if clock.monotonic() > self.began + FREE_SECONDS and len(_slow) < SLOW_KEPT:
                    _slow[self.key] = None
            self.landed.set_result(None)
            for told in self._to_tell:
                lane("signals", told)
            _landing.discard(self)


_table_lock: threading.Lock  # guards the tables only, never held during I/O
_flights: dict[Key, Flight]
_landing: set[Flight]
_slow: dict[Key, None]  # whose last flight took longer than most
_over_http: list[Waiter]
process.keep(globals(), _table_lock=threading.Lock, _flights=dict, _landing=set, _slow=dict, _over_http=list)


def start(
    key: Key, work: Callable[[Flight], None], *, scheduled: bool | None = False, about: object = None
) -> Flight:  # fmt: skip
    """The flight for ``key`` under way in this process, or a new one that does ``work``.

    ``scheduled``: one of a batch; None: one that another flight waits for, which takes nobody's place: else as many
    flights as there may be could all wait for ones that may not start.
    Raises :class:`Crowded` if there is no thread for it.
    """
    flight = Flight(key, scheduled=scheduled)
    flight.about = about
    if in_place():
        flight.fly(work)
        return flight
    limit = get_settings().batch_threads if scheduled else CALLERS_FLIGHTS
    if scheduled is None:
        limit = sys.maxsize
    with _table_lock:
        under_way = _flights.get(key)
        if under_way is not None:
            return under_way
        if sum(other.scheduled is scheduled for other in _flights.values()) >= limit:
            raise Crowded(f"{limit} tokens are being fetched by this process already.")
        _flights[key] = flight
    try:
        threads.start(partial(flight.fly, work), "refresh")
    except BaseException as exc:  # a worker's time limit may strike here, too
        with _table_lock:
            _flights.pop(key, None)
        if isinstance(exc, RuntimeError):  # the interpreter is shutting down, or the system has no more threads
            raise Crowded("No thread can be started.") from None
        raise
    return flight


def under_way(key: Key) -> Flight | None:
    return _flights.get(key)


# -- waiting ---------------------------------------------------------------------------------------


def wait(flight: Flight, seconds: float, *, over_http: bool = False, reading: bool = False) -> Any:
    """The flight's answer. Raises what it raises, :class:`NotYet` after ``seconds``, and :class:`Crowded` sooner where
    enough threads wait already. ``reading``: the token that is current while the flight goes on will do.
    """
    if reading and flight.current is not None:
        return flight.current
    if flight.result.done():
        return flight.result.result()
    me = Waiter(in_transaction=caller_is_in_transaction())
    try:
        with _table_lock:
            flight.waiting.append(me)
            if over_http:
                _over_http.append(me)
        return _wait(flight, me, clock.monotonic() + seconds, over_http=over_http, reading=reading)
    finally:
        with _table_lock:
            flight.waiting.remove(me)
            if me in _over_http:
                _over_http.remove(me)


def _wait(flight: Flight, me: Waiter, give_up_at: float, *, over_http: bool, reading: bool) -> Any:
    free_until = flight.began + (FREE_AGAIN if flight.key in _slow else FREE_SECONDS)
    while True:
        now = clock.monotonic()
        if reading and flight.current is not None:
            return flight.current
        if threads.wait(flight.result, min(SLICE, give_up_at - now)):
            return flight.result.result()
        now = clock.monotonic()
        if now >= give_up_at:
            raise NotYet(flight.doing)
        if me.may_hold_lock and flight.locked_for > LOCKED_SECONDS:
            raise NotYet(f"{flight.doing}, perhaps of this caller's own transaction")
        if now >= free_until and _too_many_before(me, flight, over_http=over_http):
            raise Crowded(f"Other threads of this process wait for it already: {flight.doing}")


def _too_many_before(me: Waiter, flight: Flight, *, over_http: bool) -> bool:
    if not over_http:
        return me not in flight.waiting[:WAITING]
    return me not in flight.waiting[:WAITING_OVER_HTTP] or me not in _over_http[:ALL_WAITING_OVER_HTTP]


def follow(flight: Flight, other: Flight, seconds: float, *, reading: bool = False) -> Any:
    """:func:`wait` for a flight that needs what another one brings. Meanwhile it is at what the other one is at:
    whoever waits for it, perhaps with a lock that the other one waits for, is to know.
    """
    give_up_at = clock.monotonic() + seconds
    with _table_lock:
        other.waiting.append(flight)
    try:
        while True:
            if reading and other.current is not None:
                return other.current
            if threads.wait(other.result, min(SLICE, give_up_at - clock.monotonic())):
                return other.result.result()
            flight.doing, flight.locked_since = f"waiting for its {other.key[1]}: {other.doing}", other.locked_since
            if clock.monotonic() >= give_up_at:
                raise NotYet(other.doing)
    finally:
        flight.locked_since = None
        with _table_lock:
            other.waiting.remove(flight)


def wait_landed(flight: Flight, seconds: float) -> None:
    """Wait until all work of the flight is done. Raises :class:`NotYet`."""
    if not threads.wait(flight.landed, seconds):
        raise NotYet(flight.doing)


async def wait_async(flight: Flight, seconds: float, *, reading: bool = False) -> Any:
    """:func:`wait` for a task of an event loop, which costs no thread."""
    me = Waiter(in_transaction=True)  # of whoever runs this loop: it cannot be seen from here
    flight.waiting.append(me)
    give_up_at = clock.monotonic() + seconds
    answer = asyncio.wrap_future(flight.result)
    try:
        while True:
            if reading and flight.current is not None:
                return flight.current
            if answer.done():
                return await answer
            left = give_up_at - clock.monotonic()
            if left <= 0:
                raise NotYet(flight.doing)
            await asyncio.wait([answer], timeout=min(SLICE, left))
    finally:
        flight.waiting.remove(me)
        if answer.done() and not answer.cancelled():
            answer.exception()  # else the loop complains of an error that nobody has looked at


async def wait_landed_async(flight: Flight, seconds: float) -> None:
    try:
        await asyncio.wait_for(asyncio.wrap_future(flight.landed), seconds)
    except TimeoutError:
        raise NotYet(flight.doing) from None


# -- telling, and work aside -----------------------------------------------------------------------

_lanes: dict[str, deque[Callable[[], object]]]
_aside: set[Hashable]
process.keep(globals(), _lanes=dict, _aside=set)
LANE_LENGTH: Final = 1000


def lane(name: str, work: Callable[[], object]) -> None:
    """Do ``work`` soon, in the order of a lane's own thread: a slow listener holds up its own lane alone."""
    if in_place():
        _guarded(name, work)
        return
    with _table_lock:
        waiting = _lanes.get(name)
        if waiting is not None:
            if len(waiting) < LANE_LENGTH:
                waiting.append(work)
            else:
                logger.warning("%d things wait to be told (%s); one more is dropped.", LANE_LENGTH, name)
            return
        _lanes[name] = deque([work])
    _start_or_drop(partial(_run_lane, name), name, partial(_lanes.pop, name, None))


def _run_lane(name: str) -> None:
    while True:
        with _table_lock:
            if not _lanes.get(name):
                _lanes.pop(name, None)
                return
            work = _lanes[name].popleft()
        _guarded(name, work)


def aside(name: Hashable, work: Callable[[], object]) -> None:
    """Do ``work`` soon, unless work of this name is under way here. Failures are logged.

    Beyond a few jobs at a time nothing is started: whoever asked will ask again. The database is reached through
    :func:`private`.
    """
    if in_place():
        _guarded(name, work)
        return
    with _table_lock:
        if name in _aside or len(_aside) >= ASIDE:
            return
        _aside.add(name)
    _start_or_drop(partial(_run_aside, name, work), "aside", partial(_aside.discard, name))


def _run_aside(name: Hashable, work: Callable[[], object]) -> None:
    try:
        _guarded(name, work)
    finally:
        with _table_lock:
            _aside.discard(name)


def _start_or_drop(work: Callable[[], object], name: str, drop: Callable[[], object]) -> None:
    try:
        threads.start(work, name)
    except RuntimeError:  # the interpreter is shutting down
        drop()


def _guarded(name: Hashable, work: Callable[[], object]) -> None:
    try:
        work()
    except BaseException as exc:  # a receiver that exits or is timed out must not take the lane with it
        # The type only: the text of a foreign exception may hold anything (S2).
        logger.warning("Background work %s failed: %s", name, type(exc).__name__)


# -- the end of the process, and of a test ---------------------------------------------------------


def settle(seconds: float) -> None:
    """Wait until no flight, lane or job is under way, for ``seconds`` at most. For the end of a test that removes the
    database: a private connection would be in its way. By the real clock, since such a test may have moved ours.
    """
    give_up_at = time.monotonic() + seconds
    while (_flights or _landing or _lanes or _aside) and time.monotonic() < give_up_at:
        time.sleep(0.01)


def _before_exit() -> None:
    """What WeChat has answered is worth a moment: to be stored, recorded and told. Nothing else is."""
    give_up_at = clock.monotonic() + EXIT_PATIENCE
    while clock.monotonic() < give_up_at:
        flights = list(_flights.values())
        if not (any(it.holds_answer or it.result.done() for it in flights) or _landing or "signals" in _lanes):
            return
        clock.sleep(0.02)


atexit.register(_before_exit)
