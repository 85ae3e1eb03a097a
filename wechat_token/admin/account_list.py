"""The list of accounts: worst first, by index, in a constant number of queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from django.contrib import admin
from django.contrib.admin.views.main import ORDER_VAR, ChangeList
from django.db.models import Prefetch, Q, QuerySet, prefetch_related_objects
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import clock
from ..diagnosis import states
from ..diagnosis.board import MOST, WORST_FIRST, Board
from ..diagnosis.states import State
from ..models import ACCESS_TOKEN, Account, Token
from . import words
from .lists import FOUND_BY, BoundedPaginator, ConditionFilter, board_of
from .panel import report

if TYPE_CHECKING:
    import datetime as dt

    _ModelAdmin = admin.ModelAdmin[Account]
else:
    _ModelAdmin = admin.ModelAdmin

NOTHING = "–"
# Up to so many accounts a search looks inside names and AppIDs; among more it asks an index how they begin.
SEARCHED_INSIDE: Final = 20_000


class AccountChangeList(ChangeList):
    """One page of accounts costs two queries for the accounts and one for their tokens, without any secret."""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        return super().get_queryset(request, *args, **kwargs).defer("secret")

    def get_ordering_field_columns(self) -> dict[int, Literal["desc", "asc"]]:
        """Worst first is no column's order."""
        return super().get_ordering_field_columns() if ORDER_VAR in self.params else {}

    def get_results(self, request: HttpRequest) -> None:
        self.board: Board = board_of(request)
        super().get_results(request)
        if ORDER_VAR in self.params:  # somebody asked for another order
            page = list(self.result_list)
        else:
            whole = self.show_all and self.can_show_all
            size = self.list_max_show_all if whole else self.list_per_page
            page = self._worst_first(0 if whole else (self.page_num - 1) * size, size)
        tokens = Token.objects.defer("value")
        prefetch_related_objects(page, Prefetch("tokens", queryset=tokens, to_attr="all_tokens"))
        now = clock.now()
        for account in page:
            account.told = _worst_token(account, now)  # what the columns read
        self.result_list = page

    def _worst_first(self, start: int, size: int) -> list[Account]:
        """A page of the accounts in trouble by how bad it is, and of the others by AppID."""
        troubled = list(self.board.troubled)
        if self.params or self.query:  # a filter or a search; by the column types of any database
            seen = set(self.queryset.order_by().filter(pk__in=troubled).values_list("pk", flat=True))
            troubled = [pk for pk in troubled if pk in seen]
        shown = troubled[start : start + size]
        found = self.queryset.in_bulk(shown) if shown else {}
        page = [found[pk] for pk in shown if pk in found]
        after = max(start - len(troubled), 0)
        if len(shown) < size and len(troubled) < self.result_count:
            page += self.queryset.exclude(pk__in=troubled)[after : after + size - len(shown)]
        return page

    def is_cut(self) -> bool:
        return bool(self.result_count >= MOST)

    def chips(self) -> list[dict[str, Any]]:
        """The states there are, with their numbers, and what finds them."""
        chosen = self.params.get(ConditionFilter.parameter_name, "")
        counts = self.board.counts
        rows: list[tuple[str, Any, int | None, str]] = [("", _("all"), None, "")]
        rows += [
            (state.value, states.LABELS[state], counts.get(state), state.value)
            for state in (*WORST_FIRST, State.GOOD, State.INACTIVE)
            if counts.get(state, 1 if state is State.GOOD else 0) or chosen == state.value
        ]
        rows += [(value, label, None, "") for value, label in FOUND_BY]
        return [
            {
                "label": label,
                "count": _capped(count) if count is not None else "",
                "css": css,
                "chosen": chosen == value,
                "url": self.get_query_string(
                    {ConditionFilter.parameter_name: value} if value else {}, remove=["condition", "p"]
                ),
            }
            for value, label, count, css in rows
        ]


def _capped(count: int) -> str:
    return f"{MOST:,}+" if count > MOST else f"{count:,}"


class AccountPaginator(BoundedPaginator):
    MOST = MOST


