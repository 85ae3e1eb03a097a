"""Refreshing many tokens at once: a pool of threads over keep-alive connections, in one process (R17)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

from django.db import DatabaseError

from . import clock, transactions
from .conf import get_settings
from .exceptions import WeChatTokenError
from .models import Token
from .refresh import refresh
from .schedule import Reason

logger = logging.getLogger("wechat_token")


def refresh_due(limit: int | None = None) -> Counter[str]:
    """Refresh what is due, most overdue first; count the outcomes. With nothing due: one query, no write."""
    if get_settings().remote_url:
        return Counter()
    due = Token.objects.due(clock.now()).values_list("pk", flat=True)
    return refresh_each(list(due[: limit or get_settings().batch_size]), reason=Reason.SCHEDULE)


def refresh_each(token_ids: Iterable[int], *, reason: Reason, client: str = "") -> Counter[str]:
    """Refresh these tokens side by side; one that fails does not hold up the others."""
    ids = list(token_ids)

    def one(token_id: int) -> str:
        try:
            return refresh(token_id, reason=reason, client=client).status.value
        except (WeChatTokenError, DatabaseError) as exc:
            # Its type only: the cause is in the row or concerns the whole site (S2).
            logger.warning("Refreshing token %d failed: %s", token_id, type(exc).__name__)
            return "error"

    if len(ids) <= 1 or transactions.is_bound_to_this_thread():
        return Counter(map(one, ids))

    waiting: SimpleQueue[int] = SimpleQueue()
    for token_id in ids:
        waiting.put(token_id)

    def work() -> Counter[str]:
        outcomes: Counter[str] = Counter()
        try:
            while True:
                outcomes[one(waiting.get_nowait())] += 1
        except Empty:
            return outcomes
        finally:
            transactions.close_connections()

    threads = min(get_settings().batch_threads, len(ids))
    with ThreadPoolExecutor(threads, thread_name_prefix="wechat_token-batch") as pool:
        return sum((done.result() for done in [pool.submit(work) for _ in range(threads)]), Counter())
