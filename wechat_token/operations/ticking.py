"""Whether beat ticks: what the rows of django-celery-beat say about our periodic task."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from django.apps import apps
from django.conf import settings as django_settings
from django.db import connections

TASK: Final = "wechat_token.refresh_due_tokens"

# The DatabaseScheduler writes down when a task last ran every 3 minutes only.
WRITTEN_DOWN_WITHIN: Final = 300.0


@dataclass(frozen=True, slots=True)
class Tick:
    """One periodic task that starts our tick. ``every`` is in seconds, None for a crontab."""

    name: str
    enabled: bool
    every: float | None
    last_run_at: dt.datetime | None


def is_installed() -> bool:
    return apps.is_installed("django_celery_beat")


def is_scheduled_in_settings() -> bool:
    """Whether ``CELERY_BEAT_SCHEDULE`` starts the tick, for beat without django-celery-beat."""
    schedule = getattr(django_settings, "CELERY_BEAT_SCHEDULE", None) or {}
    return any(isinstance(entry, dict) and entry.get("task") == TASK for entry in schedule.values())


def has_tables(using: str) -> bool:
    """Whether both this app and django-celery-beat have been migrated in the database ``using``."""
    from ..models import Token

    if not is_installed():
        return False
    from django_celery_beat.models import PeriodicTask

    tables = set(connections[using].introspection.table_names())
    return {PeriodicTask._meta.db_table, Token._meta.db_table} <= tables


def ticks(using: str) -> list[Tick]:
    """The periodic tasks that start our tick; needs :func:`has_tables`."""
    from django_celery_beat.models import PeriodicTask

    rows = PeriodicTask.objects.using(using).filter(task=TASK).select_related("interval").order_by("pk")
    return [
        Tick(
            name=row.name,
            enabled=row.enabled,
            every=row.schedule.run_every.total_seconds() if row.interval_id else None,
            last_run_at=row.last_run_at,
        )
        for row in rows
    ]
