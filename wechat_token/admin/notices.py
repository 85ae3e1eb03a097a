"""What is said above the pages: what is wrong with this site, by cause, from the one truth in :mod:`diagnosis`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from django.db import DatabaseError, InterfaceError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from .. import clock, process
from ..diagnosis import facts
from ..diagnosis.evidence import Facts
from ..diagnosis.problems import problems
from ..engine import in_test_case
from ..models import Account, Token

if TYPE_CHECKING:
    from django.contrib import admin

KEPT: Final = 5.0  # seconds for which a process need not read it again

_seen: dict[str, tuple[float, Facts]]  # until when it holds (monotonic)
process.keep(globals(), _seen=dict)


def of_accounts(site: admin.AdminSite, accounts: QuerySet[Account]) -> dict[str, object]:
    """For the context of a page about all ``accounts``: the causes of what is wrong with them, and with the site."""
    query = accounts.query
    if query.where or query.is_sliced or query.combinator:  # this person sees some of them, and hears of these alone
        return _context(site, facts.collect(Token.objects.filter(account__in=accounts.order_by().values("pk"))))
    return _context(site, _read("accounts", facts.collect))


def of_site(site: admin.AdminSite) -> dict[str, object]:
    """For the context of a page about one account: what is wrong with the site itself."""
    return _context(site, _read("site", facts.of_site))


def _read(name: str, look: Callable[[], Facts]) -> Facts:
    held_until, seen = _seen.get(name, (0.0, None))
    now = clock.monotonic()
    if seen is None or not now < held_until <= now + KEPT or in_test_case():
        seen = look()
        _seen[name] = (now + KEPT, seen)
    return seen


def _context(site: admin.AdminSite, seen: Facts) -> dict[str, object]:
    return {"problems": problems(seen), "tasks_url": _tasks_url(site)}


def of_index(site: admin.AdminSite, request: HttpRequest) -> dict[str, object]:
    """As :func:`of_accounts`, on a page that is not ours and has to come up whatever becomes of us; nothing where the
    site does not have the accounts.
    """
    if not site.is_registered(Account):
        return {"problems": []}
    try:
        return of_accounts(site, site.get_model_admin(Account).get_queryset(request))
    except (DatabaseError, InterfaceError):
        return {"problems": []}


def _tasks_url(site: admin.AdminSite) -> str:
    """Where the periodic tasks are switched on; '' where this site does not have them."""
    try:
        return reverse(f"{site.name}:django_celery_beat_periodictask_changelist")
    except NoReverseMatch:
        return ""
