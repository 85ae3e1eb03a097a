"""Token rows that our own code cannot have written, and how to heal them. Made by hand, by SQL, or by a clock.

The engine takes none of them for true (see :mod:`wechat_token.engine.schedule`), but beat may not find them, so that
they are renewed only when somebody asks.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from django.utils.translation import gettext_lazy as _

from .. import clock
from ..conf import get_settings
from ..engine import forget, patiently, schedule, write
from ..models import ACCESS_TOKEN, Account, Token

if TYPE_CHECKING:
    from django_stubs_ext import StrPromise

    from ..engine import Fields

LONGEST_LIFE: Final = dt.timedelta(days=31)  # no answer with a longer life is accepted (R11)


@dataclass(frozen=True, slots=True)
class Oddity:
    """What is odd about a row, and the values that heal it."""

    what: StrPromise
    cure: Fields


def oddities(token: Token, now: dt.datetime, *, lease: float, overlap: float) -> list[Oddity]:
    """Pure (R19). ``lease`` and ``overlap`` in seconds."""
    found = []
    if token.lease_until is not None and token.lease_until > now + schedule.seconds(2 * lease):
        found.append(Oddity(_("its lease ends later than any we grant"), schedule.released(now)))
    if token.version and not token.value and token.rejected_version != token.version:
        cure = {"rejected_version": token.version, "due_at": now}
        found.append(Oddity(_("its token is empty"), cure))
    if token.expires_at is not None and token.expires_at > now + LONGEST_LIFE:
        found.append(Oddity(_("its token is said to live for more than a month"), {"due_at": now}))
    if token.due_at is None and not schedule.is_asleep(token):
        found.append(Oddity(_("it is never due"), {"due_at": now}))
    elif token.due_at is not None and _is_due_too_late(token, token.due_at, now, lease=lease, overlap=overlap):
        found.append(Oddity(_("it is due later than its token lives"), {"due_at": now}))
    if not _is_usage(token.usage):
        found.append(Oddity(_("its count of calls is garbled"), {"usage": {}}))
    return found


def _is_due_too_late(token: Token, due_at: dt.datetime, now: dt.datetime, *, lease: float, overlap: float) -> bool:
    if due_at <= now or schedule.lease_is_live(token, now, lease):
        return False
    if (token.failures or token.waits_for) and due_at <= now + schedule.LONGEST_WAIT:  # a backoff
        return False
    end = schedule.usable_until(token, overlap)
    return end is None or due_at > end


def _is_usage(usage: object) -> bool:
    return isinstance(usage, dict) and all(
        isinstance(value, str) if name == "day" else type(value) is int and value >= 0 for name, value in usage.items()
    )


# -- in the database -------------------------------------------------------------------------------


def odd_tokens(now: dt.datetime) -> Iterator[tuple[Token, list[Oddity]]]:
    """Tokens of active accounts with something odd about them."""
    overlap, lease = get_settings().overlap, get_settings().lease
    for token in Token.objects.active().select_related("account").order_by("pk").iterator(chunk_size=1000):
        found = oddities(token, now, lease=lease, overlap=overlap)
        if found:
            yield token, found


def heal(token: Token) -> bool:
    """Write the cures, unless somebody else wrote the row in the meantime: what they wrote is as good (R1)."""
    now = clock.now()
    cure: Fields = {}
    for oddity in oddities(token, now, lease=get_settings().lease, overlap=get_settings().overlap):
        cure |= oddity.cure
    healed = patiently(lambda: write(token, cure))
    forget((token.account.ref, token.kind))
    return healed


def accounts_without_token() -> list[Account]:
    """Active accounts that ``bulk_create`` or SQL added: beat does not know them before the first caller asks."""
    return list(Account.objects.active().exclude(tokens__kind=ACCESS_TOKEN).order_by("ref"))


def give_token_row(account: Account) -> None:
    Token.objects.get_or_create(account=account, kind=ACCESS_TOKEN, defaults={"due_at": clock.now()})
