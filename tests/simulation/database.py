"""Every SQL statement of a simulated process: it takes time, may fail before or after it is committed, and is a
place where the process can be killed or frozen. One connection serves all: a statement is executed in one piece.

Those of an ``atomic`` block are told to the witness when they are committed. Meanwhile time passes and their process
may be killed, which rolls them back; others go on until they need the database, which takes one transaction at a time,
as SQLite does. A process is frozen before or after one, not within: it would stop the whole site.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from django.db import OperationalError, connection, transaction
from django.db.models import Model

from wechat_token.models import Account, ClientKey, Host, RefreshLog, Site, Token

if TYPE_CHECKING:
    from .kernel import Task
    from .world import World

TABLES: tuple[type[Model], ...] = (Account, Token, RefreshLog, Host, Site)
LOCK_SECONDS = 0.5  # what the package lets a statement wait for a lock
_TOKENS = f'"{Token._meta.db_table}"'
_UPDATE_TOKEN = f"UPDATE {_TOKENS}"
_INSERT_TOKEN = f"INSERT INTO {_TOKENS}"
_FRAME = ("BEGIN", "SAVEPOINT", "RELEASE", "ROLLBACK")
A_MOMENT = 0.001


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
        # Of the open transaction, for the witness when it is committed:
        self._written: list[tuple[int, dict[str, object]]] = []
        self._changed = False  # whether rows were written past ``rows.write``

    @property
    def is_down(self) -> bool:
        return self.world.kernel.now < self.down_until

    def was_down(self, since: float) -> bool:
        return self.down_until > since

    def lock(self, token_id: int, task: Task) -> bool:
        """Take the row for a transaction of the site's, until :meth:`unlock` or the end of its process."""
        if self._is_locked(token_id, task):
            return False
        self._locks[token_id] = task
        return True

    def unlock(self, token_id: int) -> None:
        del self._locks[token_id]

    def _is_locked(self, token_id: int, task: Task) -> bool:
        holder = self._locks.get(token_id)
        return holder is not None and not holder.dead and holder is not task

    def _wait_for_turn(self, task: Task, token_ids: Collection[int]) -> None:
        """Until no other transaction is open, nor has any of these rows."""
        kernel = self.world.kernel
        give_up_at = kernel.now + LOCK_SECONDS
        while True:
            if kernel.transaction not in (None, task):
                kernel.sleep(A_MOMENT)
            elif not any(self._is_locked(token_id, task) for token_id in token_ids):
                return
            elif kernel.now >= give_up_at:
                raise OperationalError("simulated: the row is locked") from Locked()
            else:
                kernel.sleep(0.05)

    def execute(self, run: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        """Django's ``execute_wrapper``."""
        world, kernel = self.world, self.world.kernel
        if kernel.task is None or sql.startswith(_FRAME):  # the simulation's own look at the tables
            return run(sql, params, many, context)
        task = kernel.alive()
        self.statements += 1
        swarm, rng = world.swarm, world.rng
        world.step("sql", 0.0005 + 0.003 * rng.random())
        if self.is_down or (swarm.sql_before and rng.random() < swarm.sql_before):
            self._wait_for_turn(task, ())
            world.trouble(None, "sql refused")
            raise OperationalError("simulated: the server closed the connection")
        updates = sql.startswith(_UPDATE_TOKEN)
        self._wait_for_turn(task, self._rows_to_write(task, sql, params) if updates and self._locks else ())
        task.executed_at = kernel.now
        result = run(sql, params, many, context)
        written = updates and context["cursor"].rowcount > 0
        if kernel.transaction is task:
            if written and task.writing is not None:
                self._written.append(task.writing)
            self._changed |= sql.startswith(_INSERT_TOKEN) or (written and task.writing is None)
        elif updates:
            if written and task.writing is not None:
                world.witness.row_written(*task.writing)
            elif written:
                world.witness.reload()
            self._acknowledge()
        return result

    def _acknowledge(self) -> None:
        """Something was committed; perhaps its answer is lost."""
        world = self.world
        if world.swarm.sql_after and world.rng.random() < world.swarm.sql_after:
            self._wait_for_turn(world.kernel.alive(), ())
            world.trouble(None, "sql acknowledgement lost")
            raise OperationalError("simulated: connection lost while waiting for the result")
        world.step("sql done", 0.0)
        self._wait_for_turn(world.kernel.alive(), ())  # its caller may look whether a transaction is open

    def _rows_to_write(self, task: Task, sql: str, params: Any) -> list[int]:
        if task.writing is not None:
            return [task.writing[0]]
        head, where = sql.split(" WHERE ", 1)
        raw: Any = connection.connection  # beside Django, so that no wrapper sees it
        found = raw.execute(
            f"SELECT id FROM {_TOKENS} WHERE {where}".replace("%s", "?"), params[head.count("%s") :]
        )  # fmt: skip
        return [token_id for (token_id,) in found.fetchall()]

    # -- transactions ------------------------------------------------------------------------------

    @contextmanager
    def transactions(self) -> Iterator[None]:
        """Let ``atomic`` blocks of the package take turns."""
        kernel = self.world.kernel
        enter, leave = transaction.Atomic.__enter__, transaction.Atomic.__exit__
        hooks = connection.run_and_clear_commit_hooks

        def begin(atomic: transaction.Atomic) -> None:
            task = kernel.task
            if task is not None and kernel.transaction is not task:
                self._wait_for_turn(kernel.alive(), ())
                kernel.transaction = task
            enter(atomic)

        def committed() -> None:
            """Before the hooks run: they may take their time."""
            kernel.transaction = None
            self._tell()
            hooks()

        def end(atomic: transaction.Atomic, *error: Any) -> None:
            writes = bool(self._written)
            try:
                leave(atomic, *error)
            finally:
                over = kernel.transaction is not None and not connection.in_atomic_block
                if over:  # rolled back
                    kernel.transaction = None
                    self._written, self._changed = [], False
            if writes and not error[0] and not over and kernel.transaction is None:
                self._acknowledge()

        with (
            mock.patch.object(transaction.Atomic, "__enter__", begin),
            mock.patch.object(transaction.Atomic, "__exit__", end),
            mock.patch.object(connection, "run_and_clear_commit_hooks", committed),
        ):
            yield

    def _tell(self) -> None:
        written, changed = self._written, self._changed
        self._written, self._changed = [], False
        for token_id, fields in written:
            self.world.witness.row_written(token_id, fields)
        if changed:
            self.world.witness.reload()
