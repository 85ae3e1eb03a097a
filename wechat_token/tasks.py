"""Celery's way in. Arguments are ids only (S2); every task is harmless when it runs twice or late (R7).

``expires`` stands on the tasks themselves: the DatabaseScheduler drops it from schedule entries, and ticks must not
pile up while workers are down.
"""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from typing import Any

from celery import shared_task
from celery.signals import after_task_publish, heartbeat_sent
from django.db import DatabaseError, InterfaceError

from . import clock
from .client_keys import reads
from .conf import get_settings
from .diagnosis import watch
from .engine import Reason, aside, drain, in_place, private, refresh_each, sign_of_life
from .models import RefreshLog, Token

PRUNE_AT_ONCE = 10_000  # rows of one DELETE: short locks, whatever has piled up


@heartbeat_sent.connect(weak=False, dispatch_uid="wechat_token.tasks.worker")
def _worker_lives(**kwargs: Any) -> None:
    """In the main process of each worker, every few seconds, whether or not there is anything to do."""
    _sign("worker_at")


@after_task_publish.connect(
    weak=False, sender="wechat_token.refresh_due_tokens", dispatch_uid="wechat_token.tasks.beat"
)
def _beat_lives(**kwargs: Any) -> None:
    """In beat, when the broker has taken the tick."""
    _sign("beat_at")


def _sign(which: str) -> None:
    """On a thread: neither beat nor a worker waits for the database."""

    def work() -> None:
        with suppress(DatabaseError, InterfaceError), private():
            sign_of_life(which)

    if not in_place():
        aside(which, work)


@shared_task(name="wechat_token.refresh_due_tokens", ignore_result=True, expires=30)
def refresh_due_tokens() -> dict[str, int]:
    """The tick of beat: renew what is due (R17)."""
    try:
        return dict(drain())
    finally:
        watch.begin(ticking=True)


@shared_task(name="wechat_token.refresh_token", ignore_result=True, expires=60)
def refresh_token(token_id: int) -> dict[str, int]:
    """Refresh one token that has just become due: its account was added, activated or edited."""
    with private():
        keys = list(Token.objects.filter(pk=token_id).values_list("account__ref", "kind"))
    return dict(refresh_each(keys, reason=Reason.SCHEDULE))


@shared_task(name="wechat_token.prune_refresh_log", ignore_result=True, expires=3600)
def prune_refresh_log() -> int:
    """Delete log rows older than ``LOG_DAYS`` (R15), and records of who read a token; returns how many log rows."""
    reads.prune()
    oldest = clock.now() - dt.timedelta(days=get_settings().log_days)
    deleted = 0
    old = RefreshLog.objects.older_than(oldest).order_by("at").values_list("pk", flat=True)
    while ids := list(old[:PRUNE_AT_ONCE]):
        deleted += RefreshLog.objects.filter(pk__in=ids).delete()[0]
    return deleted
