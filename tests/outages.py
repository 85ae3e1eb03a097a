"""A database that fails, seen from outside: statements are refused, whoever in the package makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connection

Statement = tuple[str, Any]


@contextmanager
def database_down(when: Callable[[str, Any], bool] = lambda sql, params: True) -> Iterator[list[Statement]]:
    """Statements of this thread fail (those that ``when`` is true of). Yields what was tried."""
    tried: list[Statement] = []

    def refuse(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not when(sql, params):
            return execute(sql, params, many, context)
        tried.append((sql, params))
        raise OperationalError("the server has gone away")

    with connection.execute_wrapper(refuse):
        yield tried
