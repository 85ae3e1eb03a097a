"""Which rows: active, due, usable. ``now`` is always a parameter (R19); what is read is the primary's (R34)."""

from __future__ import annotations

import datetime as dt
import secrets
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import models, router
from django.db.models import F, Q

if TYPE_CHECKING:
    from .models import Account, ClientKey, RefreshLog, Token

_M = TypeVar("_M", bound=models.Model)


class PrimaryManager(models.Manager[_M]):
    """Reads where it writes, whatever the site's routers say for reads (R34): a replica that lags would bring back
    a token that was just replaced, a key that was just revoked."""

    def get_queryset(self) -> models.QuerySet[_M]:
        queryset = super().get_queryset()
        return queryset.using(self._db or router.db_for_write(self.model))


class AccountQuerySet(models.QuerySet["Account"]):
    def active(self) -> AccountQuerySet:
        return self.filter(is_active=True)


def usable(now: dt.datetime, overlap: float) -> Q:
    """Tokens that count as good: :func:`wechat_token.engine.schedule.is_usable` as the database says it.

    ``overlap`` in seconds. A property test holds the two together.
    """
    undoubted = Q(unanswered_since=None) | Q(unanswered_since__gt=now - dt.timedelta(seconds=overlap))
    return (
        undoubted
        & Q(version__gt=0, expires_at__gt=now, issued_for=F("account__ref"))
        & ~Q(rejected_version=F("version"))
    )


class TokenQuerySet(models.QuerySet["Token"]):
    def active(self) -> TokenQuerySet:
        return self.filter(account__is_active=True)

    def due(self, now: dt.datetime) -> TokenQuerySet:
        """Tokens to renew, most overdue first. One range scan of the index on ``due_at`` (R17)."""
        return self.active().filter(due_at__lte=now).order_by("due_at", "pk")

    def usable(self, now: dt.datetime, overlap: float) -> TokenQuerySet:
        return self.filter(usable(now, overlap))


class RefreshLogQuerySet(models.QuerySet["RefreshLog"]):
    def older_than(self, moment: dt.datetime) -> RefreshLogQuerySet:
        return self.filter(at__lt=moment)


def new_stamp() -> int:
    """31 random bits: few enough that the sum of all keys' stamps fits every database's integers."""
    return secrets.randbits(31)


class ClientKeyQuerySet(models.QuerySet["ClientKey"]):
    def update(self, **fields: Any) -> int:
        """Update, and let every process notice within a second (S3); a last use alone is no change."""
        if set(fields) - {"last_used_at"}:
            fields.setdefault("stamp", new_stamp())
        return super().update(**fields)

    update.alters_data = True  # type: ignore[attr-defined]  # how Django keeps templates from calling it
