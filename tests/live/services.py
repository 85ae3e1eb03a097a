"""Which services answer here: by environment variable, else on their standard port. Loopback only."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit, urlunsplit

POSTGRES = os.environ.get("TEST_POSTGRES_URL", "postgres://root@127.0.0.1:5432/postgres")
MARIADB = os.environ.get("TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306/mysql")
REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/9")
RABBITMQ = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")


def missing(name: str) -> str:
    """Why the service cannot be used, or ''."""
    try:
        with _ADMIN[name]():
            return ""
    except ImportError as exc:
        return f"{name}: {exc.name} is not installed"
    except Exception as exc:
        return f"{name} does not answer ({type(exc).__name__}); see TEST_{name.upper()}_URL"


@contextmanager
def scratch_database(name: str) -> Iterator[str]:
    """The URL of a new, empty database, dropped at the end."""
    scratch = f"wechat_token_{uuid.uuid4().hex[:12]}"
    with _ADMIN[name]() as execute:
        execute(f"CREATE DATABASE {scratch}" + (" CHARACTER SET utf8mb4" if name == "mariadb" else ""))
    try:
        url = urlsplit(POSTGRES if name == "postgres" else MARIADB)
        yield urlunsplit(url._replace(path=f"/{scratch}"))
    finally:
        with _ADMIN[name]() as execute:
            execute(f"DROP DATABASE {scratch}" + (" WITH (FORCE)" if name == "postgres" else ""))


@contextmanager
def _postgres():
    import psycopg

    with psycopg.connect(POSTGRES, connect_timeout=2, autocommit=True) as connection:
        yield connection.execute


@contextmanager
def _mariadb():
    import MySQLdb

    url = urlsplit(MARIADB)
    with closing(
        MySQLdb.connect(
            host=url.hostname, port=url.port or 3306, user=url.username, passwd=url.password or "",
            connect_timeout=2,
        )
    ) as connection:  # fmt: skip
        yield connection.cursor().execute


@contextmanager
def _redis():
    import redis

    with redis.Redis.from_url(REDIS, socket_connect_timeout=2, socket_timeout=2) as client:
        client.ping()
        yield client


@contextmanager
def _rabbitmq():
    import kombu

    with kombu.Connection(RABBITMQ, connect_timeout=2) as connection:
        connection.ensure_connection(max_retries=1, timeout=2)
        yield connection


_ADMIN = {"postgres": _postgres, "mariadb": _mariadb, "redis": _redis, "rabbitmq": _rabbitmq}
