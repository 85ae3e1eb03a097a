"""Threads and the waiting for them, in one place, so that a simulation can replace them (R19).

All are daemons: a process that ends waits for none of them (R30). Nobody but :mod:`ground` starts one.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Collection
from typing import Any

from django.db import connections

Future = concurrent.futures.Future


def start(work: Callable[[], object], name: str) -> None:
    """Run ``work`` in a thread of its own, and close there what Django opened for it. It must not raise."""
    threading.Thread(target=_run, args=(work,), name=f"wechat_token-{name}", daemon=True).start()


def _run(work: Callable[[], object]) -> None:
    try:
        work()
    finally:
        connections.close_all()


def wait(future: Future[Any], seconds: float) -> bool:
    """Wait until ``future`` is done, for ``seconds`` at most; whether it is."""
    return bool(concurrent.futures.wait([future], max(seconds, 0.0)).done)


def wait_any(futures: Collection[Future[Any]], seconds: float) -> bool:
    """Wait until one of them is done, for ``seconds`` at most; whether one is."""
    done, _ = concurrent.futures.wait(futures, max(seconds, 0.0), concurrent.futures.FIRST_COMPLETED)
    return bool(done)
