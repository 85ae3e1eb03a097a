"""Writing every stored secret anew with the first key (S1), while the site runs.

Each row is one conditional UPDATE: a refresh or an edit that comes in between wins, and the row is read again.
Rows that the first key wrote already are passed over, so an interrupted run is simply started again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from django.apps import apps
from django.db import router
from django.db.models import Model, QuerySet

from .. import encryption
from ..encryption import EncryptedTextField, StoredSecret
from ..engine import patiently, write
from ..exceptions import EncryptionKeyError
from ..models import Account, Token

BATCH: Final = 500  # rows read at once
LATEST: Final = 100  # accounts that are tried to learn whether the keys are the site's


@dataclass(slots=True)
class Tally:
    """How many stored secrets the first key wrote, how many are to be written anew; and which cannot be read."""

    current: int = 0
    older: int = 0
    unreadable: list[str] = field(default_factory=list)

    @property
    def seen(self) -> int:
        return self.current + self.older + len(self.unreadable)


def survey() -> Tally:
    """Read everything, write nothing."""
    return _go_through(write=False, progress=lambda tally: None)


def has_the_sites_keys() -> bool:
    """Whether this host reads an AppSecret of those entered last, or there is none: what it cannot read, others may."""
    latest = list(Account.objects.order_by("-updated_at")[:LATEST])
    return not latest or any(map(_is_readable, latest))


def _is_readable(account: Account) -> bool:
    try:
        account.secret.reveal()
    except EncryptionKeyError:
        return False
    return True


def rotate(progress: Callable[[Tally], None]) -> Tally:
    """Rewrite what older keys wrote. ``progress`` is called after each batch. Unreadable rows are left alone."""
    return _go_through(write=True, progress=progress)


def _go_through(*, write: bool, progress: Callable[[Tally], None]) -> Tally:
    tally = Tally()
    for model in apps.get_models():  # whoever's: a field that is passed over is lost with the old key
        fields = encryption.encrypted_fields(model)
        if fields and model._meta.managed and not model._meta.proxy:
            for batch in _pages(model):
                for row in batch:
                    for encrypted in fields:
                        _look_at(row, encrypted, tally, write=write)
                progress(tally)
    return tally


def _look_at(row: Model, encrypted: EncryptedTextField, tally: Tally, *, write: bool) -> None:
    if not _stored(row, encrypted):
        return
    try:
        if _is_current(row, encrypted) or not (_rewrite(row, encrypted) if write else _read(row, encrypted)):
            tally.current += 1
        else:
            tally.older += 1
    except EncryptionKeyError:
        tally.unreadable.append(_describe(row, encrypted))


def _pages(model: type[Model]) -> Iterator[list[Model]]:
    """All rows in the order of their primary keys, whatever is added or deleted meanwhile."""
    rows = model._base_manager.using(router.db_for_write(model)).order_by("pk")
    page = list(rows[:BATCH])
    while page:
        yield page
        page = list(rows.filter(pk__gt=page[-1].pk)[:BATCH])


def _stored(row: Model, encrypted: EncryptedTextField) -> StoredSecret:
    secret = getattr(row, encrypted.attname)
    assert isinstance(secret, StoredSecret)  # noqa: S101  for the type checker: rows come from the database
    return secret


def _is_current(row: Model, encrypted: EncryptedTextField) -> bool:
    return encryption.written_with_first_key(_stored(row, encrypted).ciphertext, encrypted.place_of(row))


def _read(row: Model, encrypted: EncryptedTextField) -> bool:
    _stored(row, encrypted).reveal()
    return True


def _rewrite(row: Model, encrypted: EncryptedTextField) -> bool:
    """Whether the row was rewritten; not if it was deleted, or written with the first key, in the meantime."""
    while _stored(row, encrypted) and not _is_current(row, encrypted):
        place = encrypted.place_of(row)
        renewed = StoredSecret(encryption.rotate(_stored(row, encrypted).ciphertext, place), place)
        if _store(row, encrypted, renewed):
            return True
        fresh = _same_row(row).first()
        if fresh is None:
            return False
        row = fresh
    return False


def _store(row: Model, encrypted: EncryptedTextField, renewed: StoredSecret) -> bool:
    if isinstance(row, Token):
        return patiently(lambda: write(row, {encrypted.name: renewed}))
    same = _same_row(row).filter(encryption.unchanged(encrypted.name, _stored(row, encrypted)))
    # update() on purpose: saving would count as an edit by an operator, which starts a refresh (R10).
    return bool(patiently(lambda: same.update(**{encrypted.name: renewed})))


def _same_row(row: Model) -> QuerySet[Model]:
    return type(row)._base_manager.using(router.db_for_write(type(row))).filter(pk=row.pk)


def _describe(row: Model, encrypted: EncryptedTextField) -> str:
    match row, encrypted.name:
        case Account(), "secret":
            return f"{row.ref} AppSecret"
        case Token(), "value":
            return f"{row.account.ref} {row.kind}"
    return f"{row._meta.label} {row.pk} {encrypted.name}"
