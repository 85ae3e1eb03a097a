"""The token rows: found, claimed, stored. Every change is one conditional UPDATE that commits at once (R1, R3).

Nothing here waits or tries again; that is for the flow of :mod:`refresh`, which knows what is at stake.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final, NamedTuple

from django.db import connections
from django.db.models import F, FloatField
from django.db.models.expressions import RawSQL

from .. import clock
from ..encryption import sealed
from ..models import Account, Token
from .connections import alias
from .ground import Key
from .schedule import Fields

LOOK_AGAIN: Final = 5  # times that a row may be written by others between reading and writing it


class Change(NamedTuple):
    """New values for a row. ``owner``: only while this lease is held (R2)."""

    token: Token
    fields: Fields
    owner: str = ""


def find(key: Key) -> Token | None:
    """The row with its account, read from the primary (R34); the database's clock is read along with it."""
    ref, kind = key
    tokens = Token.objects.using(alias()).select_related("account").filter(account__ref=ref, kind=kind)
    time = server_clock()
    if time is None:
        return tokens.first()
    before = clock.wall()
    token = tokens.annotate(server_clock=time).first()
    if token is not None:
        seconds: float = token.server_clock  # type: ignore[attr-defined]  # annotated
        clock.compare(dt.datetime.fromtimestamp(seconds, dt.UTC), before, clock.wall())
    return token


def server_clock() -> RawSQL | None:
    """What a query tells the database's clock by, in seconds since 1970; None where no server has one of its own."""
    told = _SERVER_CLOCKS.get(connections[alias()].vendor)
    if told is None:
        return None
    return RawSQL(told, [], output_field=FloatField())  # noqa: S611  one of the constants below


# Seconds since 1970, which mean the same in every time zone a session may have: MySQL's NOW() does not.
_SERVER_CLOCKS: Final = {
    "postgresql": "extract(epoch FROM statement_timestamp())",
    "mysql": "UNIX_TIMESTAMP(NOW(6)) + 0e0",
}


def load(token: Token) -> Token | None:
    """The row as it is now; None if it was deleted."""
    return Token.objects.using(alias()).select_related("account").filter(pk=token.pk).first()


def made(account: Account, kind: str) -> Token:
    """The account's row of this kind, made if there is none; due at once."""
    token, _created = Token.objects.using(alias()).get_or_create(
        account=account, kind=kind, defaults={"due_at": clock.now(), "edition": account.edition}
    )
    token.account = account
    return token


def claim(changes: Sequence[Change]) -> list[bool]:
    """Take leases. Which rows were taken: those that nobody has written since they were read (R1)."""
    return [write(*change) for change in changes]


def store(changes: Sequence[Change]) -> list[bool]:
    """Write results. Which rows took them: those whose lease is still held (R2)."""
    return [write(*change) for change in changes]


def write(token: Token, fields: Fields, owner: str = "") -> bool:
    """An UPDATE on condition that nobody wrote since the row was read, with ``owner`` also that the lease is still
    held. Brings ``token`` up to date on success.
    """
    rows = Token.objects.using(alias()).filter(pk=token.pk, revision=token.revision)
    if owner:
        rows = rows.filter(lease_owner=owner)
    if not rows.update(revision=F("revision") + 1, **sealed(token, fields)):
        return False
    _took(token, fields)
    return True


def has_landed(token: Token, fields: Fields) -> bool:
    """Whether the row is what this very write makes of it: it may have been committed although its answer was lost.

    Owners are random and times have microseconds: nobody else writes the same. Then ``token`` is brought up to date.
    """
    telling = {name: value for name, value in fields.items() if name == "lease_owner" or isinstance(value, dt.datetime)}
    written = Token.objects.using(alias()).filter(pk=token.pk, revision=token.revision + 1, **telling)
    if not telling or not written.exists():
        return False
    _took(token, fields)
    return True


def _took(token: Token, fields: Fields) -> None:
    assign(token, fields)
    token.revision += 1


def assign(token: Token, fields: Fields) -> None:
    """Bring a row in memory to what was written."""
    for name, value in fields.items():
        setattr(token, name, value)
