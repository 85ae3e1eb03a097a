"""Settings of a simulation: the app alone, on SQLite in memory, whatever the environment says."""

from __future__ import annotations

SECRET_KEY = "simulation-only-0123456789"
INSTALLED_APPS = ["wechat_token"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LOGGING_CONFIG = None
