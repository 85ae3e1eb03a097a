"""The periodic tasks: made by ``migrate`` in whatever order, where the site's routers want them, and only once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from wechat_token import beat

ROOT = Path(__file__).resolve().parent.parent
BOTH = ["wechat_token.prune_refresh_log", "wechat_token.refresh_due_tokens"]

SITES = """
import json, sys
from pathlib import Path

from django.conf import settings

FOLDER = Path(sys.argv[1])
PLACES = {}  # the database of an app, where the site has a router


class Router:
    def db_for_read(self, model, **hints):
        return PLACES.get(model._meta.app_label, "default") if PLACES else None

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **hints):
        return PLACES.get(app_label, "default") == db if PLACES else None


settings.configure(
    SECRET_KEY="of a site with two databases",
    INSTALLED_APPS=["django.contrib.contenttypes", "wechat_token", "django_celery_beat"],
    DATABASES={
        name: {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / name} for name in ("default", "second")
    },
    DATABASE_ROUTERS=["__main__.Router"],
    USE_TZ=True,
)
import django

django.setup()

from django.core.management import call_command
from django.db import connections


def tasks(name):
    with connections[name].cursor() as cursor:
        if "django_celery_beat_periodictask" not in connections[name].introspection.table_names(cursor):
            return 0
        cursor.execute("SELECT COUNT(*) FROM django_celery_beat_periodictask WHERE task LIKE 'wechat_token.%'")
        return cursor.fetchone()[0]


def counts(commands):
    for command in commands:
        try:
            call_command(*command.split(), verbosity=0, interactive=False)
        except Exception as error:
            yield f"{command}: {error}"
            return
        yield [tasks("default"), tasks("second")]


seen = {}
for site, (places, commands) in json.load(sys.stdin).items():
    PLACES.clear()
    PLACES.update(places)
    seen[site] = list(counts(commands))
    connections.close_all()
    for name in connections:
        (FOLDER / name).unlink(missing_ok=True)
print(json.dumps(seen))
"""

# A command, and how many of our tasks the databases "default" and "second" hold after it.
Step = tuple[str, list[int]]

TOGETHER = {"wechat_token": "second", "django_celery_beat": "second"}
TOKENS_APART = {"wechat_token": "second"}
BEAT_APART = {"django_celery_beat": "second"}

CASES: dict[str, tuple[dict[str, str], list[Step]]] = {
    "ours first": ({}, [("migrate wechat_token", [0, 0]), ("migrate", [2, 0]), ("migrate", [2, 0])]),
    "another first": (
        {},
        [("migrate contenttypes", [0, 0]), ("migrate wechat_token", [0, 0]), ("migrate django_celery_beat", [2, 0])],
    ),
    "beat first": ({}, [("migrate django_celery_beat", [0, 0]), ("migrate wechat_token", [2, 0])]),
    "beat of an older version": (
        {},
        [("migrate django_celery_beat 0005", [0, 0]), ("migrate wechat_token", [0, 0]), ("migrate", [2, 0])],
    ),
    "back and forth": (
        {},
        [
            ("migrate", [2, 0]), ("flush", [2, 0]), ("migrate wechat_token zero", [2, 0]), ("flush", [0, 0]),
            ("migrate", [2, 0]), ("migrate django_celery_beat zero", [0, 0]),
        ],
    ),
    "no router": ({}, [("migrate --database=second", [0, 0])]),
    "both apart": (TOGETHER, [("migrate", [0, 0]), ("migrate --database=second", [0, 2]), ("migrate", [0, 2])]),
    "both apart, reversed": (TOGETHER, [("migrate --database=second", [0, 2]), ("migrate", [0, 2])]),
    "tokens apart": (TOKENS_APART, [("migrate", [2, 0]), ("migrate --database=second", [2, 0])]),
    "tokens apart, reversed": (TOKENS_APART, [("migrate --database=second", [0, 0]), ("migrate", [2, 0])]),
    "beat apart": (BEAT_APART, [("migrate", [0, 0]), ("migrate --database=second", [0, 2])]),
}  # fmt: skip


@pytest.mark.proof
def test_migrate__makes_the_tasks_once_where_they_belong_in_any_order(tmp_path: Path) -> None:
    """One process for all sites: most of the time of each would be its start."""
    script = tmp_path / "sites.py"
    script.write_text(SITES)
    sites = {site: (places, [command for command, _counts in steps]) for site, (places, steps) in CASES.items()}
    done = subprocess.run(
        [sys.executable, script, tmp_path],
        input=json.dumps(sites), env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {
        site: [counts for _command, counts in steps] for site, (_places, steps) in CASES.items()
    }


# -- once there, they are the operator's -------------------------------------------------------------


def test_create__first_values(db: None) -> None:
    assert PeriodicTask.objects.get(task=beat.TASK).interval.every == 5
    nightly = PeriodicTask.objects.get(task=beat.PRUNE_TASK).crontab
    assert (nightly.hour, nightly.minute, str(nightly.timezone)) == ("3", "17", "Asia/Shanghai")


def test_create__an_operators_edit_survives_migrate(db: None) -> None:
    task = PeriodicTask.objects.get(task=beat.TASK)
    task.interval = IntervalSchedule.objects.create(every=42, period="seconds")
    task.enabled, task.name = False, "ours"
    task.save()
    call_command("migrate", verbosity=0)
    task = PeriodicTask.objects.get(task=beat.TASK)
    assert (task.interval.every, task.enabled, task.name) == (42, False, "ours")


def test_create__takes_any_of_several_schedules_alike(db: None) -> None:
    PeriodicTask.objects.all().delete()
    nightly = CrontabSchedule.objects.get(minute="17", hour="3")
    nightly.pk = None
    nightly.save()
    beat.create_periodic_tasks("default")
    assert PeriodicTask.objects.filter(task__in=BOTH).count() == 2


def test_create__never_on_a_schedule_for_some_days_only(db: None) -> None:
    PeriodicTask.objects.all().delete()
    CrontabSchedule.objects.update(day_of_week="1")
    beat.create_periodic_tasks("default")
    assert PeriodicTask.objects.get(task=beat.PRUNE_TASK).crontab.day_of_week == "*"


def test_create__leaves_a_task_of_the_same_name_alone(db: None) -> None:
    PeriodicTask.objects.filter(task=beat.TASK).update(task="site.refresh_then_publish")
    beat.create_periodic_tasks("default")
    assert PeriodicTask.objects.get(name=beat.TICK).task == "site.refresh_then_publish"


# -- what the rows say -------------------------------------------------------------------------------


def test_ticks__are_read_with_one_query(db: None, django_assert_num_queries: Any) -> None:
    PeriodicTask.objects.create(
        name="nightly", task=beat.TASK, enabled=False, crontab=CrontabSchedule.objects.create(hour="3")
    )
    hours = IntervalSchedule.objects.create(every=2, period="hours")
    PeriodicTask.objects.create(name="slow", task=beat.TASK, interval=hours)
    with django_assert_num_queries(1):
        ticks = beat.ticks()
    assert [(tick.name, tick.enabled, tick.every) for tick in ticks] == [
        (beat.TICK, True, 5.0), ("nightly", False, None), ("slow", True, 7200.0),
    ]  # fmt: skip


def test_has_tables__looks_at_the_database_of_the_tasks_alone(db: None) -> None:
    """Without an alias of that name, a look would raise."""
    assert "elsewhere" not in connections
    assert not beat.has_tables("elsewhere")
    assert beat.has_tables("default")
