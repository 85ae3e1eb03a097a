"""WeChat's counters of calls, set to zero by a person (R16). Never by the engine itself: WeChat grants ten a month."""

from __future__ import annotations

from functools import partial
from typing import Final

from django.db.models import Q

from .. import clock
from ..models import ACCESS_TOKEN, Account, Token
from ..platforms import source_for
from . import rows, schedule
from .connections import alias, patiently
from .refresh import refuse_where_nothing_is_fetched

LOOK_AGAIN: Final = 3
GAP: Final = schedule.seconds(60)


def clear_quota(account: Account) -> bool:
    """Ask WeChat to set the account's counters of the day to zero, then ours, and renew at once what waited for it.

    One request, no retry: each one counts. False, and none, within ``GAP`` of the one before. Raises
    ``UpstreamError`` with what WeChat said, ``LookupError`` where the platform has no such call,
    ``ConfigurationError`` and ``EncryptionKeyError``; a database error may come after WeChat has done it.
    """
    refuse_where_nothing_is_fetched()
    clear = source_for(account.platform, ACCESS_TOKEN).prepare_clearing(account)
    if not patiently(partial(_take_turn, account)):
        return False
    clear()
    for pk in patiently(partial(_rows_of, account)):
        patiently(partial(_count_anew, pk))
    return True


def _take_turn(account: Account) -> int:
    """Write down that it is about to be asked, unless somebody just did: of two clicks at once one asks."""
    now = clock.now()
    long_ago = Q(quota_cleared_at=None) | Q(quota_cleared_at__lte=now - GAP) | Q(quota_cleared_at__gt=now + GAP)
    return Account.objects.using(alias()).filter(long_ago, pk=account.pk).update(quota_cleared_at=now)


def _count_anew(pk: int) -> bool:
    """Again where somebody wrote the row in between; a refresh under way keeps its lease and its due time."""
    for _ in range(LOOK_AGAIN):
        token = Token.objects.using(alias()).select_related("account").filter(pk=pk).first()
        if token is None:
            return False
        now = clock.now()
        source = source_for(token.account.platform, token.kind)
        rationed = source.forced_refresh(token.account) is not None
        forced = source.endpoint(token.account, forced=True) if rationed else ""
        fields = schedule.counters_cleared(token, forced, now)
        if token.lease_owner:
            fields.pop("due_at", None)
        if rows.write(token, fields):
            return True
    return False


def _rows_of(account: Account) -> list[int]:
    return list(Token.objects.using(alias()).filter(account=account).values_list("pk", flat=True))
