"""The one way a token row changes: conditional UPDATEs, made again while the database falters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from django.db import InterfaceError, OperationalError
from django.db.models import F

from . import clock, transactions
from .exceptions import AccountNotFound
from .models import Token
from .schedule import Fields

T = TypeVar("T")

PATIENCE: Final = 3.0  # seconds to get past a locked or failing database while nothing is at stake yet


def load(token_id: int) -> Token:
    token = Token.objects.select_related("account").filter(pk=token_id).first()
    if token is None:
        raise AccountNotFound("This WeChat account was deleted, or it was created in a transaction not yet committed.")
    return token


def write(token: Token, fields: Fields, *, owner: str = "") -> bool:
    """The one way a token row changes: an UPDATE on condition that nobody wrote since it was read (R1).

    With ``owner`` also on condition that the lease is still held (R2). Brings ``token`` up to date on success.
    """
    rows = Token.objects.filter(pk=token.pk, revision=token.revision)
    if owner:
        rows = rows.filter(lease_owner=owner)
    if not rows.update(revision=F("revision") + 1, **fields):
        return False
    assign(token, fields)
    token.revision += 1
    return True


def assign(token: Token, fields: Fields) -> None:
    """Bring a row in memory to what was written."""
    for name, value in fields.items():
        setattr(token, name, value)


def persist(step: Callable[[], T], *, patience: float) -> T:
    """Run a database step, again if the database fails for a moment: a restart, a deadlock, a locked SQLite file.

    ``patience`` in seconds. Serialization failures and deadlocks arrive as ``OperationalError`` too, and every step
    is a single conditional statement, so repeating it is harmless.
    """
    give_up_at = clock.monotonic() + patience
    pause = 0.05
    while True:
        try:
            return step()
        except (OperationalError, InterfaceError):
            connection = transactions.connection()
            blocked_by_caller = connection.vendor == "sqlite" and transactions.is_outside()
            if connection.in_atomic_block or blocked_by_caller or clock.monotonic() + pause > give_up_at:
                raise
            connection.close_if_unusable_or_obsolete()
        clock.sleep(pause)
        pause = min(pause * 2, 1.0)
