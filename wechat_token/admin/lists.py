"""Parts of change lists: filters, and a paginator for big tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from .. import clock
from ..diagnosis import states
from ..diagnosis.board import WORST_FIRST, Board, board
from ..diagnosis.states import State
from ..engine import schedule
from ..models import Account, ClientKey, Endpoint, RefreshLog, Token
from . import words

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise


def board_of(request: HttpRequest) -> Board:
    """The board, once for a request."""
    found: Board | None = getattr(request, "wechat_token_board", None)
    if found is None:
        found = request.wechat_token_board = board(clock.now())  # type: ignore[attr-defined]
    return found


# What can be filtered by beside the states that are counted. A credential that nobody asks for is no state of its
# account, whose access_token is renewed all the same (R28).
FOUND_BY: Final[tuple[tuple[str, _StrOrPromise], ...]] = (
    (State.ASLEEP.value, _("a credential not in use")),
    ("foreign", _("used by another system")),
    ("classic", _("classic endpoint")),
)


class ConditionFilter(admin.SimpleListFilter):
    """The accounts in a state, or such as somebody should look at.

    Those in trouble are taken from the board, so that also when a million are, a page costs no more.
    """

    title = _("condition")
    parameter_name = "condition"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, _StrOrPromise]]:
        return [
            *((state.value, states.LABELS[state]) for state in (*WORST_FIRST, State.GOOD, State.INACTIVE)),
            ("failing", _("refresh failing")),
            *FOUND_BY,
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Account]) -> QuerySet[Account] | None:
        now = clock.now()
        tokens = Token.objects.all()
        match self.value():
            case "failing":
                tokens = tokens.active().filter(failures__gt=0)
            case "foreign":
                tokens = tokens.filter(foreign_at__gt=now - words.FOREIGN_IS_NEWS)
            case "classic":
                return queryset.filter(endpoint=Endpoint.CLASSIC)
            case State.INACTIVE.value:
                return queryset.filter(is_active=False)
            case State.GOOD.value:
                # Nearly all of them are, so it is asked of each account on the page, in terms that a planner can judge.
                late = now - schedule.seconds(states.OVERDUE_AFTER)
                good = tokens.filter(failures=0, version__gt=0, due_at__gt=late, expires_at__gt=now)
                sound = queryset.filter(Exists(good.filter(account=OuterRef("pk"))), is_active=True)
                return sound.exclude(pk__in=list(board_of(request).troubled))
            case State.ASLEEP.value:
                asleep = tokens.filter(due_at=None, asked_at__isnull=False)  # as schedule.is_asleep says it
                return queryset.filter(Exists(asleep.filter(account=OuterRef("pk"))), is_active=True)
            case name if name in _TROUBLE:
                troubled = board_of(request).troubled
                return queryset.filter(pk__in=[pk for pk, state in troubled.items() if state.value == name])
            case _:
                return None
        return queryset.filter(pk__in=tokens.values("account"))


_TROUBLE: Final = frozenset(state.value for state in WORST_FIRST)


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
