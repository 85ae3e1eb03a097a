"""Running database work outside the caller's transaction (R3).

A token that WeChat has issued must be committed at once, whatever becomes of the transaction our caller sits in:
rolled back with it, the account's only valid token would be lost. A connection can hold one transaction, so the
work moves to a thread, and with it to a connection of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

T = TypeVar("T")

SQLITE_BUSY_MS = 250  # long enough for other processes' short writes, short for a caller in its own way


def alias() -> str:
    """The database the tokens live in, by the site's routers."""
    from .models import Token

    return router.db_for_write(Token)


def connection() -> BaseDatabaseWrapper:
    return connections[alias()]


def in_test_case() -> bool:
    """Whether Django's ``TestCase`` holds the transaction open: its rows exist on this connection alone.

    Django marks the atomic blocks of a test case for the same purpose, see ``Atomic(durable=True)``.
    """
    return any(getattr(block, "_from_testcase", False) for block in connection().atomic_blocks)


def caller_holds_transaction() -> bool:
    """Whether work done on this thread's connection could be rolled back by somebody else."""
    conn = connection()
    if conn.connection is None and not conn.in_atomic_block:
        return False
    return (conn.in_atomic_block or not conn.get_autocommit()) and not in_test_case()


def outside(work: Callable[[], T]) -> T:
    """Run ``work`` where its commits are final and its reads are current; here, if no transaction is open here.

    Inside a ``REPEATABLE READ`` transaction (MySQL's default) even reading would show an old world.
    """
    if not caller_holds_transaction() or no_second_connection():
        return work()
    return in_thread(work)


def read(work: Callable[[], T]) -> T:
    """:func:`outside` for a query, made once more if this thread's connection turns out to have died.

    Django replaces dead connections between requests. A consumer or a command that runs for weeks has no requests,
    and after a restart of the database it would be without tokens until its own.
    """

    def attempt() -> T:
        try:
            return work()
        except (OperationalError, InterfaceError):
            if not _dropped_dead_connection():
                raise
        return work()

    return outside(attempt)


def _dropped_dead_connection() -> bool:
    conn = connection()
    if conn.in_atomic_block or conn.connection is None:
        return False
    conn.close_if_unusable_or_obsolete()
    return conn.connection is None


def in_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread with its own connections, closed afterwards; return or raise what it does."""
    result: list[T] = []
    error: list[BaseException] = []

    def run() -> None:
        _borrowed.is_outside = True
        try:
            _do_not_queue_behind_the_caller()
            result.append(work())
        except BaseException as exc:
            error.append(exc)
        finally:
            close_connections()

    thread = threading.Thread(target=run, name="wechat_token-outside")
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return result[0]


def close_connections() -> None:
    """Close what this thread opened, before it ends. Django itself leaves in-memory SQLite databases open."""
    for conn in connections.all(initialized_only=True):
        conn.close()
        if conn.vendor == "sqlite" and conn.connection is not None:
            conn.connection.close()
            conn.connection = None


_borrowed = threading.local()


def is_outside() -> bool:
    """Whether this thread works for a caller that waits inside a transaction."""
    return getattr(_borrowed, "is_outside", False)


def _do_not_queue_behind_the_caller() -> None:
    """SQLite: fail soon where the waiting caller itself holds the write lock, instead of waiting for it in vain."""
    conn = connection()
    if conn.vendor == "sqlite":
        with conn.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_MS}")


def no_second_connection() -> bool:
    """Whether the caller sits in a transaction on in-memory SQLite, whose second connections meet table locks."""
    return _is_in_memory() and caller_holds_transaction()


def is_bound_to_this_thread() -> bool:
    """Whether work has to stay on this thread: a test case's rows, or in-memory SQLite. Both mean tests."""
    return _is_in_memory() or in_test_case()


def _is_in_memory() -> bool:
    conn = connection()
    return conn.vendor == "sqlite" and getattr(conn, "is_in_memory_db", lambda: False)()


def caller_holds_write_lock() -> bool:
    """On SQLite: whether this thread's open transaction is the one that keeps every other connection from writing.

    Tries to take the lock on the caller's own connection, with a statement that changes nothing.
    """
    from .models import Token

    conn = connection()
    if conn.vendor != "sqlite" or not conn.in_atomic_block:
        return False
    try:
        with transaction.atomic(using=alias()):
            Token.objects.filter(pk=0).update(revision=0)
    except OperationalError:
        return False
    return True
