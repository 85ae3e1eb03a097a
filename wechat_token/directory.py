"""Which account is meant, and where its token row is. Errors name the choices."""

from __future__ import annotations

from django.db import Error as AnyDatabaseError
from django.utils.translation import gettext as _

from . import clock, transactions
from .conf import get_settings
from .exceptions import AccountAmbiguous, AccountInactive, AccountNotFound, StoreUnavailable
from .models import ACCESS_TOKEN, Account, Token
from .shelf import Key

NAMED_IN_ERRORS = 5  # how many AppIDs an error lists

# The account meant by "no account": (trusted until, monotonic; AppID). Replaced whole.
_default: tuple[float, str] | None = None
DEFAULT_SECONDS = 1.0


def resolve(account: str | Account | None, kind: str = ACCESS_TOKEN) -> Key:
    """The key of the account's token. Raises ``AccountAmbiguous`` or ``AccountNotFound`` if none is named or marked."""
    if account is None:
        return _default_appid(), kind
    return (account.appid if isinstance(account, Account) else account), kind


def token_row(key: Key) -> Token:
    """The account's token row with its account, made if it is missing (accounts added by ``bulk_create`` or SQL)."""
    appid, kind = key
    token = Token.objects.select_related("account").filter(account__appid=appid, kind=kind).first()
    if token is None:
        account = Account.objects.filter(appid=appid).first()
        if account is None:
            raise AccountNotFound(
                _("There is no WeChat account with the AppID %(appid)r. %(choices)s")
                % {"appid": appid, "choices": _choices()}
            )
        token, _created = Token.objects.get_or_create(account=account, kind=kind, defaults={"due_at": clock.now()})
        token.account = account
    if not token.account.is_active:
        raise AccountInactive(
            _("The WeChat account %(appid)s is inactive. Activate it in the admin. %(choices)s")
            % {"appid": appid, "choices": _choices()}
        )
    return token


def forget_default() -> None:
    global _default
    _default = None


def _default_appid() -> str:
    global _default
    settings = get_settings()
    if settings.remote_url:
        if settings.remote_appid:
            return settings.remote_appid
        raise AccountAmbiguous(
            _("This site reads from a token server. Name the account, or set WECHAT_TOKEN['REMOTE_APPID'].")
        )
    known = _default
    if known is not None and clock.monotonic() < known[0]:
        return known[1]
    try:
        appid = transactions.read(_read_default)
    except AnyDatabaseError as exc:
        if known is None:
            raise StoreUnavailable("", exc) from exc
        appid = known[1]  # the database is down: what we last knew (R13)
    trusted = 0.0 if transactions.in_test_case() else DEFAULT_SECONDS
    _default = (clock.monotonic() + trusted, appid)
    return appid


def _read_default() -> str:
    rows = Account.objects.active().order_by("-is_default", "appid").values_list("appid", "is_default")[:2]
    match list(rows):
        case [(appid, _)]:
            return appid
        case [(appid, True), _]:
            return appid
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
    appids = list(Account.objects.active().order_by("appid").values_list("appid", flat=True)[: NAMED_IN_ERRORS + 1])
    if not appids:
        return _("No account is active.")
    shown = ", ".join(appids[:NAMED_IN_ERRORS])
    return _("Active accounts: %s") % (shown + (", …" if len(appids) > NAMED_IN_ERRORS else ""))


__all__ = ["forget_default", "resolve", "token_row"]
