"""Parts of change lists: filters, and a paginator for big tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from .. import clock
from ..conf import get_settings
from ..diagnosis import states
from ..diagnosis.states import State
from ..models import Account, ClientKey, RefreshLog, Token
from . import words

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise


class ConditionFilter(admin.SimpleListFilter):
    """Accounts that somebody should look at."""

    title = _("condition")
    parameter_name = "condition"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, _StrOrPromise]]:
        return [
            ("failing", _("refresh failing")),
            ("tokenless", states.LABELS[State.DEAD]),
            ("waiting", states.LABELS[State.WAITING]),
            ("overdue", states.LABELS[State.OVERDUE]),
            ("foreign", _("used by another system")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Account]) -> QuerySet[Account] | None:
        now = clock.now()
        tokens = Token.objects.all()
        match self.value():
            case "failing":
                tokens = tokens.active().filter(failures__gt=0)
            case "foreign":
                tokens = tokens.filter(foreign_at__gt=now - words.FOREIGN_IS_NEWS)
            case name if name in _STATES:
                overlap, lease = get_settings().overlap, get_settings().lease
                tokens = states.in_state(tokens, [_STATES[name]], now, overlap=overlap, lease=lease)
            case _:
                return None
        return queryset.filter(pk__in=tokens.values("account"))


_STATES: Final = {
    "tokenless": State.DEAD,
    "waiting": State.WAITING,
    "overdue": State.OVERDUE,
}


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
