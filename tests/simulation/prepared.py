"""The package's most frequent queries, compiled once. Django would build and compile each anew, which takes more than
half of a run's time and finds no faults of ours. The text of the SQL is still Django's for the package's own query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from django.db import connection
from django.db.models import Model, QuerySet
from django.db.models.query import get_related_populators

from wechat_token import clock
from wechat_token.engine import Key, rows
from wechat_token.models import Account, Token

if TYPE_CHECKING:
    from .world import World


class Prepared:
    """A query for one object. ``example``: the query with the value ``marks[n]`` where its n-th parameter goes."""

    def __init__(self, example: QuerySet[Any], *marks: object) -> None:
        query = example.query.chain()
        if not query.order_by and not query.extra_order_by:
            query.add_ordering("pk")
        query.set_limits(high=1)
        compiler = query.get_compiler("default")
        self.sql, parameters = compiler.as_sql()
        assert [value for value in parameters if value in marks] == list(marks), parameters
        self._parameters = [(marks.index(value) if value in marks else None, value) for value in parameters]
        self._compiler = compiler
        self._model: type[Model] = example.model
        info = compiler.klass_info
        fields = info["select_fields"]
        self._part = slice(fields[0], fields[-1] + 1)
        self._names = [compiler.select[number][0].target.attname for number in fields]
        self._related = get_related_populators(info, compiler.select, "default")
        self._converters = compiler.get_converters([expression for expression, *_ in compiler.select])

    def first(self, *values: object) -> Any:
        parameters = [value if mark is None else values[mark] for mark, value in self._parameters]
        with connection.cursor() as cursor:
            cursor.execute(self.sql, parameters)
            found = cursor.fetchall()
        if not found:
            return None
        (row,) = self._compiler.apply_converters(found, self._converters)
        instance = self._model.from_db("default", self._names, row[self._part])
        for related in self._related:
            related.populate(row, instance)
        return instance


@contextmanager
def prepared(world: World) -> Iterator[None]:
    """``rows.find`` and ``rows.load`` with prepared queries of the same text as their own. Many hosts have a database
    server, and a server has a clock, which the package asks along with the row.
    """
    ref, kind, pk = "a-ref", "a-kind", 987_654_321
    found = Prepared(_captured(lambda: rows.find((ref, kind))), ref, kind)
    loaded = Prepared(_captured(lambda: rows.load(Token(pk=pk, account=Account()))), pk)

    def find(key: Key) -> Token | None:
        before = clock.wall()
        token: Token | None = found.first(*key)
        if token is not None:
            clock.compare(world.time_at(world.kernel.alive().executed_at), before, clock.wall())
        return token

    with (
        mock.patch.object(rows, "find", find),
        mock.patch.object(rows, "load", lambda token: loaded.first(token.pk)),
    ):
        yield


def _captured(call: Callable[[], object]) -> QuerySet[Any]:
    """The query that ``call`` would have asked for its first row."""
    asked: list[QuerySet[Any]] = []
    with mock.patch.object(QuerySet, "first", lambda query: asked.append(query)):
        call()
    [query] = asked
    return query
