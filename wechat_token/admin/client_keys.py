"""Client keys in the admin (S3): shown once when made, revoked by a confirmed POST, never shown again.

Whoever makes or widens a key can read what it reads. So that takes the permission to read tokens in clear, and covers
the accounts that this person sees in the list of accounts, no others (S9). A key that covers more they cannot edit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import clock
from ..client_keys import keys, scopes
from ..client_keys.scopes import Scope
from ..forms import ClientKeyForm
from ..models import ClientKey, KeyUsage, Reading
from . import words
from .key_views import KeyViews
from .lists import KeyStateFilter

if TYPE_CHECKING:
    import datetime as dt

    _ModelAdmin = admin.ModelAdmin[ClientKey]
else:
    _ModelAdmin = admin.ModelAdmin

ACCOUNTS_SHOWN = 3
NOTHING = "–"
RECORD = ("key_start", "state", "last_used", "created", "revoked")


@admin.register(ClientKey)
class ClientKeyAdmin(KeyViews, _ModelAdmin):
    form = ClientKeyForm
    actions = ("revoke",)
    autocomplete_fields = ("accounts",)
    list_display = (
        "name", "key_start", "state", "which_accounts", "rights", "from_networks", "expires",
        "last_used",
    )  # fmt: skip
    list_filter = (KeyStateFilter, "may_read", "may_refresh", "all_accounts")
    search_fields = ("name", "prefix")
    show_full_result_count = False

    class Media:
        css: ClassVar = {"all": ["wechat_token/admin.css"]}

    # -- the list ----------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[ClientKey]:
        first = self.seen_accounts(request).only("ref").order_by("ref")[:ACCOUNTS_SHOWN]
        return (
            super()
            .get_queryset(request)
            .defer("digest")
            .annotate(account_count=Count("accounts"))
            .prefetch_related(Prefetch("accounts", queryset=first, to_attr="first_accounts"))
        )

    # -- who may grant what ------------------------------------------------------------------------

    def sees_every_account(self, request: HttpRequest) -> bool:
        """Also those that are added later: the list of accounts is cut for this person by nothing."""
        query = self.seen_accounts(request).query
        return not (query.where or query.is_sliced or query.combinator)

    def has_grant_permission(self, request: HttpRequest) -> bool:
        """A key reads tokens for whoever made it."""
        return request.user.has_perm("wechat_token.reveal_token")

    def _may_edit(self, request: HttpRequest, key: ClientKey) -> bool:
        if self.sees_every_account(request):
            return True
        unseen = key.accounts.exclude(pk__in=self.seen_accounts(request).values("pk"))
        return not key.all_accounts and not unseen.exists()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return super().has_add_permission(request) and self.has_grant_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: ClientKey | None = None) -> bool:
        return super().has_delete_permission(request, obj) and (obj is None or self._may_edit(request, obj))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return not lookup.startswith("digest") and super().lookup_allowed(lookup, value, request)

    @admin.display(description=gettext_lazy("key"), ordering="prefix")
    def key_start(self, key: ClientKey) -> SafeString:
        return format_html("<code>{}…</code>", key.prefix)

    @admin.display(description=gettext_lazy("state"))
    def state(self, key: ClientKey) -> SafeString:
        if key.revoked_at is not None:
            css, label = "inactive", _("revoked")
        elif key.is_live(clock.now()):
            css, label = "good", _("live")
        else:
            css, label = "dead", _("expired")
        return format_html('<span class="wt-state wt-{}">{}</span>', css, label)

    @admin.display(description=gettext_lazy("accounts"))
    def which_accounts(self, key: ClientKey) -> str:
        if key.all_accounts:
            return _("all")
        first = [account.ref for account in key.first_accounts]  # type: ignore[attr-defined]  # prefetched
        shown = ", ".join(first)
        more = key.account_count - len(first)  # type: ignore[attr-defined]  # annotated
        if more > 0:
            return ngettext("%(shown)s and %(more)d more", "%(shown)s and %(more)d more", more) % {
                "shown": shown,
                "more": more,
            }
        return shown or _("none")

    @admin.display(description=gettext_lazy("rights"), ordering="may_refresh")
    def rights(self, key: ClientKey) -> str:
        rights = _("read, complain") if key.may_refresh else _("read")
        if key.may_read == Reading.EVERYTHING:
            return rights
        return f"{rights} ({Reading(key.may_read).label})"

    @admin.display(description=gettext_lazy("networks"))
    def from_networks(self, key: ClientKey) -> str:
        first, *rest = key.networks.split() or [_("anywhere")]
        if not rest:
            return first
        return ngettext("%(shown)s and %(more)d more", "%(shown)s and %(more)d more", len(rest)) % {
            "shown": first,
            "more": len(rest),
        }

    @admin.display(description=gettext_lazy("expires"), ordering="expires_at")
    def expires(self, key: ClientKey) -> SafeString | str:
        return _moment(key.expires_at)

    @admin.display(description=gettext_lazy("last used"), ordering="last_used_at")
    def last_used(self, key: ClientKey) -> SafeString | str:
        return _moment(key.last_used_at)

    @admin.display(description=gettext_lazy("created"), ordering="created_at")
    def created(self, key: ClientKey) -> SafeString | str:
        return _moment(key.created_at)

    @admin.display(description=gettext_lazy("revoked"), ordering="revoked_at")
    def revoked(self, key: ClientKey) -> SafeString | str:
        return _moment(key.revoked_at)

    # -- the form ----------------------------------------------------------------------------------

    def get_fieldsets(self, request: HttpRequest, obj: ClientKey | None = None) -> Any:
        editable = obj is None or self.has_change_permission(request, obj)
        # Read-only, the field itself would name accounts that this person may not see.
        accounts = ("all_accounts", "accounts") if editable else ("which_accounts",)
        rights = ("name", *accounts, "may_read", "may_refresh", "networks", "expires_at")
        if obj is None:
            return [(None, {"fields": rights})]
        return [(None, {"fields": rights}), (_("Key"), {"fields": RECORD})]

    def get_readonly_fields(self, request: HttpRequest, obj: ClientKey | None = None) -> tuple[str, ...]:
        return (*RECORD, "which_accounts") if obj is not None else ()

    def get_form(self, request: HttpRequest, obj: ClientKey | None = None, change: bool = False, **kwargs: Any) -> Any:
        # Of this request alone: Django makes the class anew each time.
        form: Any = super().get_form(request, obj, change=change, **kwargs)
        form.may_grant = self.has_grant_permission(request)
        form.may_grant_all = self.sees_every_account(request)
        return form

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "accounts":
            kwargs["queryset"] = self.seen_accounts(request)
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def has_change_permission(self, request: HttpRequest, obj: ClientKey | None = None) -> bool:
        # A revoked key is a record: it stays as it was on the day.
        return super().has_change_permission(request, obj) and (
            obj is None or (obj.revoked_at is None and self._may_edit(request, obj))
        )

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        key: ClientKey | None = kwargs.get("obj")
        if key is not None:
            context |= self.use_of(request, key)
        if key is not None and self.has_change_permission(request, key):
            context["revoke_url"] = reverse(f"{self.admin_site.name}:wechat_token_clientkey_changelist")
            context["checkbox_name"] = ACTION_CHECKBOX_NAME
        return super().render_change_form(request, context, *args, **kwargs)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """A key's record of use goes with it, counted, not listed: it has a row for every account and day."""
        count = KeyUsage.objects.filter(key__in=objs).count()
        counts = {ClientKey._meta.verbose_name_plural: len(objs), KeyUsage._meta.verbose_name_plural: count}
        forbidden = not all(self.has_delete_permission(request, key) for key in objs)
        return [str(key) for key in objs], counts, {self.opts.verbose_name} if forbidden else set(), []

    def delete_model(self, request: HttpRequest, obj: ClientKey) -> None:
        self._tell_revoked(request, [obj])
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ClientKey]) -> None:
        self._tell_revoked(request, queryset)
        super().delete_queryset(request, queryset)

    def _tell_revoked(self, request: HttpRequest, going: Iterable[ClientKey]) -> None:
        """Said when the deletion is committed: to delete a key that lives is to revoke it."""
        for key in going:
            if key.revoked_at is None:
                scopes.tell("key_revoked", key, by=request.user.get_username())

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """It names every account that the key ever opened."""
        if not self.sees_every_account(request):
            raise PermissionDenied
        return super().history_view(request, object_id, extra_context)

    # -- adding ------------------------------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: ClientKey, form: Any, change: bool) -> None:
        if not change:
            # On the request alone: unlike this object it lives for one answer, in one thread.
            request.wechat_token_key = keys.assign(obj)  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        key, who = form.instance, request.user.get_username()
        scope = Scope.of(key)
        if not change:
            scopes.tell("key_made", key, by=who, scope=scope)
        elif scope.widens(form.former):
            scopes.tell("key_widened", key, by=who, scope=scope)

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> str:  # type: ignore[override]  # Django takes a string as well, as log_change() does
        """The record names the scope, whole, as it is from now on."""
        scope = Scope.of(form.instance)
        return _("Made. %s") % scope if add else _("Changed. %s") % scope

    def response_add(self, request: HttpRequest, obj: ClientKey, post_url_continue: str | None = None) -> HttpResponse:
        return self.shown_once(request, obj, request.wechat_token_key)  # type: ignore[attr-defined]  # set by save_model

    # -- revoking ----------------------------------------------------------------------------------

    @admin.action(permissions=["change"], description=gettext_lazy("Revoke the selected client keys"))
    def revoke(self, request: HttpRequest, queryset: QuerySet[ClientKey]) -> HttpResponse | None:
        """Asks first, then ends the keys for good. Both steps are POSTs to the list."""
        live = [key for key in queryset if self.has_change_permission(request, key)]
        if not live:
            self.message_user(
                request, _("None of these keys can be revoked; they may be so already."), messages.WARNING
            )
            return None
        if "confirmed" not in request.POST:
            return self._confirm_revoke(request, live)
        for key in live:
            key.revoked_at = clock.now()
            key.save(update_fields=["revoked_at"])
            self.log_change(request, key, _("Revoked."))
            scopes.tell("key_revoked", key, by=request.user.get_username())
        text = ngettext("%d client key was revoked.", "%d client keys were revoked.", len(live))
        self.message_user(request, text % len(live), messages.SUCCESS)
        return None

    def _confirm_revoke(self, request: HttpRequest, live: list[ClientKey]) -> HttpResponse:
        request.current_app = self.admin_site.name
        context = {
            **self.admin_site.each_context(request),
            "title": _("Revoke client keys"),
            "opts": self.opts,
            "live": live,
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "media": self.media,
        }
        return TemplateResponse(request, "admin/wechat_token/clientkey/revoke.html", context)


def _moment(at: dt.datetime | None) -> SafeString | str:
    return NOTHING if at is None else format_html('<span class="wt-nowrap">{}</span>', words.clock_time(at))
