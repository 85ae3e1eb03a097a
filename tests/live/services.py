"""Which services answer here: by environment variable, else on their standard port. Loopback only."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

POSTGRES = os.environ.get("TEST_POSTGRES_URL", "postgres://root@127.0.0.1:5432/postgres")
MARIADB = os.environ.get("TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306/mysql")
REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/9")
RABBITMQ = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
PATIENCE = 15  # seconds


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
    url = urlsplit(POSTGRES if name == "postgres" else MARIADB)._replace(path=f"/{scratch}")
    with admin(name) as execute:
        execute(f"CREATE DATABASE {scratch}" + (" CHARACTER SET utf8mb4" if name == "mariadb" else ""))
        if name == "mariadb":  # a user of its own, whose rights can be taken away without touching anybody else
            execute(f"CREATE USER {scratch}@'%'")
            execute(f"GRANT ALL ON {scratch}.* TO {scratch}@'%'")
            url = url._replace(netloc=f"{scratch}@{url.hostname}:{url.port or 3306}")
    try:
        yield urlunsplit(url)
    finally:
        with admin(name) as execute:
            execute(f"DROP DATABASE {scratch}" + (" WITH (FORCE)" if name == "postgres" else ""))
            if name == "mariadb":
                execute(f"DROP USER {scratch}@'%'")


def admin(name: str) -> AbstractContextManager[Any]:
    """A connection that may do everything at this service, as a context manager."""
    return _ADMIN[name]()


def through(url: str, port: int) -> str:
    """The same service, reached by another loopback port."""
    parts = urlsplit(url)
    userinfo, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{userinfo}{at}127.0.0.1:{port}"))


def forget_run(run: str, *, redis: bool, broker: str) -> None:
    """Delete what one run left behind: its keys in Redis, its queue at RabbitMQ."""
    if redis or broker == "redis":
        delete_keys(f"{run}*")
    if broker == "rabbitmq":
        with _rabbitmq() as connection, connection.channel() as channel:
            channel.queue_delete(run)
            channel.exchange_delete(run)


def delete_keys(pattern: str) -> int:
    """Delete these keys in Redis, never others; how many there were."""
    with _redis() as client:
        return sum(client.delete(key) for key in client.scan_iter(pattern, count=1000))


@contextmanager
def console(vendor: str, url: str) -> Iterator[Callable[..., Any]]:
    """``execute`` of a session in one database, which waits for no lock without end.

    On PostgreSQL it may write where the database says it may not.
    """
    if vendor == "postgres":
        import psycopg

        with psycopg.connect(url, connect_timeout=2, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"SET lock_timeout = '{PATIENCE}s'")
            yield connection.execute
    elif vendor == "mariadb":
        with cursor_of_mariadb(url) as cursor:
            cursor.execute(f"SET innodb_lock_wait_timeout = {PATIENCE}, lock_wait_timeout = {PATIENCE}")
            yield cursor.execute
    else:
        with closing(sqlite3.connect(urlsplit(url).path.removeprefix("/"), isolation_level=None, timeout=5)) as file:
            yield file.execute


@contextmanager
def cursor_of_mariadb(url: str) -> Iterator[Any]:
    import MySQLdb

    parts = urlsplit(url)
    with closing(
        MySQLdb.connect(
            host=parts.hostname, port=parts.port or 3306, user=parts.username, passwd=parts.password or "",
            db=parts.path.removeprefix("/"), connect_timeout=2, autocommit=True,
        )
    ) as connection:  # fmt: skip
        yield connection.cursor()


@contextmanager
def _redis() -> Iterator[Any]:
    import redis

    with redis.Redis.from_url(REDIS, socket_connect_timeout=2, socket_timeout=2) as client:
        client.ping()
        yield client


@contextmanager
def _rabbitmq() -> Iterator[Any]:
    import kombu

    with kombu.Connection(RABBITMQ, connect_timeout=2) as connection:
        connection.ensure_connection(max_retries=1, timeout=2)
        yield connection


_ADMIN: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "postgres": partial(console, "postgres", POSTGRES),
    "mariadb": partial(console, "mariadb", MARIADB),
    "redis": _redis,
    "rabbitmq": _rabbitmq,
}
