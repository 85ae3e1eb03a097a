"""Tickets by name, for Django code: :mod:`serving` for credentials other than the access_token."""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

from asgiref.sync import sync_to_async

from .. import clock, process
from ..conf import get_settings
from ..exceptions import ErrorClass, TokenUnavailable, WeChatTokenError
from ..models import Account
from ..redaction import Secret
from . import accounts, ground, served
from .connections import in_place
from .ground import Crowded, Flight, Key, NotYet
from .served import Entry
from .serving import AccountRef, acomplain, acurrent_entry, aresolve, complain, current_entry

JSAPI_TICKET: Final = "jsapi_ticket"
LOOK_SECONDS: Final = 0.1  # for a look at cache and database, when there is a usable ticket in any case
REST_SECONDS: Final = 5.0
RESTS_KEPT: Final = 1000
SHORT: Final = {"jsapi": JSAPI_TICKET, "wx_card": "wx_card_ticket"}

_rests: dict[Key, float]  # until when (monotonic) nobody waits, after somebody did in vain
_told_until: dict[str, float]  # likewise, by subject
process.keep(globals(), _rests=dict, _told_until=dict)


def get_ticket(account: AccountRef = None, kind: str = JSAPI_TICKET) -> str:
    """A ticket that WeChat accepts: ``"jsapi_ticket"`` to sign pages with, ``"wx_card_ticket"`` to sign cards with; the
    short names ``"jsapi"`` and ``"wx_card"`` will do. ``account`` as for :func:`wechat_token.get_access_token`.

    Raises what that raises, and ``KindNotOffered`` for a kind that the account's platform lacks. The first request for
    a ticket, and one after a day without any, wait for WeChat (R28).
    """
    if type(account) is str:
        entry = served.young.get((account, kind))
        if entry is None:
            entry = served.young.get((account, SHORT.get(kind, kind)))
        if entry is not None and clock.monotonic() < entry.fresh_until:
            return entry.value
    return current_entry(_key(account, kind)).value


def refresh_ticket(
    account: AccountRef = None, kind: str = JSAPI_TICKET, *, stale_ticket: str, client: str = ""
) -> str:  # fmt: skip
    """Complain about a ticket ("invalid signature"), and get the one to use now (R8).

    WeChat has no call that tells whether it accepts a ticket, so it is asked for the ticket again, once a minute at
    most. The same one back means that WeChat still hands it out: look at the URL that was signed. Raises as
    :func:`get_ticket` does, and ``RefreshRateLimited`` when too many complaints in vain came from ``client``.
    """
    stale = Secret(stale_ticket)
    del stale_ticket  # error reports show the locals of every frame an error passes (S2)
    return complain(_key(account, kind), stale, client=client).value


def entry_or_why(account: AccountRef, kind: str, seconds: float) -> Entry | str:
    """:func:`entry_within`, or why there is none, in words that may be logged."""
    try:
        return entry_within(account, kind, seconds)
    except WeChatTokenError as exc:
        return str(exc)
    except Exception as exc:  # its text may hold anything (S2)
        return type(exc).__name__


def tell_rarely(logger: logging.Logger, subject: str, text: str, *args: object) -> None:
    """A warning, once a minute for each subject, however often there is cause."""
    now = clock.monotonic()
    if now >= _told_until.get(subject, 0.0):
        if len(_told_until) >= RESTS_KEPT:
            _told_until.clear()
        _told_until[subject] = now + 60.0
        logger.warning(text, *args)


def entry_within(account: AccountRef, kind: str, seconds: float) -> Entry:
    """The entry to serve, for whoever can wait for ``seconds`` at most, whatever hangs: database, cache or WeChat.

    One that is usable, but due to be looked up anew, waits for that for a moment only. Raises as :func:`get_ticket`,
    and ``TokenUnavailable`` also when the time is up. After that, for some seconds, nobody waits in vain again.
    """
    named = account.ref or account.appid if isinstance(account, Account) else account
    key = named or "", kind  # '': which account is meant is looked up like the rest, and may hang like the rest
    known = served.recall(key)
    now = clock.monotonic()
    if known is not None and now < known.fresh_until:
        return known
    usable = known if known is not None and now < known.dead_at else None
    resting = now < _rests.get(key, 0.0)
    if resting and usable is not None:
        return usable
    if resting:
        raise _out_of_time(key)
    if in_place():
        return current_entry(_key(account, kind))
    try:
        # Apart from the credential's own flight, which this one waits for; like a need's, it takes nobody's place.
        flight = ground.start((key[0], f"{kind} soon"), partial(_fly, account, kind), scheduled=None)
        entry: Entry = ground.wait(flight, LOOK_SECONDS if usable is not None else seconds)
    except (Crowded, NotYet):
        if len(_rests) >= RESTS_KEPT:
            _rests.clear()
        _rests[key] = clock.monotonic() + REST_SECONDS
        if usable is None:
            raise _out_of_time(key) from None
        return usable
    return entry


def _fly(account: AccountRef, kind: str, flight: Flight) -> None:
    flight.doing = "looking for a ticket"
    flight.answer(current_entry(_key(account, kind)))


def _out_of_time(key: Key) -> TokenUnavailable:
    return TokenUnavailable(
        f"No usable {key[1]} for the WeChat account {key[0] or 'meant'} in the time that there was.",
        appid=key[0],
        retry_after=REST_SECONDS,
        error_class=ErrorClass.TRANSIENT,
    )


async def aget_ticket(account: AccountRef = None, kind: str = JSAPI_TICKET) -> str:
    """:func:`get_ticket` for async code."""
    if type(account) is str:
        entry = served.young.get((account, kind))
        if entry is None:
            entry = served.young.get((account, SHORT.get(kind, kind)))
        if entry is not None and clock.monotonic() < entry.fresh_until:
            return entry.value
    return (await acurrent_entry(await aresolve(account, _full(kind)))).value


async def arefresh_ticket(
    account: AccountRef = None, kind: str = JSAPI_TICKET, *, stale_ticket: str, client: str = ""
) -> str:  # fmt: skip
    """:func:`refresh_ticket` for async code."""
    stale = Secret(stale_ticket)
    del stale_ticket  # as above
    key = await aresolve(account, _full(kind))
    if in_place() or get_settings().remote_url:
        return (await sync_to_async(complain)(key, stale, client=client)).value
    return (await acomplain(key, stale, client)).value


def _key(account: AccountRef, kind: str) -> Key:
    return accounts.resolve(account, _full(kind))


def _full(kind: str) -> str:
    return SHORT.get(kind, kind)
