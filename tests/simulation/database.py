"""Every SQL statement of a simulated process: it takes time, may fail before or after it is committed, and is a
place where the process can be killed or frozen. One connection serves all: a statement is executed in one piece,
and statements of an ``atomic`` block are not taken apart, which is what a database guarantees.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.db import OperationalError, connection
from django.db.models import Model

from wechat_token.models import Account, ClientKey, Host, RefreshLog, Site, Token

if TYPE_CHECKING:
    from .kernel import Task
    from .world import World

TABLES: tuple[type[Model], ...] = (Account, Token, RefreshLog, Host, Site)
LOCK_SECONDS = 0.5  # what the package lets a statement wait for a lock
_UPDATE_TOKEN = f'UPDATE "{Token._meta.db_table}"'


def create_tables() -> None:
    existing = set(connection.introspection.table_names())
    models: tuple[type[Model], ...] = (*TABLES, ClientKey)
    with connection.schema_editor() as editor:
        for model in models:
            if model._meta.db_table not in existing:
                editor.create_model(model)


class Locked(Exception):
    """What a driver says of a row that somebody else has locked; :func:`lock_is_held` knows it."""

    sqlite_errorcode = sqlite3.SQLITE_BUSY


class Database:
    def __init__(self, world: World) -> None:
        self.world = world
        self.down_since = 0.0
        self.down_until = 0.0
        self.statements = 0
        self._locks: dict[int, Task] = {}  # by token id: whose transaction has the row

    @property
    def is_down(self) -> bool:
        return self.world.kernel.now < self.down_until

    def was_down(self, since: float) -> bool:
        return self.down_until > since

    def lock(self, token_id: int, task: Task) -> bool:
        """Take the row for a transaction of the site's, until :meth:`unlock` or the end of its process."""
        if self._is_locked(token_id):
            return False
        self._locks[token_id] = task
        return True

    def unlock(self, token_id: int) -> None:
        del self._locks[token_id]

    def _is_locked(self, token_id: int) -> bool:
        return token_id in self._locks and not self._locks[token_id].dead

    def _wait_for_row(self, token_id: int) -> None:
        give_up_at = self.world.kernel.now + LOCK_SECONDS
        while self._is_locked(token_id):
            if self.world.kernel.now >= give_up_at:
                raise OperationalError("simulated: the row is locked") from Locked()
            self.world.kernel.sleep(0.05)

    def execute(self, run: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Django's ``execute_wrapper``."""
        world, kernel = self.world, self.world.kernel
        if kernel.task is None:  # the simulation's own look at the tables
            return run(sql, params, many, context)
        task = kernel.alive()
        if connection.in_atomic_block:
            return run(sql, params, many, context)
        self.statements += 1
        swarm, rng = world.swarm, world.rng
        world.step("sql", 0.0005 + 0.003 * rng.random())
        if self.is_down or (swarm.sql_before and rng.random() < swarm.sql_before):
            world.trouble(None, "sql refused")
            raise OperationalError("simulated: the server closed the connection")
        if task.writing is not None and sql.startswith(_UPDATE_TOKEN):
            self._wait_for_row(task.writing[0])
        task.executed_at = kernel.now
        result = run(sql, params, many, context)
        # Not after INSERT … RETURNING: SQLite has not finished it before its row is read.
        if sql.startswith(_UPDATE_TOKEN):
            if task.writing is not None and context["cursor"].rowcount == 1:
                world.witness.row_written(*task.writing)
            if swarm.sql_after and rng.random() < swarm.sql_after:
                world.trouble(None, "sql acknowledgement lost")
                raise OperationalError("simulated: connection lost while waiting for the result")
            world.step("sql done", 0.0)
        return result
