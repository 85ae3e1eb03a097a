"""Writing every stored secret anew with the first key (S1), while the site runs.

Each row is one conditional UPDATE: a refresh or an edit that comes in between wins, and the row is read again.
Rows that the first key wrote already are passed over, so an interrupted run is simply started again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from django.db.models import QuerySet

from .. import encryption
from ..encryption import StoredSecret
from ..engine import patiently, write
from ..exceptions import EncryptionKeyError
from ..models import Account, Token

BATCH: Final = 500  # rows read at once

Row = TypeVar("Row", Account, Token)


@dataclass(slots=True)
class Tally:
    """How many stored secrets the first key wrote, how many an older one; and which cannot be read."""

    current: int = 0
    older: int = 0
    unreadable: list[str] = field(default_factory=list)

    @property
    def seen(self) -> int:
        return self.current + self.older + len(self.unreadable)


def survey() -> Tally:
    """Read everything, write nothing."""
    return _go_through(write=False, progress=lambda tally: None)


def rotate(progress: Callable[[Tally], None]) -> Tally:
    """Rewrite what older keys wrote. ``progress`` is called after each batch. Unreadable rows are left alone."""
    return _go_through(write=True, progress=progress)


def _go_through(*, write: bool, progress: Callable[[Tally], None]) -> Tally:
    tally = Tally()
    for batch in _batches():
        for row in filter(_stored, batch):
            try:
                if _is_current(row) or not (_rewrite(row) if write else _read(row)):
                    tally.current += 1
                else:
                    tally.older += 1
            except EncryptionKeyError:
                tally.unreadable.append(_describe(row))
        progress(tally)
    return tally


def _batches() -> Iterator[Sequence[Account | Token]]:
    yield from _pages(Account.objects.all())
    yield from _pages(Token.objects.select_related("account"))


def _pages(rows: QuerySet[Row]) -> Iterator[list[Row]]:
    """All rows in the order of their primary keys, whatever is added or deleted meanwhile."""
    last = 0
    while page := list(rows.filter(pk__gt=last).order_by("pk")[:BATCH]):
        yield page
        last = page[-1].pk


def _stored(row: Account | Token) -> StoredSecret:
    secret = row.secret if isinstance(row, Account) else row.value
    assert isinstance(secret, StoredSecret)  # noqa: S101  for the type checker: rows come from the database
    return secret


def _is_current(row: Account | Token) -> bool:
    return encryption.written_with_first_key(_stored(row).ciphertext)


def _read(row: Account | Token) -> bool:
    _stored(row).reveal()
    return True


def _rewrite(row: Account | Token) -> bool:
    """Whether the row was rewritten; not if it was deleted, or written with the first key, in the meantime."""
    while _stored(row) and not _is_current(row):
        renewed = encryption.rotate(_stored(row))
        if _store(row, renewed):
            return True
        fresh = type(row)._default_manager.filter(pk=row.pk).first()
        if fresh is None:
            return False
        row = fresh
    return False


def _store(row: Account | Token, renewed: StoredSecret) -> bool:
    if isinstance(row, Token):
        return patiently(lambda: write(row, {"value": renewed}))
    same = Account.objects.filter(encryption.unchanged("secret", _stored(row)), pk=row.pk)
    # update() on purpose: saving would count as an edit by an operator, which starts a refresh (R10).
    return bool(patiently(lambda: same.update(secret=renewed)))


def _describe(row: Account | Token) -> str:
    return f"{row.appid} AppSecret" if isinstance(row, Account) else f"{row.account.appid} {row.kind}"
