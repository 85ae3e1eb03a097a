"""Work that a caller starts but does not wait for: a few threads per process, made when first needed."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor

from . import transactions

logger = logging.getLogger("wechat_token")

THREADS = 4

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_running: set[Hashable] = set()


def run(name: Hashable, work: Callable[[], object]) -> None:
    """Run ``work`` soon in another thread, unless work of this name is under way here. Failures are logged.

    In tests it may run at once in this thread: no other thread would see the rows of a Django test case.
    """
    global _pool
    if transactions.is_bound_to_this_thread():
        _guarded(name, work)
        return
    with _lock:
        if name in _running:
            return
        _running.add(name)
        if _pool is None:
            _pool = ThreadPoolExecutor(THREADS, thread_name_prefix="wechat_token")
        pool = _pool
    try:
        pool.submit(_in_thread, name, work)
    except RuntimeError:  # the interpreter is shutting down
        _done(name)


def _in_thread(name: Hashable, work: Callable[[], object]) -> None:
    try:
        _guarded(name, work)
    finally:
        transactions.close_connections()
        _done(name)


def _guarded(name: Hashable, work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as exc:
        # The type only: the text of a foreign exception may hold anything (S2).
        logger.warning("Background work %s failed: %s", name, type(exc).__name__)


def _done(name: Hashable) -> None:
    with _lock:
        _running.discard(name)


def _after_fork() -> None:
    """Threads do not survive a fork: a child that used the parent's pool would wait for ever."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
