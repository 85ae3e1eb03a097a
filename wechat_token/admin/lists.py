"""Parts of change lists: filters, a paginator for big tables, and the notice that nobody renews tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from .. import clock
from ..models import ACCESS_TOKEN, Account, ClientKey, RefreshLog
from . import words

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

TICK_TASK = "wechat_token.refresh_due_tokens"


class ConditionFilter(admin.SimpleListFilter):
    """Accounts that somebody should look at."""

    title = _("condition")
    parameter_name = "condition"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, _StrOrPromise]]:
        return [
            ("failing", _("refresh failing")),
            ("tokenless", _("no usable token")),
            ("foreign", _("used by another system")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Account]) -> QuerySet[Account] | None:
        now = clock.now()
        token = Q(tokens__kind=ACCESS_TOKEN)
        match self.value():
            case "failing":
                return queryset.filter(token & Q(tokens__failures__gt=0), is_active=True)
            case "tokenless":
                dead = Q(tokens__version=0) | Q(tokens__expires_at__lte=now)
                refused = Q(tokens__rejected_version=F("tokens__version"))
                return queryset.filter(token & (dead | refused), is_active=True)
            case "foreign":
                return queryset.filter(token & Q(tokens__foreign_at__gt=now - words.FOREIGN_IS_NEWS))
        return None


class ReasonFilter(admin.SimpleListFilter):
    """The reasons there are, without asking a big table which of them it holds."""

    title = _("reason")
    parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, _StrOrPromise]]:
        return list(words.REASONS.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[RefreshLog]) -> QuerySet[RefreshLog] | None:
        return queryset.filter(reason=self.value()) if self.value() else None


class KeyStateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, _StrOrPromise]]:
        return [("live", _("live")), ("expired", _("expired")), ("revoked", _("revoked"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ClientKey]) -> QuerySet[ClientKey] | None:
        expired = Q(expires_at__lte=clock.now())
        match self.value():
            case "live":
                return queryset.filter(~expired | Q(expires_at=None), revoked_at=None)
            case "expired":
                return queryset.filter(expired, revoked_at=None)
            case "revoked":
                return queryset.exclude(revoked_at=None)
        return None


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # generic in the stubs only
    """Counts ``MOST`` rows and no further; what lies beyond is found by filtering."""

    MOST = 5_000

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]  # the admin's lists are querysets
        return rows[: self.MOST].count()


def tick_notice(site: admin.AdminSite) -> dict[str, str] | None:
    """What is wrong with the periodic renewal, and where to mend it; None if nothing is (R7). One query."""
    if not apps.is_installed("django_celery_beat"):
        return None
    from django_celery_beat.models import PeriodicTask

    enabled = list(PeriodicTask.objects.filter(task=TICK_TASK).values_list("enabled", flat=True))
    if any(enabled):
        return None
    try:
        url = reverse(f"{site.name}:django_celery_beat_periodictask_changelist")
    except NoReverseMatch:
        url = ""
    return {"kind": "disabled" if enabled else "missing", "url": url}
