"""The log, as one receiver of the signals. Loggers are under ``wechat_token``; no line holds a secret (S2).

Names, paths and AppIDs in a line were written by others: all arguments pass through :func:`redaction.one_line`, so that
none of them forges a second line or drives the terminal that shows it.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_login_failed
from django.db import Error as AnyDatabaseError

from . import security, signals
from .client_keys.networks import client_address
from .conf import get_settings
from .redaction import one_line

logger = logging.getLogger("wechat_token.refresh")

LOGGERS: Final = (
    "wechat_token", "wechat_token.access", "wechat_token.admin", "wechat_token.refresh", "wechat_token.security",
)  # fmt: skip

_QUIET = {"renewed", "unchanged", "refused"}


class OneLineFilter(logging.Filter):
    """Makes every argument of a record one visible line."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_seen, record.args))
        elif record.args:
            record.args = {name: _seen(value) for name, value in record.args.items()}
        return True


def _seen(value: object) -> object:
    return value if isinstance(value, int | float) else one_line(value)


_filter = OneLineFilter()


def connect() -> None:
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_filter)
    signals.refresh_finished.connect(_on_refresh, dispatch_uid="wechat_token.logs.refresh")
    signals.attention_needed.connect(_on_attention, dispatch_uid="wechat_token.logs.attention")
    signals.foreign_refresh_detected.connect(_on_foreign, dispatch_uid="wechat_token.logs.foreign")
    signals.encryption_unfit.connect(_on_unfit, dispatch_uid="wechat_token.logs.unfit")
    user_login_failed.connect(_on_login_failed, dispatch_uid="wechat_token.logs.login")


def _on_refresh(appid: str, kind: str, entry: Any, **kwargs: Any) -> None:
    logger.log(
        logging.INFO if entry.outcome in _QUIET else logging.WARNING,
        "%s %s: %s after %d ms (%s, %s) errcode=%s rid=%s %s",
        appid, kind, entry.outcome, entry.duration_ms, entry.reason, entry.endpoint,
        entry.errcode, entry.rid or "-", entry.error,
    )  # fmt: skip


def _on_attention(appid: str, kind: str, message: str, action: Any, errcode: int | None, **kwargs: Any) -> None:
    logger.error("%s %s needs attention: %s (errcode %s). %s", appid, kind, message, errcode, action)


def _on_foreign(appid: str, kind: str, count: int, **kwargs: Any) -> None:
    logger.warning(
        "%s %s died before its time, for the %d. time: another system renews it with the same AppID. "
        "Give that system a client key.",
        appid, kind, count,
    )  # fmt: skip


def _on_unfit(field: str, row: str, cause: str, **kwargs: Any) -> None:
    security.event("encryption_unfit", field=field, row=row, cause=cause)


def _on_login_failed(credentials: dict[str, Any], request: Any = None, **kwargs: Any) -> None:
    """Of the admin alone: a site's customers have logins, too."""
    match = getattr(request, "resolver_match", None)
    if match is None or "admin" not in match.app_names:
        return
    security.event(
        "login_failed", user=_known_user(credentials),
        address=client_address(request, get_settings().trusted_proxies) or "unknown",
    )  # fmt: skip


def _known_user(credentials: dict[str, Any]) -> str:
    """The name that was typed, if somebody has it: what else is typed there is now and then a password."""
    users = get_user_model()
    name = str(credentials.get(users.USERNAME_FIELD) or credentials.get("username") or "")
    try:
        known = users._default_manager.filter(**{users.USERNAME_FIELD: name}).exists()
    except (AnyDatabaseError, ValueError):  # a name that no database takes
        known = False
    return name if known else "(unknown)"
