"""Tickets by name, for Django code: :mod:`serving` for credentials other than the access_token."""

from __future__ import annotations

from typing import Final

from asgiref.sync import sync_to_async

from .. import clock
from ..conf import get_settings
from ..exceptions import ConfigurationError
from ..redaction import Secret
from . import accounts, served
from .connections import in_place
from .ground import Key
from .serving import AccountRef, acomplain, acurrent_entry, aresolve, complain, current_entry

JSAPI_TICKET: Final = "jsapi_ticket"
SHORT: Final = {"jsapi": JSAPI_TICKET, "wx_card": "wx_card_ticket"}


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
    if in_place():
        return (await sync_to_async(complain)(key, stale, client=client)).value
    return (await acomplain(key, stale, client)).value


def _key(account: AccountRef, kind: str) -> Key:
    return accounts.resolve(account, _full(kind))


def _full(kind: str) -> str:
    if get_settings().remote_url:
        raise ConfigurationError("This site takes its tokens from REMOTE_URL, which does not hand out tickets yet.")
    return SHORT.get(kind, kind)
