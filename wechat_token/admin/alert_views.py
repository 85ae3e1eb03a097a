"""Trying by hand whether alerts reach the people they are for. POST only, and asks first (S4)."""

from __future__ import annotations

from functools import update_wrapper
from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from ..diagnosis import alerts, channels
from ..models import Account

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Account]
else:
    _ModelAdmin = admin.ModelAdmin


class AlertViews(_ModelAdmin):
    """A part of :class:`~wechat_token.admin.accounts.AccountAdmin`."""

    def get_urls(self) -> list[URLPattern]:
        view = update_wrapper(self.admin_site.admin_view(self.test_alerts_view), self.test_alerts_view)
        return [path("test-alerts/", view, name="wechat_token_account_test_alerts"), *super().get_urls()]

    def has_test_alerts_permission(self, request: HttpRequest) -> bool:
        """People are woken by it: it takes what "Refresh now" takes, as for everything that is done to a site."""
        return request.user.has_perm("wechat_token.refresh_token") and self.has_view_permission(request)

    def test_alerts_url(self, request: HttpRequest) -> str:
        """'' where nobody gets alerts, or this person may not try them."""
        may = bool(channels.configured()) and self.has_test_alerts_permission(request)
        return reverse(f"{self.admin_site.name}:wechat_token_account_test_alerts") if may else ""

    # Not atomic: a mail server may take its time, and no transaction should stay open for it.
    @transaction.non_atomic_requests
    def test_alerts_view(self, request: HttpRequest) -> HttpResponse:
        """A test message to everybody who gets alerts, once a person has said yes; what became of each is told."""
        back = reverse(f"{self.admin_site.name}:wechat_token_account_changelist")
        if request.method != "POST":
            if request.method not in ("GET", "HEAD"):
                return HttpResponseNotAllowed(["POST"])
            text = _("Nothing was done: you had been logged out in between. Press the button again.")
            self.message_user(request, text, messages.WARNING)
            return HttpResponseRedirect(back)
        if not self.has_test_alerts_permission(request):
            raise PermissionDenied
        names = [channel.name for channel in channels.configured()]
        if names and "confirmed" not in request.POST:
            return self._ask_whether_to_test(request, names, back)
        if not names:
            text = _("Nobody gets alerts: set WECHAT_TOKEN['ALERT_EMAILS'] or ['ALERT_WEBHOOKS'].")
            self.message_user(request, text, messages.ERROR)
        for name, wrong in alerts.test().items():
            text = _("%(name)s: failed: %(error)s") if wrong else _("%(name)s: sent")
            level = messages.ERROR if wrong else messages.SUCCESS
            self.message_user(request, text % {"name": name, "error": wrong}, level)
        return HttpResponseRedirect(back)

    def _ask_whether_to_test(self, request: HttpRequest, names: list[str], back: str) -> HttpResponse:
        request.current_app = self.admin_site.name
        text = _("Everybody who gets alerts gets a test message now, whatever the hour: %(names)s.")
        context = {
            **self.admin_site.each_context(request),
            "title": _("Send a test alert"),
            "opts": self.opts,
            "change_url": back,
            "media": self.media,
            "texts": [text % {"names": ", ".join(names)}],
            "yes": _("Yes, send it"),
            "action": request.path,
        }
        return TemplateResponse(request, "admin/wechat_token/account/confirm.html", context)
