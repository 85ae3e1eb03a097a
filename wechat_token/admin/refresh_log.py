"""The refresh log in the admin (R15): read only. The table may be very big: nothing here counts all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from ..models import Account, RefreshLog
from . import words
from .lists import BoundedPaginator, ReasonFilter

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[RefreshLog]
else:
    _ModelAdmin = admin.ModelAdmin

ACCOUNTS_SEARCHED = 100


@admin.register(RefreshLog)
class RefreshLogAdmin(_ModelAdmin):
    list_display = (
        "time", "ref", "result", "meaning", "why", "client", "endpoint", "rid", "duration_ms",
    )  # fmt: skip
    list_filter = ("outcome", ReasonFilter, "at")
    list_per_page = 100
    paginator = BoundedPaginator
    search_fields = ("rid",)
    search_help_text = _(
        "An AppID or account name, or parts of them, or a whole rid. "
        "The list ends after 5000 rows: filter to see further."
    )
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    sortable_by = ("time",)
    fields = (
        "time", "ref", "kind", "why", "client", "endpoint", "result", "errcode", "meaning", "error",
        "rid", "duration_ms", "version",
    )  # fmt: skip

    class Media:
        css: ClassVar = {"all": ["wechat_token/admin.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: RefreshLog | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: RefreshLog | None = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup == "ref__exact" or super().lookup_allowed(lookup, value, request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """By account first, which an index answers; what is no account may be a deleted one's AppID, or a rid."""
        term = search_term.strip()
        if not term:
            return queryset, False
        named = Account.objects.filter(Q(ref__icontains=term) | Q(name__icontains=term))
        refs = list(named.values_list("ref", flat=True)[:ACCOUNTS_SEARCHED])
        deleted = queryset.filter(ref=term)
        if not refs and not deleted.exists():
            return queryset.filter(rid=term), False
        return queryset.filter(ref__in=[*refs, term]), False

    @admin.display(description=_("time"), ordering="at")
    def time(self, entry: RefreshLog) -> SafeString:
        at = localtime(entry.at).strftime("%Y-%m-%d %H:%M:%S")  # to the second, for comparing with other logs
        return format_html('<span class="wt-nowrap">{}</span>', at)

    @admin.display(description=_("reason"))
    def why(self, entry: RefreshLog) -> str:
        return str(words.reason(entry))

    @admin.display(description=_("outcome"))
    def result(self, entry: RefreshLog) -> SafeString:
        return format_html('<span class="wt-state wt-{}">{}</span>', entry.outcome, entry.get_outcome_display())

    @admin.display(description=_("error"))
    def meaning(self, entry: RefreshLog) -> str:
        return words.log_meaning(entry) or "–"