class AccountList(_ModelAdmin):
    """A part of :class:`~wechat_token.admin.accounts.AccountAdmin`."""

    list_display = ("state", "account", "time_left", "last_refresh", "used_endpoint")
    list_display_links = ("account",)
    list_filter = (ConditionFilter,)
    list_per_page = 50
    paginator = AccountPaginator
    search_fields = ("ref", "name")
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    sortable_by = ("account", "used_endpoint")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return AccountChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Parts of names and AppIDs while that is quick, their beginnings where an index has to do it."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if Account.objects.order_by()[: SEARCHED_INSIDE + 1].count() <= SEARCHED_INSIDE:
            return queryset.filter(Q(ref__icontains=term) | Q(name__icontains=term)), False
        return queryset.filter(Q(ref__startswith=term) | Q(name__startswith=term)), False

    # -- columns -----------------------------------------------------------------------------------

    @admin.display(description=gettext_lazy("state"))
    def state(self, account: Account) -> SafeString | str:
        """The state in a word, and under it what went wrong, which unfolds into what to do."""
        told = _told(account)
        if told is None:
            return NOTHING
        token, state = told
        cell = format_html('<span class="wt-state wt-{}">{}</span>', state.state.value, capfirst(state.label))
        if not account.is_active:
            return cell
        if token.kind != ACCESS_TOKEN:
            cell += format_html(' <code class="wt-kind">{}</code>', token.kind)
        if token.waits_for:
            cell += format_html('<div class="wt-problem">{}</div>', _("waits for %(what)s") % {"what": token.waits_for})
        failure = words.problem(token)
        if failure is not None:
            cell += _unfolding(words.coded(failure.errcode, failure.summary), failure.action)
        foreign = words.foreign_hint(token, clock.now())
        if foreign:
            cell += _unfolding(_("Used by another system."), foreign)
        return format_html("<div>{}</div>", cell)  # one thing also where a cell lays out its parts side by side

    @admin.display(description=gettext_lazy("account"), ordering="ref")
    def account(self, account: Account) -> SafeString:
        name = format_html('<span class="wt-name">{}</span>', account.name) if account.name else ""
        mark = format_html(' <span class="wt-tag">{}</span>', _("default")) if account.is_default else ""
        return format_html('<span class="wt-appid">{}</span>{}{}', account.ref, mark, name)

    @admin.display(description=gettext_lazy("time left"))
    def time_left(self, account: Account) -> SafeString | str:
        told = _told(account)
        left = told[1].seconds_left if told is not None and account.is_active else 0
        return format_html('<span class="wt-nowrap">{}</span>', states.duration(left)) if left else NOTHING

    @admin.display(description=gettext_lazy("last refresh"))
    def last_refresh(self, account: Account) -> SafeString | str:
        now = clock.now()
        told = _told(account)
        if told is None or told[0].issued_at is None:
            return NOTHING
        at = told[0].issued_at
        return format_html(
            '<time class="wt-nowrap" datetime="{}" title="{}">{}</time>',
            at.isoformat(timespec="seconds"), words.clock_time(at), words.away(at, now),
        )  # fmt: skip

    @admin.display(description=gettext_lazy("endpoint"), ordering="endpoint")
    def used_endpoint(self, account: Account) -> str:
        return account.endpoint


_IN_ORDER: Final = (State.REFRESHING, State.GOOD, State.ASLEEP, State.INACTIVE)
_RANK: Final = {state: rank for rank, state in enumerate((*WORST_FIRST, *_IN_ORDER))}


_Told = tuple[Token, states.Report] | None


def _told(account: Account) -> _Told:
    found: _Told = getattr(account, "told", None)
    return found


def _worst_token(account: Account, now: dt.datetime) -> _Told:
    """The credential that is worst off; among equals the access_token. None: the account has no row yet."""
    tokens: list[Token] = getattr(account, "all_tokens", [])
    told = []
    for token in tokens:
        token.account = account
        told.append((token, report(token, now)))
    return min(told, key=lambda pair: (_RANK[pair[1].state], pair[0].kind != ACCESS_TOKEN), default=None)


def _unfolding(summary: str, action: str) -> SafeString:
    steps = format_html_join("", "<li>{}</li>", ((step,) for step in words.steps(action)))
    return format_html('<details class="wt-problem"><summary>{}</summary><ol>{}</ol></details>', summary, steps)
