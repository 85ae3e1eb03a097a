"""Which account is meant, and where its token row is. Errors name the choices."""

from __future__ import annotations

from functools import partial
from typing import Final

from django.db import Error as AnyDatabaseError
from django.utils.translation import gettext as _

from .. import clock, process
from ..conf import get_settings
from ..exceptions import AccountAmbiguous, AccountInactive, AccountNotFound, KindNotOffered, StoreUnavailable
from ..models import ACCESS_TOKEN, Account, Token
from ..platforms import OFFICIAL_ACCOUNT, CredentialSource, Platform, platform
from . import ground, rows
from .connections import NotHere, alias, in_place, in_test_case, private, read
from .ground import Key

NAMED_IN_ERRORS: Final = 5  # how many AppIDs an error lists
DEFAULT_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 10.0  # nobody asked for longer than this: what was true then is looked up before it is used
UNKNOWN_SECONDS: Final = 1.0  # how long an unknown AppID is known to be unknown
UNKNOWN_KEPT: Final = 1000

_default: tuple[float, str] | None  # the account meant by "no account": (trusted until, monotonic; ref)
_unknown: dict[str, tuple[float, str]]  # refs asked for in vain: (until, monotonic; what the error says)
_platforms: dict[str, str]  # names of accounts' platforms by ref
process.keep(globals(), _default=lambda: None, _unknown=dict, _platforms=dict)


def resolve(account: str | Account | None, kind: str = ACCESS_TOKEN) -> Key:
    """The key of the account's token. Raises ``AccountAmbiguous`` or ``AccountNotFound`` if none is named or marked."""
    if account is None:
        return _default_ref(), kind
    return (account.ref or account.appid if isinstance(account, Account) else account), kind


def find(key: Key, *, may_make: bool) -> Token:
    """The token row with its account, made if it is missing (accounts added by ``bulk_create`` or SQL).

    ``may_make``: false on a connection of the caller's, where nothing is written (:class:`NotHere`).
    Raises ``AccountNotFound``, ``AccountInactive``, ``KindNotOffered`` for a kind that the account's platform lacks,
    and ``ConfigurationError`` where that platform is not installed.
    """
    ref, kind = key
    known = _unknown.get(ref)
    if known is not None and clock.monotonic() < known[0]:
        raise AccountNotFound(known[1])
    token = rows.find(key)
    if token is None:
        account = Account.objects.using(alias()).filter(ref=ref).first()
        if account is None or account.ref != ref:
            raise AccountNotFound(_remembered_as_unknown(ref))
        if _offered(account, kind) is None:
            raise _not_offered(account, kind)
        if not may_make:
            raise NotHere
        token = rows.made(account, kind)
    elif token.account.ref != ref:  # MySQL's usual collations take WX… for wx… (R27)
        raise AccountNotFound(_remembered_as_unknown(ref))
    elif _offered(token.account, kind) is None:
        raise _not_offered(token.account, kind)
    if not token.account.is_active:
        raise AccountInactive(
            _("The WeChat account %(appid)s is inactive. Activate it in the admin. %(choices)s")
            % {"appid": ref, "choices": _choices()}
        )
    return token


def _offered(account: Account, kind: str) -> CredentialSource | None:
    return platform(account.platform).source(kind)


def _not_offered(account: Account, kind: str) -> KindNotOffered:
    has = ", ".join(platform(account.platform).kinds)
    return KindNotOffered(
        _("The WeChat account %(appid)s has no %(kind)s. It has: %(kinds)s.")
        % {"appid": account.ref, "kind": repr(kind), "kinds": has}
    )


