"""A client key's page: its use by day, a line to try it with, and how it is replaced while services go on (S3)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import clock
from ..client_keys import keys
from ..client_keys.readers import days
from ..client_keys.scopes import Scope
from ..engine import schedule
from ..models import Account, ClientKey

if TYPE_CHECKING:
    from ..redaction import Secret

    _ModelAdmin = admin.ModelAdmin[ClientKey]
else:
    _ModelAdmin = admin.ModelAdmin

# How long the old key goes on, by what the form says.
ENDS: Final = {
    "1h": (dt.timedelta(hours=1), gettext_lazy("in 1 hour")),
    "1d": (dt.timedelta(days=1), gettext_lazy("in 1 day")),
    "7d": (dt.timedelta(days=7), gettext_lazy("in 7 days")),
    "30d": (dt.timedelta(days=30), gettext_lazy("in 30 days")),
}
USUAL_END: Final = "7d"


class KeyViews(_ModelAdmin):
    """A part of :class:`~wechat_token.admin.client_keys.ClientKeyAdmin`."""

    def get_urls(self) -> list[URLPattern]:
        def wrap(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
            return update_wrapper(self.admin_site.admin_view(view), view)

        name = f"{self.opts.app_label}_{self.opts.model_name}_replace"
        return [path("<path:object_id>/replace/", wrap(self.replace_view), name=name), *super().get_urls()]

    def page_url(self, view: str, *args: object) -> str:
        return reverse(f"{self.admin_site.name}:wechat_token_clientkey_{view}", args=args)

    def seen_accounts(self, request: HttpRequest) -> QuerySet[Account]:
        """The accounts that this person sees in this admin."""
        if self.admin_site.is_registered(Account):
            account_admin = self.admin_site.get_model_admin(Account)
            if account_admin.has_view_permission(request):
                return account_admin.get_queryset(request)
        return Account.objects.none()

    def _line_to_try(self, request: HttpRequest, key: ClientKey) -> str:
        """With an account that the key opens and this person sees; '' where there is none."""
        seen = self.seen_accounts(request)
        found = seen.filter(is_active=True) if key.all_accounts else key.accounts.filter(pk__in=seen.values("pk"))
        account = found.only("ref").first()
        return _curl(request, account.ref) if account is not None else ""

    def has_replace_permission(self, request: HttpRequest, key: ClientKey) -> bool:
        """To make a key is to read what it reads: that takes the permission to (S9)."""
        return (
            self.has_add_permission(request)
            and self.has_change_permission(request, key)
            and request.user.has_perm("wechat_token.reveal_token")
            and key.is_live(clock.now())
        )

    def use_of(self, request: HttpRequest, key: ClientKey) -> dict[str, Any]:
        """For the context of the key's page. Two queries."""
        return {
            "days": days(key, dt.date.fromisoformat(schedule.beijing_day(clock.now()))),
            "curl": self._line_to_try(request, key),
            "replace_url": self.page_url("replace", quote(key.pk)) if self.has_replace_permission(request, key) else "",
        }

    def replace_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Make the successor of a key once a person has said how long the old one goes on. POST only (S4)."""
        key = self.get_object(request, unquote(object_id))
        if key is None:
            raise Http404
        if request.method != "POST":
            if request.method not in ("GET", "HEAD"):
                return HttpResponseNotAllowed(["POST"])
            text = _("Nothing was done: you had been logged out in between. Press the button again.")
            self.message_user(request, text, messages.WARNING)
            return HttpResponseRedirect(self.page_url("change", quote(key.pk)))
        if not self.has_replace_permission(request, key):
            raise PermissionDenied
        end = ENDS.get(request.POST.get("ends", ""))
        if end is None:
            return self._ask_when(request, key)
        ends_at = clock.now() + end[0]
        try:
            heir, plain = keys.succeed(key, ends_at=ends_at, by=request.user.get_username())
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), messages.ERROR)
            return HttpResponseRedirect(self.page_url("change", quote(key.pk)))
        self.log_change(request, key, _("Replaced by %(key)s.") % {"key": heir})
        made = _("Made in the place of %(key)s. %(scope)s") % {"key": key, "scope": Scope.of(heir)}
        self.log_addition(request, heir, made)  # the record names the scope, whole (S9)
        key.refresh_from_db(fields=["expires_at"])
        return self.shown_once(request, heir, plain, former=key)

    def _ask_when(self, request: HttpRequest, key: ClientKey) -> HttpResponse:
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "title": _("Replace a client key"),
            "subtitle": str(key),
            "opts": self.opts,
            "original": key,
            "change_url": self.page_url("change", quote(key.pk)),
            "ends": [(value, label, value == USUAL_END) for value, (_delta, label) in ENDS.items()],
            "media": self.media,
        }
        return TemplateResponse(request, "admin/wechat_token/clientkey/replace.html", context)

    def shown_once(
        self, request: HttpRequest, key: ClientKey, value: Secret, *, former: ClientKey | None = None
    ) -> HttpResponse:
        """The one page that shows the key. Not a message: those travel in a cookie."""
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "title": _("The new client key"),
            "subtitle": key.name,
            "opts": self.opts,
            "key": key,
            "value": value,
            "former": former,
            "reads_nothing": not key.all_accounts and not key.accounts.exists(),
            "curl": self._line_to_try(request, key),
            "change_url": self.page_url("change", quote(key.pk)),
            "media": self.media,
        }
        return TemplateResponse(request, "admin/wechat_token/clientkey/created.html", context)


def _curl(request: HttpRequest, appid: str) -> str:
    """A line to try a key with; '' where the service is not mounted. The key stays out of it, and of the history."""
    try:
        url = reverse("wechat_token:access_token", args=[appid])
    except NoReverseMatch:
        return ""
    return f'curl -H "Authorization: Bearer $WECHAT_TOKEN_KEY" {request.build_absolute_uri(url)}'
