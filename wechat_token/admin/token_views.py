"""What people do by hand: refresh a token, force a new one, clear WeChat's counters, read a token in clear.

POST only, own permissions (S4). What costs others something asks first; the page that asks is the answer to a POST,
too, and the second POST says ``confirmed``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import update_wrapper, wraps
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import clock
from ..client_keys import reads
from ..client_keys.networks import client_address
from ..conf import get_settings
from ..engine import Crowded, NotYet, Reason, clear_quota, refresh_each, refresh_now, schedule
from ..exceptions import EncryptionKeyError, UpstreamError, WeChatTokenError
from ..models import ACCESS_TOKEN, Account, Token
from ..platforms import platforms, source_for
from . import words
from .panel import report

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Account]
else:
    _ModelAdmin = admin.ModelAdmin

logger = logging.getLogger("wechat_token.admin")


View = Callable[["TokenViews", HttpRequest, str], HttpResponse]


def posted(view: View) -> View:
    """POST alone does something. Whose session had ended comes from the login by GET: back to the account's page, with
    a word about it, instead of an error.
    """

    @wraps(view)
    def guarded(self: TokenViews, request: HttpRequest, object_id: str) -> HttpResponse:
        if request.method == "POST":
            return view(self, request, object_id)
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["POST"])
        account = self._account(request, object_id)
        text = _("Nothing was done: you had been logged out in between. Press the button again.")
        self.message_user(request, text, messages.WARNING)
        return HttpResponseRedirect(self.url(request, "change", account.pk))

    return guarded


class TokenViews(_ModelAdmin):
    """A part of :class:`~wechat_token.admin.accounts.AccountAdmin`."""

    actions = ("refresh_selected",)

    def get_urls(self) -> list[URLPattern]:
        def wrap(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
            return update_wrapper(self.admin_site.admin_view(view), view)

        return [
            path("<path:object_id>/refresh/", wrap(self.refresh_view), name=self._url_name("refresh")),
            path("<path:object_id>/force/", wrap(self.force_view), name=self._url_name("force")),
            path("<path:object_id>/clear-quota/", wrap(self.clear_quota_view), name=self._url_name("clear_quota")),
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
    @transaction.non_atomic_requests
    @posted
    def refresh_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Refresh one token now; the result is told in a message on the account's page."""
        if not self.has_refresh_permission(request):
            raise PermissionDenied
        account = self._account(request, object_id)
        return self._refreshed(request, account, forced=False)

    @transaction.non_atomic_requests
    @posted
    def force_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A new token although the old one is good, once a person has read what that does to others (R9)."""
        if not self.has_refresh_permission(request):
            raise PermissionDenied
        account = self._account(request, object_id)
        if "confirmed" in request.POST:
            self.log_change(request, account, _("Token renewed by force."))
            return self._refreshed(request, account, forced=True)
        texts, may = _about_forcing(account, _kind(request, account))
        return self._ask(request, account, "force", _("Force a new token"), texts, _("Yes, force it"), may=may)

    def _refreshed(self, request: HttpRequest, account: Account, *, forced: bool) -> HttpResponse:
        level, text = _refresh_one(account, _kind(request, account), client=request.user.get_username(), forced=forced)
        self.message_user(request, text, level)
        return HttpResponseRedirect(self.url(request, "change", account.pk))

    # -- clear WeChat's counters -------------------------------------------------------------------

    @transaction.non_atomic_requests
    @posted
    def clear_quota_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """WeChat's counters of the day to zero, once a person has read how often that may be done (R16)."""
        if not self.has_refresh_permission(request):
            raise PermissionDenied
        account = self._account(request, object_id)
        if "confirmed" not in request.POST:
            title, yes = _("Clear WeChat's counters of calls"), _("Yes, clear them")
            return self._ask(request, account, "clear_quota", title, _about_clearing(account), yes)
        self.log_change(request, account, _("Asked WeChat to clear the quota."))
        logger.warning("Quota cleared by hand: account=%s user=%s", account.ref, request.user.get_username())
        level, text = _clear(account)
        self.message_user(request, text, level)
        return HttpResponseRedirect(self.url(request, "change", account.pk))

    def _ask(
        self, request: HttpRequest, account: Account, view: str, title: str, texts: list[str], yes: str, *,
        may: bool = True,
    ) -> HttpResponse:  # fmt: skip
        request.current_app = self.admin_site.name
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": title,
            "subtitle": str(account),
            "opts": self.opts,
            "original": account,
            "change_url": self.url(request, "change", account.pk),
            "media": self.media,
            "texts": texts,
            "yes": yes if may else "",
            "action": self.url(request, view, account.pk),
            "kind": _kind(request, account),
        }
        return TemplateResponse(request, "admin/wechat_token/account/confirm.html", context)

    # -- several at once ---------------------------------------------------------------------------

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
    @transaction.non_atomic_requests
    @posted
    def reveal_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the stored token once, in the body of this answer alone; who did so is on record first."""
        if not self.has_reveal_permission(request):
            raise PermissionDenied
        account = self._account(request, object_id)
        token = Token.objects.select_related("account").filter(account=account, kind=_kind(request, account)).first()
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


def _is_readable(token: Token) -> bool:
    try:
        token.value.reveal()
    except EncryptionKeyError:
        return False
    return True


def _kind(request: HttpRequest, account: Account) -> str:
    """Which of the account's credentials is meant. Raises ``Http404`` for one that its platform has not."""
    kind = request.POST.get("kind") or ACCESS_TOKEN
    installed = platforms().get(account.platform)
    if installed is None or kind not in installed.kinds:
        raise Http404
    return kind


