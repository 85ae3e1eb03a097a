"""Private connections to the database the tokens live in: held for a step, bounded in time, never the caller's.

A token that WeChat has issued must be committed at once, whatever becomes of the transaction our caller sits in (R3).
So a refresh reads and writes on connections of its own: outside the site's pool, in autocommit, with time limits of
their own. There are a few in a process. One is held for a step and goes on, open, to the next step that waits;
while WeChat is waited for none is held (R35), and none lies idle.
"""

from __future__ import annotations

import copy
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from django.db import DatabaseError, InterfaceError, OperationalError, connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend

from .. import clock, process

T = TypeVar("T")

SLOTS: Final = 4  # two rows locked elsewhere delay a third account with 2 slots, not with 4; with 32 all are slower
LOCK_SECONDS: Final = 0.5  # how long a statement waits for a lock
STATEMENT_SECONDS: Final = 5  # how long a connection or a statement may take
FROZEN_SECONDS: Final = 15.0  # a slot held for longer hangs at a server that answers nothing: it is cut
SLOT_PATIENCE: Final = 10.0
PATIENCE: Final = 3.0  # seconds to get past a failing database while nothing is at stake yet

_MYSQL_LIMITS: Final = "SET SESSION innodb_lock_wait_timeout = 1, lock_wait_timeout = 1"


class NoSlot(OperationalError):
    """All private connections of this process are in use, by a database that does not answer."""


def alias() -> str:
    """The database the tokens live in, by the site's routers (R34)."""
    from ..models import Token

    return router.db_for_write(Token)


# -- in place: tests -------------------------------------------------------------------------------


def in_test_case(using: str | None = None) -> bool:
    """Whether Django's ``TestCase`` holds the transaction open: its rows exist on this connection alone.

    Django marks the atomic blocks of a test case for the same purpose, see ``Atomic(durable=True)``.
    """
    conn = connections[using or alias()]
    return any(getattr(block, "_from_testcase", False) for block in conn.atomic_blocks)


def in_place() -> bool:
    """Whether work has to stay on this thread's connection: a test case's rows, or in-memory SQLite, whose second
    connections meet table locks. Both mean tests.
    """
    conn = connections[alias()]
    in_memory = conn.vendor == "sqlite" and getattr(conn, "is_in_memory_db", lambda: False)()
    return bool(in_memory) or in_test_case(conn.alias)


# -- private connections ---------------------------------------------------------------------------


class _Slot:
    """One private connection, and since when it is held (monotonic)."""

    __slots__ = ("connection", "held_since")

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.held_since = 0.0


_turn: threading.Condition  # guards the three below; never held during I/O
_held: set[_Slot]
_handed: list[_Slot]  # given back open, for one of those who wait
_waiting: list[None]
process.keep(globals(), _turn=threading.Condition, _held=set, _handed=list, _waiting=list)


@contextmanager
def private() -> Iterator[str]:
    """A step on a private connection: within, ``connections[alias]`` of this thread is one. Yields the alias.

    Raises ``OperationalError`` where none can be had. In a test case: the connection there is.
    """
    using = alias()
    if in_place():
        yield using
        return
    former = next((conn for conn in connections.all(initialized_only=True) if conn.alias == using), None)
    if any(slot.connection is former for slot in list(_held)):  # a step within a step
        yield using
        return
    slot = _take()
    sound = False
    try:
        if slot.connection.alias != using:
            slot.connection.close()
            slot.connection = _made(using)
        connections[using] = slot.connection
        with _bounded(slot.connection):
            yield using
        sound = not slot.connection.in_atomic_block
    except DatabaseError as exc:
        sound = lock_is_held(exc)  # all else may have to do with the connection
        raise
    finally:
        del connections[using]
        if former is not None:
            connections[using] = former
        _give_back(slot, sound=sound)


def _take() -> _Slot:
    give_up_at = time.monotonic() + SLOT_PATIENCE
    with _turn:
        _waiting.append(None)
        try:
            while True:
                if _handed:
                    slot = _handed.pop()
                    break
                if len(_held) < SLOTS:
                    slot = _Slot(_made(alias()))
                    break
                _cut_frozen()
                if not _turn.wait(min(1.0, max(give_up_at - time.monotonic(), 0.0))) and time.monotonic() > give_up_at:
                    raise NoSlot("All private connections to the database are in use; it seems to hang.")
        finally:
            _waiting.pop()
        slot.held_since = time.monotonic()
        _held.add(slot)
        return slot


def _give_back(slot: _Slot, *, sound: bool) -> None:
    with _turn:
        _held.discard(slot)
        if sound and len(_waiting) > len(_handed) and slot.connection.connection is not None:
            _handed.append(slot)
            _turn.notify()
            return
        _turn.notify()
    with suppress(DatabaseError):
        slot.connection.close()


def _cut_frozen() -> None:
    """Shut the sockets of slots held for too long: no limit of a server helps where the server is frozen."""
    for slot in _held:
        if time.monotonic() - slot.held_since > FROZEN_SECONDS:
            with suppress(Exception):  # whatever a driver says about a connection that is in use elsewhere
                descriptor = os.dup(slot.connection.connection.fileno())
                with socket.socket(fileno=descriptor) as sock:
                    sock.shutdown(socket.SHUT_RDWR)


