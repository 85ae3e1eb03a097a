"""Accounts in the admin: list, form, the panel with the token's state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.views.main import ChangeList
from django.db import transaction
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_post_parameters

from .. import clock
from ..diagnosis import states
from ..forms import AccountForm
from ..models import ACCESS_TOKEN, Account, RefreshLog, Token
from . import words
from .lists import ConditionFilter
from .notices import site_notices
from .panel import LOG_ROWS, panel, report
from .token_views import TokenViews

if TYPE_CHECKING:
    import datetime as dt

    _ModelAdmin = admin.ModelAdmin[Account]
else:
    _ModelAdmin = admin.ModelAdmin

NOTHING = "–"


class AccountChangeList(ChangeList):
    """One page of accounts costs one query for the accounts and one for their tokens, without any secret."""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        tokens = Token.objects.defer("value")
        accounts = super().get_queryset(request, *args, **kwargs)
        return accounts.defer("secret").prefetch_related(Prefetch("tokens", queryset=tokens, to_attr="credentials"))


@admin.register(Account)
class AccountAdmin(TokenViews, _ModelAdmin):
    form = AccountForm
    list_display = (
        "ref", "name", "state", "time_left", "last_refresh", "used_endpoint", "default",
    )  # fmt: skip
    list_display_links = ("ref", "name")
    list_filter = ("is_active", "endpoint", ConditionFilter)
    list_per_page = 50
    search_fields = ("ref", "name")
    show_full_result_count = False
    sortable_by = ("ref", "name", "used_endpoint", "default")
    save_on_top = False

    class Media:
        css: ClassVar = {"all": ["wechat_token/admin.css"]}

    # -- the list ----------------------------------------------------------------------------------

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return AccountChangeList

    # Not atomic: the action refreshes tokens, and a transaction of ours would keep it waiting on SQLite (R3).
    @transaction.non_atomic_requests
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        notices = site_notices(self.admin_site)
        return super().changelist_view(request, {**notices, **(extra_context or {})})

    @admin.display(description=gettext_lazy("state"))
    def state(self, account: Account) -> SafeString | str:
        """The state of each credential in a word, and under it what went wrong, which unfolds into what to do."""
        now, main = clock.now(), _listed_token(account)
        cells = [_state_of(main, now)] if main is not None else []
        if account.is_active:
            others = [token for token in _credentials(account) if token is not main]
            cells += [
                format_html("<div>{} {}</div>", words.kind(token), _state_of(token, now)) for token in others
            ]  # fmt: skip
        return format_html_join("", "{}", ((cell,) for cell in cells)) or NOTHING

    @admin.display(description=gettext_lazy("time left"))
    def time_left(self, account: Account) -> SafeString | str:
        token = _listed_token(account)
        left = report(token, clock.now()).seconds_left if token is not None and account.is_active else 0
        return format_html('<span class="wt-nowrap">{}</span>', states.duration(left)) if left else NOTHING

    @admin.display(description=gettext_lazy("last refresh"))
    def last_refresh(self, account: Account) -> SafeString | str:
        token = _listed_token(account)
        if token is None or token.issued_at is None:
            return NOTHING
        return format_html(
            '<time class="wt-nowrap" datetime="{}" title="{}">{}</time>',
            token.issued_at.isoformat(timespec="seconds"), words.clock_time(token.issued_at),
            words.away(token.issued_at, clock.now()),
        )  # fmt: skip

    @admin.display(description=gettext_lazy("endpoint"), ordering="endpoint")
    def used_endpoint(self, account: Account) -> str:
        return account.endpoint

    @admin.display(description=gettext_lazy("default"), ordering="-is_default")
    def default(self, account: Account) -> str:
        return _("default") if account.is_default else ""

    # -- the form ----------------------------------------------------------------------------------

    def get_readonly_fields(self, request: HttpRequest, obj: Account | None = None) -> tuple[str, ...]:
        return ("appid",) if obj is not None else ()

    def get_fieldsets(self, request: HttpRequest, obj: Account | None = None) -> Any:
        # Where it cannot be changed there is nothing to show of it.
        writable = obj is None or self.has_change_permission(request, obj)
        credentials = ("appid", "secret", "name") if writable else ("appid", "name")
        return [
            (None, {"fields": credentials}),
            (_("Use"), {"fields": ("endpoint", "is_active", "is_default")}),
            (_("Pages in WeChat"), {"fields": ("js_domains",)}),
            (_("Limits"), {"fields": ("daily_limit",), "classes": ("collapse",)}),
        ]

    @method_decorator(sensitive_post_parameters("appid", "secret"))
    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        return super().changeform_view(request, object_id, form_url, extra_context)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        account: Account | None = kwargs.get("obj")
        if account is not None:
            context |= self._panel_context(request, account)
        return super().render_change_form(request, context, *args, **kwargs)

    def _panel_context(self, request: HttpRequest, account: Account) -> dict[str, Any]:
        tokens = list(Token.objects.filter(account=account).order_by("kind"))
        if not any(token.kind == ACCESS_TOKEN for token in tokens):
            tokens.append(Token(account=account, kind=ACCESS_TOKEN))
        tokens.sort(key=lambda token: token.kind != ACCESS_TOKEN)
        log_url = self._log_url(request, account)
        panels = []
        for token in tokens:
            token.account = account
            log = RefreshLog.objects.filter(ref=account.ref, kind=token.kind)[:LOG_ROWS] if log_url else ()
            panels.append(panel(token, list(log)))
        return {
            **site_notices(),
            "panels": panels,
            "log_url": log_url,
            "may_refresh": account.is_active and self.has_refresh_permission(request),
            "may_reveal": self.has_reveal_permission(request),
            "refresh_url": self.url(request, "refresh", account.pk),
            "reveal_url": self.url(request, "reveal", account.pk),
        }

    def _log_url(self, request: HttpRequest, account: Account) -> str:
        """The log of this account; '' where the site has no log or this person may not see it."""
        if not request.user.has_perm("wechat_token.view_refreshlog"):
            return ""
        try:
            log = reverse(f"{self.admin_site.name}:wechat_token_refreshlog_changelist")
        except NoReverseMatch:
            return ""
        return f"{log}?{urlencode({'ref__exact': account.ref})}"

    # -- saving ------------------------------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        if not change:
            super().save_model(request, obj, form, change)
        else:
            # Only what was edited: two people may have the page open, and one of them enters a new AppSecret.
            concrete = {field.name for field in Account._meta.concrete_fields}
            obj.save(update_fields=[*(concrete & set(form.changed_data)), "updated_at"])
        if form.secret_looks_unusual:
            text = _(
                "The AppSecret was saved, but it does not look like WeChat's, which are 32 digits and "
                "letters from a to f. If the token cannot be fetched, enter it again."
            )
            messages.warning(request, text)

    def response_add(self, request: HttpRequest, obj: Account, post_url_continue: str | None = None) -> HttpResponse:
        response = super().response_add(request, obj, post_url_continue)
        if IS_POPUP_VAR not in request.POST:
            if obj.is_active:
                text = _(
                    "The first token is being fetched now. Reload in a few seconds; if none has come after "
                    "half a minute, check that Celery's worker and beat are running."
                )
            else:
                text = _("The account is inactive: no token is fetched until you activate it.")
            messages.info(request, text)
        return response

    def response_change(self, request: HttpRequest, obj: Account) -> HttpResponse:
        response = super().response_change(request, obj)
        if IS_POPUP_VAR not in request.POST:
            if obj.is_active:
                text = _(
                    "WeChat is asked for a token now, with what you saved. Until the answer is in, the token "
                    "in hand is served. Reload in a few seconds to see the result."
                )
            else:
                text = _("The account is inactive: its token is neither renewed nor handed out.")
            messages.info(request, text)
        return response


def _credentials(account: Account) -> list[Token]:
    tokens: list[Token] = getattr(account, "credentials", [])
    for token in tokens:
        token.account = account
    return sorted(tokens, key=lambda token: token.kind)


def _listed_token(account: Account) -> Token | None:
    """The account's main credential."""
    return next((token for token in _credentials(account) if token.kind == ACCESS_TOKEN), None)


def _state_of(token: Token, now: dt.datetime) -> SafeString:
    state = report(token, now)
    cell = format_html('<span class="wt-state wt-{}">{}</span>', state.state.value, state.label)
    if token.account.is_active:
        failure = words.problem(token)
        if failure is not None:
            cell += _unfolding(words.coded(failure.errcode, failure.summary), failure.action)
        foreign = words.foreign_hint(token, now)
        if foreign:
            cell += _unfolding(_("Used by another system."), foreign)
    return cell


def _unfolding(summary: str, text: str) -> SafeString:
    return format_html('<details class="wt-problem"><summary>{}</summary>{}</details>', summary, text)