def _refresh_one(account: Account, kind: str, *, client: str, forced: bool) -> tuple[int, str]:
    """Refresh and say what came of it: message level and text."""
    values = {"appid": account.ref}
    if not account.is_active:
        return messages.ERROR, _("Account %(appid)s is inactive. Activate it first.") % values
    try:
        outcome = refresh_now((account.ref, kind), Reason.ADMIN, client, forced=forced)
    except EncryptionKeyError:
        return messages.ERROR, _unreadable(account)
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
    return words.told(outcome, account.ref, now, left, forced=forced)


def _unreadable(account: Account) -> str:
    return _(
        "The AppSecret of %(appid)s cannot be read: the key it was encrypted with is not configured. "
        "Put the key back, or enter the AppSecret again."
    ) % {"appid": account.ref}


def _about_forcing(account: Account, kind: str) -> tuple[list[str], bool]:
    """What a forced refresh costs, and whether one may leave now."""
    texts = [
        _(
            "The token in hand ends at once. Services that read it here get the new one within a second; whoever "
            "holds the old one gets errors until they read it again, and other systems with this AppSecret do, too."
        )
    ]
    token = Token.objects.select_related("account").filter(account=account, kind=kind).first()
    source = source_for(account.platform, kind)
    rule = source.forced_refresh(account)
    if token is None or rule is None:
        return texts, True
    now = clock.now()
    endpoint = source.endpoint(account, forced=True)
    used = schedule.calls_today(token, endpoint, now)
    texts.append(
        _(
            "WeChat grants %(limit)d forced refreshes a day, %(gap)d seconds apart; %(used)d of today's are used. "
            "They are also what heals a token that WeChat refuses and yet hands out again: keep some."
        )
        % {"limit": rule.per_day, "gap": rule.min_gap, "used": used}
    )
    allowed_at = schedule.forced_refresh_allowed_at(token, rule, endpoint, now)
    if allowed_at > now:
        texts.append(_("None may leave now; the next at %(time)s.") % {"time": words.clock_time(allowed_at)})
    return texts, allowed_at <= now


def _about_clearing(account: Account) -> list[str]:
    texts = [
        _(
            "WeChat sets today's counters of all this account's calls to zero, those of other systems included. It "
            "grants this ten times a month: by the console's button, by this one and by other systems together. How "
            "many are left it does not tell."
        ),
        _(
            "First find what used them up, or they will be used up again: another system that asks in a loop, or a "
            "service that complains without need. The refresh log and the counts of readers say which."
        ),
    ]
    if account.quota_cleared_at is not None:
        texts.append(_("Last done from here: %(time)s.") % {"time": words.clock_time(account.quota_cleared_at)})
    return texts


def _clear(account: Account) -> tuple[int, str]:
    values = {"appid": account.ref}
    try:
        if not clear_quota(account):
            return messages.INFO, _("WeChat was asked to clear the counters of %(appid)s a moment ago.") % values
    except EncryptionKeyError:
        return messages.ERROR, _unreadable(account)
    except UpstreamError as exc:
        return words.told_of_clearing(exc, account)
    except (WeChatTokenError, LookupError) as exc:
        return messages.ERROR, str(exc)
    except DatabaseError as exc:
        logger.warning("Own counters not cleared: account=%s %s", account.ref, type(exc).__name__)
        return messages.WARNING, _(
            "WeChat has cleared the counters of %(appid)s, but the database did not take it here. Refresh the token."
        ) % values
    return words.told_of_clearing(None, account)
