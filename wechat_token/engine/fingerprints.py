"""Which account a token in somebody's hand belongs to: found by a fingerprint kept beside it, never by decrypting all.

Whoever holds a living access_token could ask WeChat for a ticket with it; so it opens the ticket here too.
"""

from __future__ import annotations

from functools import partial

from django.db.models import Q

from .. import clock
from ..conf import get_settings
from ..encryption import fingerprints
from ..models import ACCESS_TOKEN, Token
from ..redaction import Secret
from . import schedule
from .connections import alias, read


def holder(value: Secret) -> str | None:
    """The ref of the active account whose current or former access_token this is, while it lives; else None.

    Raises database errors. In remote mode there are no tokens here to be found.
    """
    if not value or get_settings().remote_url:
        return None
    return read(partial(_holder, fingerprints(value)))


def _holder(marks: tuple[str, ...]) -> str | None:
    now, overlap = clock.now(), get_settings().overlap
    former = Q(former_fingerprint__in=marks, former_until__gt=now)
    tokens = Token.objects.using(alias()).select_related("account").defer("value", "account__secret")
    for token in tokens.filter(former | Q(fingerprint__in=marks), kind=ACCESS_TOKEN, account__is_active=True):
        if token.issued_for != token.account.ref:
            continue  # of another AppID, entered since
        if token.fingerprint not in marks or schedule.is_usable(token, now, overlap):
            return token.account.ref
    return None
