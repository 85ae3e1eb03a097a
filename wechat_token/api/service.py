"""What a client key may do: read the credentials of an account, complain about them, have pages signed. Both dialects
come here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.views.decorators.debug import sensitive_variables

from .. import clock, process, security
from ..client_keys import reads
from ..client_keys.keyring import Grant
from ..conf import get_settings
from ..contrib.jssdk.signing import JSAPI, JSAPIConfig, page_url, sign_for
from ..engine import Entry, current_entry
from ..engine import complain as complain_about
from ..exceptions import AccountError, AccountNotFound, RefreshRateLimited
from ..models import ACCESS_TOKEN, Reading
from ..redaction import Secret
from ..throttle import Throttle
from .access import COMPLAINED, READ, REFUSED, Asker
from .refusals import NOT_FOR_THIS_KEY, REFRESH_NOT_ALLOWED, TOO_MANY_COMPLAINTS, Refusal

_complaints: Throttle
process.keep(globals(), _complaints=Throttle)


def read(asker: Asker, appid: str, kind: str = ACCESS_TOKEN) -> Entry:
    """The token or ticket to use now. Raises ``Refusal`` and what :func:`current_entry` raises."""
    with _refusals_counted(asker, appid, _reading(kind)):
        entry = current_entry((appid, kind), over_http=True)
    asker.tally(appid, READ)
    reads.note(asker.grant, entry)
    return entry


def sign(asker: Asker, appid: str, url: str) -> JSAPIConfig:
    """The page's ``wx.config``. Raises as :func:`read`, and ``URLNotSignable``."""
    with _refusals_counted(asker, appid, Reading.SIGNATURES):
        config = sign_for((appid, JSAPI), page_url(url), over_http=True)
    asker.tally(appid, READ)
    return config


def _reading(kind: str) -> Reading:
    return Reading.EVERYTHING if kind == ACCESS_TOKEN else Reading.TICKETS


@sensitive_variables()
def complain(asker: Asker, appid: str, stale: Secret | None, kind: str = ACCESS_TOKEN) -> Entry:
    """One complaint about ``stale``, or about whatever is current (R8): the token or ticket to use now."""
    grant = asker.grant
    with _refusals_counted(asker, appid, _reading(kind)):
        if not grant.may_refresh:
            raise Refusal(REFRESH_NOT_ALLOWED)
        count = _complaints.hit(grant.key_id, clock.monotonic())
        if count.number > get_settings().complaints_per_minute:
            raise Refusal(TOO_MANY_COMPLAINTS, count.seconds_left)
        key = (appid, kind)
        if stale is None:
            stale = Secret(current_entry(key, over_http=True).value)
        entry = complain_about(key, stale, client=grant.name, payer=grant.prefix, over_http=True)
    asker.tally(appid, COMPLAINED)
    reads.note(grant, entry)
    return entry


def _admit(grant: Grant, appid: str, reading: Reading) -> None:
    if not grant.covers(appid):
        raise AccountNotFound
    if not grant.reads(reading):
        raise Refusal(NOT_FOR_THIS_KEY)


@contextmanager
def _refusals_counted(asker: Asker, appid: str, reading: Reading) -> Iterator[None]:
    """Unknown, inactive and forbidden accounts are one thing from outside (S3), counted under no AppID."""
    grant = asker.grant
    try:
        _admit(grant, appid, reading)
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
