"""What is said above the pages because it concerns the whole site: nobody renews, a host fails, a copied database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.urls import NoReverseMatch, reverse

from .. import checks
from ..diagnosis import facts, problems

if TYPE_CHECKING:
    from django.contrib import admin


def site_notices(site: admin.AdminSite | None = None) -> dict[str, object]:
    """For the context of a page. With ``site`` also what is wrong with the periodic renewal, and where to mend it (R7).
    Two queries, or three.
    """
    seen = facts.of_hosts(ticks=site is not None)
    found = [problem for problem in problems.problems(seen) if problem.id != "tick-off"]
    notices: dict[str, object] = {
        "host_problems": [problem.text for problem in found],
        "is_copy": checks.database_is_copy(),
    }
    if site is not None:
        notices["tick_notice"] = {"kind": seen.tick, "url": _url_of_tasks(site)} if seen.tick else None
    return notices


def _url_of_tasks(site: admin.AdminSite) -> str:
    try:
        return reverse(f"{site.name}:django_celery_beat_periodictask_changelist")
    except NoReverseMatch:
        return ""
