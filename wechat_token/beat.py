"""Celery beat: the periodic tasks that ``migrate`` makes, and what django-celery-beat's rows say of the tick.

The tasks are made once and never touched again: an operator may change their interval or switch them off in the
admin. Entries in ``beat_schedule`` would overwrite that at every start of beat.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

from django.apps import apps as installed_apps
from django.apps.registry import Apps
from django.conf import settings as django_settings
from django.db import connections, router

from .conf import get_settings
from .models import Token

TASK: Final = "wechat_token.refresh_due_tokens"
TICK: Final = "wechat_token: refresh due tokens"
PRUNE_TASK: Final = "wechat_token.prune_refresh_log"
PRUNE: Final = "wechat_token: prune the refresh log"

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
    return installed_apps.is_installed("django_celery_beat")


def is_scheduled_in_settings() -> bool:
    """Whether ``CELERY_BEAT_SCHEDULE`` starts the tick, for beat without django-celery-beat."""
    schedule = getattr(django_settings, "CELERY_BEAT_SCHEDULE", None) or {}
    return any(isinstance(entry, dict) and entry.get("task") == TASK for entry in schedule.values())


def alias() -> str:
    """The database of the periodic tasks, by the site's routers; not always the one the tokens live in."""
    from django_celery_beat.models import PeriodicTask

    return router.db_for_write(PeriodicTask)


def has_tables(using: str) -> bool:
    """Whether the periodic tasks belong into the database ``using`` and it has been migrated.

    Of this app's tables, too, where they belong into the same one. No other database is looked at: while Django
    sets up the databases of a test run, the others are still the real ones.
    """
    if not is_installed() or using != alias():
        return False
    return {model._meta.db_table for model in _models(using)} <= set(connections[using].introspection.table_names())


def ticks() -> list[Tick]:
    """The periodic tasks that start our tick; needs :func:`has_tables`."""
    from django_celery_beat.models import PeriodicTask

    # Columns that have always been there: migrate runs a check that comes here before it adds the newer ones.
    rows = PeriodicTask.objects.using(alias()).filter(task=TASK).order_by("pk").values_list(
        "name", "enabled", "interval__every", "interval__period", "last_run_at"
    )  # fmt: skip
    return [
        Tick(name, enabled, dt.timedelta(**{period: every}).total_seconds() if period else None, last_run_at)
        for name, enabled, every, period, last_run_at in rows
    ]


def create_periodic_tasks(using: str, apps: Apps = installed_apps, **kwargs: Any) -> None:
    """Receiver of ``post_migrate``, sent at the end of every ``migrate``, whichever apps and database it was for.

    ``apps`` are the models as the migrations so far have made them.
    """
    if not has_tables(using) or not all(_is_complete(model, apps) for model in _models(using)):
        return
    from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

    tasks = PeriodicTask.objects.using(using)
    if not tasks.filter(task=TASK).exists():
        interval = _schedule(IntervalSchedule, using, every=get_settings().beat_interval, period="seconds")
        tasks.get_or_create(name=TICK, defaults={"task": TASK, "interval": interval})
    if not tasks.filter(task=PRUNE_TASK).exists():
        nightly = _schedule(
            CrontabSchedule, using, minute="17", hour="3", day_of_week="*", day_of_month="*", month_of_year="*",
            timezone="Asia/Shanghai",
        )  # fmt: skip
        tasks.get_or_create(name=PRUNE, defaults={"task": PRUNE_TASK, "crontab": nightly})


def _models(using: str) -> list[Any]:
    """What has to be there before periodic tasks are: all of beat's models, and ours if they live beside them."""
    beats = installed_apps.get_app_config("django_celery_beat").get_models()
    return [*beats, *([Token] if router.db_for_write(Token) == using else [])]


def _is_complete(model: Any, apps: Apps) -> bool:
    """Whether the migrations that ran have brought all columns of ``model``."""
    try:
        migrated: Any = apps.get_model(model._meta.label)
    except LookupError:
        return False
    return _columns(model) <= _columns(migrated)


def _columns(model: Any) -> set[str]:
    return {field.column for field in model._meta.local_concrete_fields}


def _schedule(model: Any, using: str, **fields: Any) -> Any:
    """A row with these fields. Beat's tables may have several alike: any will do."""
    rows = model.objects.using(using)
    return rows.filter(**fields).first() or rows.create(**fields)
