"""The log, as one receiver of the signals. Loggers are under ``wechat_token``; no line holds a secret (S2)."""

from __future__ import annotations

import logging
from typing import Any

from . import security, signals

logger = logging.getLogger("wechat_token.refresh")

_QUIET = {"renewed", "unchanged", "refused"}


def connect() -> None:
    signals.refresh_finished.connect(_on_refresh, dispatch_uid="wechat_token.logs.refresh")
    signals.attention_needed.connect(_on_attention, dispatch_uid="wechat_token.logs.attention")
    signals.foreign_refresh_detected.connect(_on_foreign, dispatch_uid="wechat_token.logs.foreign")
    signals.encryption_unfit.connect(_on_unfit, dispatch_uid="wechat_token.logs.unfit")


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
        "Use the stable endpoint, or give that system a client key.",
        appid, kind, count,
    )  # fmt: skip


def _on_unfit(field: str, row: str, cause: str, **kwargs: Any) -> None:
    security.event("encryption_unfit", field=field, row=row, cause=cause)
