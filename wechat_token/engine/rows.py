"""The token rows: found, claimed, stored. Every change is one conditional UPDATE that commits at once (R1, R3).

Nothing here waits or tries again; that is for the flow of :mod:`refresh`, which knows what is at stake.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from django.db import DatabaseError, connections, transaction
from django.db.models import Case, F, FloatField, Q, QuerySet, When
from django.db.models.expressions import RawSQL

from .. import clock
from ..encryption import sealed
from ..models import ACCESS_TOKEN, Account, Token
from ..platforms import source_for
from .connections import alias, lock_is_held
from .ground import Key
from .schedule import ASKED_GAP, Fields

LOOK_AGAIN: Final = 5  # times that a row may be written by others between reading and writing it


class Dependents(NamedTuple):
    """Those of the same account that need a row, and what becomes of them with it (R22).

    ``hold_until``: who is due sooner waits until then, for ``root``; None: who waits is due now, ``now``.
    """

    kinds: Collection[str]
    now: dt.datetime
    hold_until: dt.datetime | None = None
    root: str = ""


class Change(NamedTuple):
    """New values for a row. ``owner``: only while this lease is held (R2)."""

    token: Token
    fields: Fields
    owner: str = ""
    dependents: Dependents | None = None


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


def of_account(ref: str) -> list[Token]:
    """All rows of an account; main credentials first, which others may need."""
    rows = Token.objects.using(alias()).select_related("account").filter(account__ref=ref)
    return sorted(rows, key=lambda token: (token.kind != ACCESS_TOKEN, token.kind))


def made(account: Account, kind: str) -> Token:
    """The account's row of this kind, made if there is none; due at once, and if it is a lazy one, just asked for.

    Raises ``ConfigurationError`` for a kind that the account's platform lacks.
    """
    now = clock.now()
    fields: Fields = {"due_at": now, "edition": account.edition}
    if source_for(account.platform, kind).lazy:
        fields["asked_at"] = now
    token, _created = Token.objects.using(alias()).get_or_create(account=account, kind=kind, defaults=fields)
    token.account = account
    return token


def note_demand(token_id: int) -> None:
    """Somebody asks for this lazy credential (R28): written once an hour, and it wakes one that is asleep. The rows of
    others have no such time, and get none.

    Beside everybody else's writes, which it does not disturb: nobody else writes the time, and a row without due time
    is nobody's.
    """
    now = clock.now()
    late = Q(asked_at__lte=now - ASKED_GAP) | Q(asked_at__gt=now) | Q(asked_at__isnull=False, due_at=None)
    due = Case(When(due_at=None, then=now), default=F("due_at"))
    Token.objects.using(alias()).filter(late, pk=token_id).update(due_at=due, asked_at=now)


def fall_asleep(token: Token) -> None:
    """Not due before somebody asks for it (R28); left as it is if somebody did since the row was read, which is written
    without a new revision.
    """
    rows = Token.objects.using(alias()).filter(pk=token.pk, revision=token.revision, asked_at=token.asked_at)
    if rows.update(revision=F("revision") + 1, due_at=None):
        _took(token, {"due_at": None})


def claim(changes: Sequence[Change]) -> list[bool]:
    """Take leases. Which rows were taken: those that nobody has written since they were read (R1)."""
    return [write(change.token, change.fields, change.owner) for change in changes]


def store(changes: Sequence[Change]) -> list[bool]:
    """Write results. Which rows took them: those whose lease is still held (R2). Those who need them hear of it."""
    return [_stored(*change) for change in changes]


def _stored(token: Token, fields: Fields, owner: str, dependents: Dependents | None) -> bool:
    if dependents is None:
        return write(token, fields, owner)
    if dependents.hold_until is None:
        written = write(token, fields, owner)
        if written:
            # Not in one transaction: whoever begins to wait looks again afterwards, and would see what is written.
            wake(token, dependents)
        return written
    sooner = Token.objects.using(alias()).filter(
        account=token.account_id, kind__in=dependents.kinds, due_at__lt=dependents.hold_until, lease_owner=""
    )  # fmt: skip
    if not sooner.exists():
        return write(token, fields, owner)
    with transaction.atomic(using=alias()):
        written = write(token, fields, owner)
        if written:
            _update(sooner, due_at=dependents.hold_until, waits_for=dependents.root)
    return written


def wake(token: Token, dependents: Dependents) -> None:
    """Let those go that wait for ``token``."""
    needing = Token.objects.using(alias()).filter(account=token.account_id, kind__in=dependents.kinds)
    _update(needing.exclude(waits_for=""), due_at=dependents.now, waits_for="")


def _update(needing: QuerySet[Token], **fields: object) -> None:
    """One statement. A row that somebody has locked is left: it has a due time of its own, and the result of another
    one must not wait for that (R33).
    """
    try:
        with transaction.atomic(using=alias()):
            needing.update(revision=F("revision") + 1, **fields)
    except DatabaseError as exc:
        if not lock_is_held(exc):
            raise


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
