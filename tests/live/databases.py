"""What can happen to a scratch database, and to nobody else's: read-only for a while, sessions ended."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlsplit

from . import services


class Database:
    """The scratch database at ``url``: ``postgres``, ``mariadb`` or ``sqlite``."""

    def __init__(self, vendor: str, url: str) -> None:
        self.vendor = vendor
        self.url = url
        self.name = urlsplit(url).path.removeprefix("/")  # on SQLite the absolute path: the URL has a slash more

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Writes fail within; on SQLite, which has no such state, they find the write lock taken."""
        if self.vendor == "sqlite":
            with closing(sqlite3.connect(self.name, isolation_level=None, timeout=5)) as holder:
                holder.execute("BEGIN IMMEDIATE")
                yield
                holder.execute("ROLLBACK")
            return
        self._writable(False)
        try:
            yield
        finally:
            self._writable(True)

    def _writable(self, on: bool) -> None:
        with services.admin(self.vendor) as execute:
            if self.vendor == "postgres":
                execute(f"ALTER DATABASE {self.name} SET default_transaction_read_only = {'off' if on else 'on'}")
            elif on:
                execute(f"GRANT INSERT, UPDATE, DELETE ON {self.name}.* TO {self.name}@'%'")
            else:
                execute(f"REVOKE INSERT, UPDATE, DELETE ON {self.name}.* FROM {self.name}@'%'")
        self.end_sessions()  # both take effect in new sessions only

    @contextmanager
    def serializable(self) -> Iterator[None]:
        """PostgreSQL: what new sessions do not ask otherwise for runs ``SERIALIZABLE`` within."""
        try:
            self._isolate("serializable")
            yield
        finally:
            self._isolate("read committed")

    def _isolate(self, level: str) -> None:
        with services.admin(self.vendor) as execute:
            execute(f"ALTER DATABASE {self.name} SET default_transaction_isolation = '{level}'")
        self.end_sessions()

    @contextmanager
    def rows_in_use(self) -> Iterator[None]:
        """Somebody else touches every token row all the time within, and changes nothing of importance."""
        over = threading.Event()

        def touch() -> None:
            with services.console(self.vendor, self.url) as execute:
                execute("SET default_transaction_isolation = 'read committed'")
                while not over.wait(0.002):
                    execute("UPDATE wechat_token_token SET egress_ip = egress_ip")

        toucher = threading.Thread(target=touch)
        toucher.start()
        try:
            yield
        finally:
            over.set()
            toucher.join()

    @contextmanager
    def row_held(self, appid: str) -> Iterator[None]:
        """A session with a transaction that it has forgotten holds the account's token row within."""
        where = f"account_id IN (SELECT id FROM wechat_token_account WHERE appid = '{appid}')"
        with services.console(self.vendor, self.url) as execute:
            execute("BEGIN")
            execute(f"SELECT 1 FROM wechat_token_token WHERE {where} FOR UPDATE")
            yield
            with suppress(Exception):  # the session may be gone
                execute("ROLLBACK")

    @contextmanager
    def table_held(self) -> Iterator[None]:
        """As a migration holds it: nobody reads or writes tokens within."""
        with services.console(self.vendor, self.url) as execute:
            if self.vendor == "postgres":
                execute("BEGIN")
                execute("LOCK TABLE wechat_token_token IN ACCESS EXCLUSIVE MODE")
            else:
                execute("LOCK TABLES wechat_token_token WRITE")
            yield
            with suppress(Exception):
                execute("ROLLBACK" if self.vendor == "postgres" else "UNLOCK TABLES")

    def end_sessions(self) -> None:
        """End every connection to the scratch database. Does nothing on SQLite, which has none."""
        if self.vendor == "postgres":
            with services.admin("postgres") as execute:
                execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self.name])
        elif self.vendor == "mariadb":
            with services.admin("mariadb") as execute:
                execute(f"KILL USER {self.name}")

    def execute(self, statement: str) -> None:
        """Run one statement, as an operator with a console would."""
        with services.console(self.vendor, self.url) as execute:
            execute(statement)

    def make_due(self, appid: str) -> None:
        """Overdue since long, for beat and callers alike."""
        self._update(appid, "due_at = '2026-01-01 00:00:00'")

    @contextmanager
    def due_again(self, appid: str, every: float) -> Iterator[None]:
        """Overdue once more every so many seconds within, whatever backoff its failures have earned."""
        over = threading.Event()

        def again() -> None:
            while not over.wait(every):
                with suppress(Exception):  # the row may be locked, the session ended
                    self.make_due(appid)

        thread = threading.Thread(target=again, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=30)

    def lend_for_ever(self, appid: str) -> None:
        """A lease that nobody holds, until long after everybody has gone."""
        self._update(appid, "lease_owner = 'nobody', lease_until = '2099-01-01 00:00:00'")

    def _update(self, appid: str, values: str) -> None:
        self.execute(
            f"UPDATE wechat_token_token SET {values} "
            f"WHERE account_id IN (SELECT id FROM wechat_token_account WHERE appid = '{appid}')"
        )

    def free_connections(self) -> int:
        """How many more connections the server takes."""
        if self.vendor == "postgres":
            with services.admin("postgres") as execute:
                return int(
                    execute(
                        "SELECT current_setting('max_connections')::int"
                        " - current_setting('superuser_reserved_connections')::int - count(*) FROM pg_stat_activity"
                    ).fetchone()[0]
                )
        if self.vendor == "mariadb":
            with services.cursor_of_mariadb(services.MARIADB) as cursor:
                cursor.execute("SELECT @@max_connections - count(*) FROM information_schema.processlist")
                return int(cursor.fetchone()[0])
        return 1_000_000
