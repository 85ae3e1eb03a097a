"""A replica that lags: a second scratch database, filled from the first every so often, and a router that reads there.

Nothing but the tables of ``wechat_token`` is copied, which are what this package reads.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from . import services

LAG: Final = 20.0  # seconds between two copies
TABLES: Final = (
    "SELECT table_name FROM information_schema.tables WHERE table_schema = '{schema}' "
    "AND table_name LIKE 'wechat\\_token\\_%' AND table_type = 'BASE TABLE' ORDER BY table_name"
)


class ReadsFromReplica:
    """Django's usual primary/replica router."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool:
        return True


class Replica:
    """Copies within. Both URLs are of databases with the same tables, of ``postgres`` or ``mariadb``."""

    def __init__(self, vendor: str, primary: str, replica: str) -> None:
        self._copy = _copy_postgres if vendor == "postgres" else _copy_mariadb
        self._databases = primary, replica
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replica", daemon=True)
        self.copies = 0

    def __enter__(self) -> Self:
        self.copy()
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._over.set()
        self._thread.join(timeout=30)

    def copy(self) -> None:
        self._copy(*self._databases)
        self.copies += 1

    def _run(self) -> None:
        pause = LAG
        while not self._over.wait(pause):
            try:
                self.copy()
                pause = LAG
            except Exception:  # sessions are ended here all the time
                pause = 1.0


def _copy_postgres(primary: str, replica: str) -> None:
    import psycopg

    with psycopg.connect(primary, connect_timeout=2) as source, psycopg.connect(replica, connect_timeout=2) as target:
        source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        target.execute("SET session_replication_role = replica")  # foreign keys are right in the end, not in between
        for (table,) in source.execute(TABLES.format(schema="public").encode()).fetchall():
            target.execute(f"DELETE FROM {table}")
            with (
                source.cursor().copy(f"COPY {table} TO STDOUT") as rows,
                target.cursor().copy(f"COPY {table} FROM STDIN") as into,
            ):
                for block in rows:
                    into.write(block)


def _copy_mariadb(primary: str, replica: str) -> None:
    source, target = (urlsplit(url).path.removeprefix("/") for url in (primary, replica))
    with services.cursor_of_mariadb(services.MARIADB) as cursor:
        cursor.execute(TABLES.format(schema=source))
        tables = [name for (name,) in cursor.fetchall()]
        cursor.execute("SET foreign_key_checks = 0, tx_isolation = 'READ-COMMITTED', innodb_lock_wait_timeout = 5")
        cursor.execute("BEGIN")
        for table in tables:
            cursor.execute(f"DELETE FROM {target}.{table}")
            cursor.execute(f"INSERT INTO {target}.{table} SELECT * FROM {source}.{table}")
        cursor.execute("COMMIT")
