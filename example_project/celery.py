"""Celery as every Django project has it: ``celery -A example_project worker``, and the same with ``beat``."""

from __future__ import annotations

import os

from celery import Celery

from . import broker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

broker.register()  # for settings without a CELERY_BROKER_URL

app = Celery("example_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
