"""Which rows: due, active, failing. ``now`` is always a parameter (R19)."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from django.db import models

if TYPE_CHECKING:
    from .models import Account, ClientKey, RefreshLog, Token


class AccountQuerySet(models.QuerySet["Account"]):
    def active(self) -> AccountQuerySet:
        return self.filter(is_active=True)


class TokenQuerySet(models.QuerySet["Token"]):
    def active(self) -> TokenQuerySet:
        return self.filter(account__is_active=True)

    def due(self, now: dt.datetime) -> TokenQuerySet:
        """Tokens to renew, most overdue first. One range scan of the index on ``due_at`` (R17)."""
        return self.active().filter(due_at__lte=now).order_by("due_at")

    def failing(self) -> TokenQuerySet:
        return self.active().filter(failures__gt=0)


class RefreshLogQuerySet(models.QuerySet["RefreshLog"]):
    def older_than(self, moment: dt.datetime) -> RefreshLogQuerySet:
        return self.filter(at__lt=moment)


class ClientKeyQuerySet(models.QuerySet["ClientKey"]):
    def update(self, **fields: Any) -> int:
        """Update, and let every process notice within a second (S3); a last use alone is no change."""
        from .models import new_stamp

        if set(fields) - {"last_used_at"}:
            fields.setdefault("stamp", new_stamp())
        return super().update(**fields)

    update.alters_data = True  # type: ignore[attr-defined]  # how Django keeps templates from calling it