def _made(using: str) -> BaseDatabaseWrapper:
    """A connection by the settings as they are now, with our own limits; it opens when it is first used."""
    settings: dict[str, Any] = copy.deepcopy(connections.settings[using])
    settings |= {"AUTOCOMMIT": True, "ATOMIC_REQUESTS": False, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": False}
    options: dict[str, Any] = settings["OPTIONS"]
    backend = load_backend(settings["ENGINE"])
    wrapper: BaseDatabaseWrapper = backend.DatabaseWrapper(settings, using)
    match wrapper.vendor:
        case "postgresql":
            options.pop("pool", None)
            options.pop("isolation_level", None)
            options["connect_timeout"] = min(int(options.get("connect_timeout", STATEMENT_SECONDS)), STATEMENT_SECONDS)
            options |= {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
            options["tcp_user_timeout"] = 10_000
            if not _by_transaction(settings):
                ours = (
                    f"-c lock_timeout={int(LOCK_SECONDS * 1000)} -c statement_timeout={STATEMENT_SECONDS * 1000} "
                    "-c default_transaction_isolation=read\\ committed"
                )
                options["options"] = f"{options.get('options', '')} {ours}".strip()
        case "mysql":
            options["isolation_level"] = "read committed"
            for name in ("connect_timeout", "read_timeout", "write_timeout"):
                options[name] = min(int(options.get(name) or STATEMENT_SECONDS), STATEMENT_SECONDS)
        case "sqlite":
            options["timeout"] = 0.05  # the waiting is done in Python, where other greenlets go on meanwhile
    wrapper.inc_thread_sharing()  # a thread hands it to the next
    return wrapper


def _by_transaction(settings: dict[str, Any]) -> bool:
    """Whether a pooler such as pgbouncer gives the server away after each transaction: Django's documentation asks for
    this setting there. Session settings would leak to others, and the pooler refuses them at the start.
    """
    return bool(settings.get("DISABLE_SERVER_SIDE_CURSORS"))


@contextmanager
def _bounded(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Our limits where the connection was not opened with them."""
    if connection.vendor == "mysql" and connection.connection is None:
        with connection.cursor() as cursor:
            cursor.execute(_MYSQL_LIMITS)
    elif connection.vendor == "postgresql" and _by_transaction(connection.settings_dict):
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(
                "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
                [f"{int(LOCK_SECONDS * 1000)}ms", f"{STATEMENT_SECONDS}s"],
            )
            yield
        return
    yield


def lock_is_held(error: BaseException) -> bool:
    """Whether a statement failed because somebody else holds a lock it needs. Our limits make that an error soon."""
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if state is not None:
        return bool(state == "55P03")  # lock_not_available
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return (code & 0xFF) in (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED
    return bool(cause is not None and cause.args and cause.args[0] == 1205)  # ER_LOCK_WAIT_TIMEOUT


def patiently(step: Callable[[], T], seconds: float = PATIENCE) -> T:
    """A step on a private connection, again while the database fails for a moment: a restart, a deadlock, a lock.

    Every step is a single conditional statement, so repeating it is harmless. Raises what it last failed with.
    """
    give_up_at = clock.monotonic() + seconds
    pause = 0.05
    while True:
        try:
            with private():
                return step()
        except (DatabaseError, InterfaceError):
            if clock.monotonic() + pause > give_up_at or in_test_case():
                raise
        clock.sleep(pause)
        pause = min(pause * 2, 1.0)


# -- the caller's own connection -------------------------------------------------------------------


class NotHere(Exception):
    """The caller's own connection is no place to read: closed, broken, or its transaction sees an old world."""


def read_here(work: Callable[[], T]) -> T:
    """Run a query on the caller's own connection, if that costs nothing and what it sees is of now.

    An open connection with a snapshot for each statement needs no second one: eight requests that hold the four
    connections of a pool would wait for a ninth in vain. Waits for no lock longer than a moment, and leaves the
    connection as it was. Raises :class:`NotHere`, and database errors.
    """
    conn = connections[alias()]
    if in_place():
        return work()
    if conn.connection is None or conn.closed_in_transaction or conn.needs_rollback or conn.errors_occurred:
        raise NotHere
    in_transaction = conn.in_atomic_block or not conn.get_autocommit()
    match conn.vendor:
        case "postgresql":
            return _read_in_savepoint(conn, work, in_transaction=in_transaction)
        case "mysql":
            if in_transaction and getattr(conn, "isolation_level", None) != "read committed":
                raise NotHere  # REPEATABLE READ: the world as it was when this transaction first looked
            return _read_with_short_waits(conn, work)
        case _:
            if in_transaction:
                raise NotHere  # SQLite's snapshot in WAL mode is that of the transaction
            return work()


def read(work: Callable[[], T]) -> T:
    """Run a query where what it sees is of now: here, or else on a private connection."""
    try:
        return read_here(work)
    except NotHere:
        with private():
            return work()


def _read_in_savepoint(conn: BaseDatabaseWrapper, work: Callable[[], T], *, in_transaction: bool) -> T:
    with transaction.atomic(using=conn.alias):
        with conn.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('transaction_isolation'), set_config('lock_timeout', %s, true)",
                [f"{int(LOCK_SECONDS * 1000)}ms"],
            )
            (isolation, _limit) = cursor.fetchone()
        if in_transaction and isolation != "read committed":
            raise NotHere
        result = work()
        transaction.set_rollback(True, using=conn.alias)  # takes the limit back; nothing else was done
    return result


def _read_with_short_waits(conn: BaseDatabaseWrapper, work: Callable[[], T]) -> T:
    with conn.cursor() as cursor:
        cursor.execute("SELECT @@lock_wait_timeout")
        (former,) = cursor.fetchone()
        cursor.execute("SET lock_wait_timeout = 1")
        try:
            return work()
        finally:
            with suppress(DatabaseError):
                cursor.execute(f"SET lock_wait_timeout = {int(former)}")


def caller_is_in_transaction() -> bool:
    """Whether locks that this thread's own transaction holds may be what a refresh waits for."""
    conn = connections[alias()]
    if conn.connection is None and not conn.in_atomic_block:
        return False
    return conn.in_atomic_block or not conn.get_autocommit()
