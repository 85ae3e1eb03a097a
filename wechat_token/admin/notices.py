"""What is said above the pages because it concerns the whole site: nobody renews, a host fails, a copied database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.urls import NoReverseMatch, reverse

from .. import beat, checks, clock
from ..diagnosis import hosts

if TYPE_CHECKING:
    from django.contrib import admin


def tick_notice(site: admin.AdminSite) -> dict[str, str] | None:
    """What is wrong with the periodic renewal, and where to mend it; None if nothing is (R7). One query."""
    if not beat.is_installed() or beat.is_scheduled_in_settings():
        return None
    ticks = beat.ticks()
    if any(tick.enabled for tick in ticks):
        return None
    try:
        url = reverse(f"{site.name}:django_celery_beat_periodictask_changelist")
    except NoReverseMatch:
        url = ""
    return {"kind": "disabled" if ticks else "missing", "url": url}


def site_notices() -> dict[str, object]:
    """For the context of a page. Two queries."""
    return {"host_problems": hosts.problems(clock.now()), "is_copy": checks.database_is_copy()}
