"""What people do to a token by hand: refresh it, read it in clear. POST only, own permissions (S4)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from .. import clock
from ..client_keys import reads
from ..client_keys.networks import client_address
from ..conf import get_settings
from ..engine import Crowded, NotYet, Reason, refresh_each, refresh_now, schedule
from ..exceptions import EncryptionKeyError, WeChatTokenError
from ..models import ACCESS_TOKEN, Account, Token
from . import words
from .panel import report

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Account]
else:
    _ModelAdmin = admin.ModelAdmin

logger = logging.getLogger("wechat_token.admin")


class TokenViews(_ModelAdmin):
    """A part of :class:`~wechat_token.admin.accounts.AccountAdmin`."""

    actions = ("refresh_selected",)

    def get_urls(self) -> list[URLPattern]:
        def wrap(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
            return update_wrapper(self.admin_site.admin_view(view), view)

        return [
            path("<path:object_id>/refresh/", wrap(self.refresh_view), name=self._url_name("refresh")),
            path("<path:object_id>/reveal/", wrap(self.reveal_view), name=self._url_name("reveal")),
            *super().get_urls(),
        ]

    def _url_name(self, view: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{view}"

    def url(self, request: HttpRequest, view: str, pk: int) -> str:
        """The URL of an account's view, with the filters of the list the person came from."""
        url = reverse(f"{self.admin_site.name}:{self._url_name(view)}", args=(quote(pk),))
        return add_preserved_filters({"preserved_filters": self.get_preserved_filters(request), "opts": self.opts}, url)

    # -- permissions -------------------------------------------------------------------------------

    def has_refresh_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("wechat_token.refresh_token")

    def has_reveal_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("wechat_token.reveal_token")

    def _account(self, request: HttpRequest, object_id: str) -> Account:
        """The account, for somebody who may see it. Raises ``PermissionDenied`` or ``Http404``."""
        account = self.get_object(request, unquote(object_id))
        if not self.has_view_permission(request, account):
            raise PermissionDenied
        if account is None:
            raise Http404
        return account

    # -- refresh now -------------------------------------------------------------------------------

    # Not atomic: a refresh commits at once, and a transaction of ours would keep it waiting on SQLite (R3).
    @method_decorator(require_POST)
    @transaction.non_atomic_requests
    def refresh_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Refresh one token now; the result is told in a message on the account's page."""
        if not self.has_refresh_permission(request):
            raise PermissionDenied
        account = self._account(request, object_id)
        level, text = _refresh_one(account, _kind(request), client=request.user.get_username())
        self.message_user(request, text, level)
        return HttpResponseRedirect(self.url(request, "change", account.pk))

    @admin.action(permissions=["refresh"], description=gettext_lazy("Refresh the tokens of the selected accounts now"))
    def refresh_selected(self, request: HttpRequest, queryset: QuerySet[Account]) -> None:
        most = 2 * get_settings().batch_threads  # two rounds of the pool: the browser waits for the answer
        accounts = list(queryset[: most + 1])
        if len(accounts) > most:
            text = ngettext(
                "Select %d account at most. Beat renews the tokens that are due by itself.",
                "Select %d accounts at most. Beat renews the tokens that are due by itself.",
                most,
            )
            self.message_user(request, text % most, messages.ERROR)
            return
        seen = [account for account in accounts if self.has_view_permission(request, account)]
        active = [account for account in seen if account.is_active]
        if len(active) < len(accounts):
            left_out = len(accounts) - len(active)
            text = ngettext(
                "%d account was left out: it is inactive, or not yours.",
                "%d accounts were left out: they are inactive, or not yours.",
                left_out,
            )
            self.message_user(request, text % left_out, messages.WARNING)
        rows = Token.objects.filter(account__in=active).order_by("account__ref", "kind")
        in_use = rows.exclude(due_at=None, asked_at__isnull=False)
        keys = {(account.ref, ACCESS_TOKEN): None for account in active}
        keys |= dict.fromkeys(in_use.values_list("account__ref", "kind"))
        outcomes = refresh_each(keys, reason=Reason.ADMIN, client=request.user.get_username())
        for level, text in words.told_of_many(outcomes):
            self.message_user(request, text, level)

    # -- read in clear -----------------------------------------------------------------------------

    # Not atomic: it is on record whatever becomes of the request; and see above.
    @method_decorator(require_POST)
    @transaction.non_atomic_requests
    def reveal_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the stored token once, in the body of this answer alone; who did so is on record first."""
        if not self.has_reveal_permission(request):
            raise PermissionDenied
        account = self._account(request, object_id)
        token = Token.objects.select_related("account").filter(account=account, kind=_kind(request)).first()
        if token is None or not token.version or not _is_readable(token):
            text = (
                _("The stored token cannot be read: the key it was encrypted with is not configured.")
                if token is not None and token.version
                else _("There is no token yet.")
            )
            self.message_user(request, text, messages.ERROR)
            return HttpResponseRedirect(self.url(request, "change", account.pk))
        self.log_change(request, account, _("Token revealed."))
        reads.revealed(
            token.value, user=request.user.get_username(), ref=account.ref, kind=token.kind, version=token.version,
            address=str(client_address(request, get_settings().trusted_proxies) or ""),
        )  # fmt: skip
        now = clock.now()
        request.current_app = self.admin_site.name
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": _("Token in clear"),
            "subtitle": str(account),
            "opts": self.opts,
            "original": account,
            "change_url": self.url(request, "change", account.pk),
            "media": self.media,
            "value": token.value,  # still wrapped: the template unwraps it as it writes
            "report": report(token, now),
            "usable_until": words.moment(report(token, now).usable_until, now),
        }
        return TemplateResponse(request, "admin/wechat_token/account/reveal.html", context)


def _kind(request: HttpRequest) -> str:
    """Which of the account's credentials is meant."""
    return request.POST.get("kind") or ACCESS_TOKEN


def _is_readable(token: Token) -> bool:
    try:
        token.value.reveal()
    except EncryptionKeyError:
        return False
    return True


def _refresh_one(account: Account, kind: str, *, client: str) -> tuple[int, str]:
    """Refresh and say what came of it: message level and text."""
    values = {"appid": account.ref}
    if not account.is_active:
        return messages.ERROR, _("Account %(appid)s is inactive. Activate it first.") % values
    try:
        outcome = refresh_now((account.ref, kind), Reason.ADMIN, client)
    except EncryptionKeyError:
        return messages.ERROR, _(
            "The AppSecret of %(appid)s cannot be read: the key it was encrypted with is not configured. "
            "Put the key back, or enter the AppSecret again."
        ) % values
    except (Crowded, NotYet) as exc:
        values["why"] = str(exc)
        return messages.WARNING, _("The refresh of %(appid)s is not finished yet: %(why)s. Reload in a while.") % values
    except (WeChatTokenError, DatabaseError) as exc:
        # The type only: the text of a database error may hold anything (S2).
        logger.warning("Refresh by hand failed: account=%s %s", account.ref, type(exc).__name__)
        return messages.ERROR, _("Account %(appid)s could not be refreshed. The server's log has the cause.") % values
    now = clock.now()
    end = schedule.usable_until(outcome.token, get_settings().overlap)
    left = max((end - now).total_seconds(), 0.0) if end is not None else 0.0
    return words.told(outcome, account.ref, now, left)