def platform_of(ref: str) -> Platform:
    """The platform of an account, remembered: it is the same for good. In remote mode that of official accounts.

    Raises ``AccountNotFound``, ``StoreUnavailable`` and ``ConfigurationError``.
    """
    if get_settings().remote_url:
        return platform(OFFICIAL_ACCOUNT)
    name = _platforms.get(ref)
    if name is None:
        accounts = Account.objects.using(alias()).filter(ref=ref).values_list("platform", flat=True)
        try:
            name = read(accounts.first)
        except AnyDatabaseError as exc:
            raise StoreUnavailable(ref, exc) from exc
        if name is None:
            raise AccountNotFound(read(partial(_remembered_as_unknown, ref)))
        if not in_test_case():
            if len(_platforms) >= UNKNOWN_KEPT:
                _platforms.clear()
            _platforms[ref] = name
    return platform(name)


def find_token(key: Key) -> Token:
    """:func:`find` for whoever has no connection in hand."""
    return read(partial(find, key, may_make=True))


def forget(ref: str) -> None:
    """An account was added, edited or deleted here."""
    global _default
    _default = None
    _unknown.pop(ref, None)
    _platforms.pop(ref, None)


def _remembered_as_unknown(ref: str) -> str:
    text = _("There is no WeChat account with the AppID %(appid)r. %(choices)s") % {"appid": ref, "choices": _choices()}
    if not in_test_case():  # there, rows are rolled back behind our back
        if len(_unknown) >= UNKNOWN_KEPT:
            _unknown.clear()
        _unknown[ref] = clock.monotonic() + UNKNOWN_SECONDS, text
    return text


# -- no account named ------------------------------------------------------------------------------


def _default_ref() -> str:
    """As for a named account: while one thread looks again, the others go on with what was true a moment ago."""
    global _default
    settings = get_settings()
    if settings.remote_url:
        if settings.remote_appid:
            return settings.remote_appid
        raise AccountAmbiguous(
            _("This site reads from a token server. Name the account, or set WECHAT_TOKEN['REMOTE_APPID'].")
        )
    known, now = _default, clock.monotonic()
    if known is not None:
        if now < known[0]:
            return known[1]
        if now < known[0] + IDLE_SECONDS and not in_place():
            _default = now + DEFAULT_SECONDS, known[1]
            ground.aside("default account", _look_default_up_again)
            return known[1]
    try:
        ref = read(_read_default)
    except AnyDatabaseError as exc:
        if known is None:
            raise StoreUnavailable("", exc) from exc
        ref = known[1]  # the database is down: what we last knew (R13)
    if not in_test_case():
        _default = clock.monotonic() + DEFAULT_SECONDS, ref
    return ref


def _look_default_up_again() -> None:
    global _default
    try:
        with private():
            ref = _read_default()
    except AnyDatabaseError:
        return  # the database is down: what we last knew (R13)
    except (AccountNotFound, AccountAmbiguous):
        _default = None  # the next caller gets the error, in words of its own language
        return
    _default = clock.monotonic() + DEFAULT_SECONDS, ref


def _read_default() -> str:
    """Two look-ups in one index: sorting a million active accounts to find the default one would take a while."""
    active = Account.objects.using(alias()).active().values_list("ref", flat=True)
    marked = active.filter(is_default=True).first()
    if marked is not None:
        return str(marked)
    match list(active.order_by()[:2]):
        case [ref]:
            return str(ref)
        case []:
            raise AccountNotFound(_no_account_yet())
    raise AccountAmbiguous(_several_accounts())


def _no_account_yet() -> str:
    return _("There is no active WeChat account. Add one in the admin, or: manage.py wechat_token add-account APPID")


def _several_accounts() -> str:
    return _("Several WeChat accounts are active and none is the default. Name one, or mark one as default. %s") % (
        _choices()
    )


def _choices() -> str:
    active = Account.objects.using(alias()).active().order_by("ref").values_list("ref", flat=True)
    appids = list(active[: NAMED_IN_ERRORS + 1])
    if not appids:
        return _("No account is active.")
    shown = ", ".join(appids[:NAMED_IN_ERRORS])
    return _("Active accounts: %s") % (shown + (", …" if len(appids) > NAMED_IN_ERRORS else ""))
