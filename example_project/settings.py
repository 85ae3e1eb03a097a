"""Settings of the example project: everything from the environment, everything optional.

With no variable set it runs embedded: SQLite, no Redis, and Celery's messages in a folder, not at a broker; with DEBUG
off, and with a SECRET_KEY of its own, made at the first start and kept in the data folder.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from . import broker, own_key

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("WECHAT_TOKEN_DATA_DIR") or BASE_DIR).absolute()

DEBUG = os.environ.get("DJANGO_DEBUG", "0") == "1"
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or own_key.kept_in(DATA_DIR / "secret-key")
ALLOWED_HOSTS = [
    host for host in os.environ.get("DJANGO_ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]").split(",") if host
]

INSTALLED_APPS = [
    "wechat_token",  # before the admin, on whose index it says what is wrong
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_celery_beat",
    "example_project",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    # Serves the admin's static files where DEBUG is off, straight from the packages they are in.
    *(["whitenoise.middleware.WhiteNoiseMiddleware"] if find_spec("whitenoise") else []),
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
ASGI_APPLICATION = "example_project.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]


def sqlite(path: str) -> dict[str, Any]:
    in_a_file = os.environ.get("WECHAT_TOKEN_TEST_FILE_DB")
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        # Several processes on one file: readers do not block, writers queue.
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
        "TEST": {"NAME": str(DATA_DIR / "test.sqlite3")} if in_a_file else {},
    }


def database(url: str) -> dict[str, Any]:
    """``postgres://user:password@host:port/name``, ``mysql://…``, ``sqlite:///path``; unset: SQLite here."""
    if not url:
        return sqlite(str(DATA_DIR / "db.sqlite3"))
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        path = parts.path.removeprefix("/") if parts.path.startswith("//") else parts.path
        return sqlite(unquote(path))
    engines = {"postgres": "postgresql", "postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql"}
    if parts.scheme not in engines:
        raise ImproperlyConfigured(f"DATABASE_URL: unknown scheme {parts.scheme!r}; use postgres, mysql or sqlite.")
    return {
        "ENGINE": f"django.db.backends.{engines[parts.scheme]}",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
        "CONN_HEALTH_CHECKS": True,
        "CONN_MAX_AGE": 60,
        "OPTIONS": {"connect_timeout": 3, **dict(parse_qsl(parts.query))},
    }


DATABASES = {"default": database(os.environ.get("DATABASE_URL", ""))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The tokens' cache is an alias of its own that carries text only: nothing of ours unpickles what Redis says.
REDIS_URL = os.environ.get("REDIS_URL", "")
CACHES: dict[str, Any] = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
if REDIS_URL:
    CACHES["wechat_token"] = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "OPTIONS": {
            "serializer": "wechat_token.text_cache.TextSerializer",
            # A cache that hangs must not make readers hang with it.
            "socket_connect_timeout": 0.5,
            "socket_timeout": 0.5,
        },
    }

CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "")
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {}
if not CELERY_BROKER_URL:
    CELERY_BROKER_URL = broker.URL
    CELERY_BROKER_TRANSPORT_OPTIONS = broker.options(DATA_DIR / "celery-embedded")
elif CELERY_BROKER_URL.startswith("redis"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_connect_timeout": 2, "socket_timeout": 5}
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 5
CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = "Asia/Shanghai"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
TIME_ZONE = "Asia/Shanghai"
USE_TZ = True
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True

# DJANGO_HTTPS=1: a proxy in front ends TLS, and sets (not merely passes on) X-Forwarded-Proto.
if os.environ.get("DJANGO_HTTPS", "0") == "1":
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True
    SECURE_HSTS_SECONDS = 365 * 24 * 3600

WECHAT_TOKEN: dict[str, Any] = {}
if os.environ.get("WECHAT_API_BASE_URL"):
    WECHAT_TOKEN["API_BASE_URL"] = os.environ["WECHAT_API_BASE_URL"]
if REDIS_URL:
    WECHAT_TOKEN["CACHE_ALIAS"] = "wechat_token"
# Fernet keys, with commas between them, or better the path of a file with one on each line.
if os.environ.get("WECHAT_TOKEN_ENCRYPTION_KEYS"):
    WECHAT_TOKEN["ENCRYPTION_KEYS"] = os.environ["WECHAT_TOKEN_ENCRYPTION_KEYS"].split(",")
if os.environ.get("WECHAT_TOKEN_ENCRYPTION_KEYS_FILE"):
    WECHAT_TOKEN["ENCRYPTION_KEYS_FILE"] = os.environ["WECHAT_TOKEN_ENCRYPTION_KEYS_FILE"]
WECHAT_TOKEN["READ_DERIVED_KEYS"] = os.environ.get("WECHAT_TOKEN_READ_DERIVED_KEYS", "0") == "1"
if os.environ.get("WECHAT_TOKEN_TRUSTED_PROXIES"):
    WECHAT_TOKEN["TRUSTED_PROXIES"] = int(os.environ["WECHAT_TOKEN_TRUSTED_PROXIES"])

# Everything from INFO on, with the time; beside it the security log, which a site may want in a file of its own.
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"timed": {"format": "{asctime} {levelname} {name} {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "timed"}},
    "loggers": {"wechat_token": {"handlers": ["stderr"], "level": os.environ.get("DJANGO_LOG_LEVEL", "INFO")}},
}
