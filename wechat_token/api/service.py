"""What a client key may do: read the token of an account, and complain about it. Both dialects come here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.views.decorators.debug import sensitive_variables

from .. import clock, process, security
from ..client_keys import reads
from ..conf import get_settings
from ..engine import Entry, current_entry
from ..engine import complain as complain_about
from ..exceptions import AccountError, AccountNotFound, RefreshRateLimited
from ..models import ACCESS_TOKEN
from ..redaction import Secret
from ..throttle import Throttle
from .access import COMPLAINED, READ, REFUSED, Asker
from .refusals import REFRESH_NOT_ALLOWED, TOO_MANY_COMPLAINTS, Refusal

_complaints: Throttle
process.keep(globals(), _complaints=Throttle)


def read(asker: Asker, appid: str) -> Entry:
    """The token to use now. Raises ``Refusal`` and what :func:`current_entry` raises."""
    with _refusals_counted(asker, appid):
        entry = current_entry((appid, ACCESS_TOKEN), over_http=True)
    asker.tally(appid, READ)
    reads.note(asker.grant, entry)
    return entry


@sensitive_variables()
def complain(asker: Asker, appid: str, stale: Secret | None) -> Entry:
    """One complaint about ``stale``, or about whatever is current (R8): the token to use now."""
    grant = asker.grant
    with _refusals_counted(asker, appid):
        if not grant.may_refresh:
            raise Refusal(REFRESH_NOT_ALLOWED)
        count = _complaints.hit(grant.key_id, clock.monotonic())
        if count.number > get_settings().complaints_per_minute:
            raise Refusal(TOO_MANY_COMPLAINTS, count.seconds_left)
        key = (appid, ACCESS_TOKEN)
        if stale is None:
            stale = Secret(current_entry(key, over_http=True).value)
        entry = complain_about(key, stale, client=grant.name, payer=grant.prefix, over_http=True)
    asker.tally(appid, COMPLAINED)
    reads.note(grant, entry)
    return entry


@contextmanager
def _refusals_counted(asker: Asker, appid: str) -> Iterator[None]:
    """Unknown, inactive and forbidden accounts are one thing from outside (S3), counted under no AppID."""
    grant = asker.grant
    try:
        if not grant.covers(appid):
            raise AccountNotFound
        yield
    except AccountError:
        asker.tally("", REFUSED)
        security.event(
            "account_refused", key=grant.prefix, name=grant.name, account=appid[:160], address=asker.address,
            key_fingerprint=grant.fingerprint,
        )  # fmt: skip
        raise
    except (Refusal, RefreshRateLimited):
        asker.tally(appid if grant.appids is not None else "", REFUSED)
        raise
