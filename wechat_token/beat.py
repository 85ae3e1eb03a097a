"""The two periodic tasks of django-celery-beat: made once after migrate, never touched again.

An operator may change their interval or switch them off in the admin. Entries in ``beat_schedule`` would overwrite
that at every start of beat.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps

from .conf import get_settings

TICK = "wechat_token: refresh due tokens"
PRUNE = "wechat_token: prune the refresh log"


def create_periodic_tasks(using: str, **kwargs: Any) -> None:
    """Receiver of ``post_migrate``."""
    if not apps.is_installed("django_celery_beat"):
        return
    from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

    periodic = PeriodicTask.objects.using(using)
    if not periodic.filter(task="wechat_token.refresh_due_tokens").exists():
        interval = IntervalSchedule.objects.using(using).filter(
            every=get_settings().beat_interval, period=IntervalSchedule.SECONDS
        ).first() or IntervalSchedule.objects.using(using).create(
            every=get_settings().beat_interval, period=IntervalSchedule.SECONDS
        )  # fmt: skip
        periodic.create(name=TICK, task="wechat_token.refresh_due_tokens", interval=interval)
    if not periodic.filter(task="wechat_token.prune_refresh_log").exists():
        nightly, _created = CrontabSchedule.objects.using(using).get_or_create(
            minute="17", hour="3", timezone="Asia/Shanghai"
        )
        periodic.create(name=PRUNE, task="wechat_token.prune_refresh_log", crontab=nightly)
