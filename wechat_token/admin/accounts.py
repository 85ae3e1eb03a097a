"""Accounts in the admin: list, form, the panel with the token's state."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters

from .. import clock
from ..client_keys.readers import DAYS, readers
from ..diagnosis.board import recount
from ..engine import schedule
from ..forms import AccountForm
from ..models import Account
from .account_list import AccountList
from .alert_views import AlertViews
from .notices import of_accounts, of_site
from .panel import panels
from .token_views import TokenViews

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Account]
else:
    _ModelAdmin = admin.ModelAdmin

VIEWS = ("refresh", "force", "clear_quota", "reveal")


@admin.register(Account)
class AccountAdmin(AlertViews, TokenViews, AccountList, _ModelAdmin):
    form = AccountForm
    save_on_top = False

    class Media:
        css: ClassVar = {"all": ["wechat_token/admin.css"]}

    # -- the list ----------------------------------------------------------------------------------

    # Not atomic: the action refreshes tokens, and a transaction of ours would keep it waiting on SQLite (R3).
    @transaction.non_atomic_requests
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        seen = of_accounts(self.admin_site, self.get_queryset(request))
        seen["test_alerts_url"] = self.test_alerts_url(request)
        return super().changelist_view(request, {**seen, **(extra_context or {})})

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
        log_url = self._log_url(request, account)
        now = clock.now()
        today = dt.date.fromisoformat(schedule.beijing_day(now))
        may_see_keys = request.user.has_perm("wechat_token.view_clientkey")
        return {
            **of_site(self.admin_site),
            "panels": panels(account, with_log=bool(log_url)),
            "log_url": log_url,
            "readers": readers(account.ref, today, now) if may_see_keys else None,
            "reader_days": DAYS,
            "keys_url": self._page("clientkey_changelist"),
            "may_refresh": account.is_active and self.has_refresh_permission(request),
            "may_reveal": self.has_reveal_permission(request),
            **{f"{view}_url": self.url(request, view, account.pk) for view in VIEWS},
        }

    def _page(self, name: str) -> str:
        """The URL of another page of this admin; '' where the site does not have it."""
        try:
            return reverse(f"{self.admin_site.name}:wechat_token_{name}")
        except NoReverseMatch:
            return ""

    def _log_url(self, request: HttpRequest, account: Account) -> str:
        """The log of this account; '' where the site has no log or this person may not see it."""
        if not request.user.has_perm("wechat_token.view_refreshlog"):
            return ""
        log = self._page("refreshlog_changelist")
        return f"{log}?{urlencode({'ref__exact': account.ref})}" if log else ""

    # -- saving ------------------------------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        recount()
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
