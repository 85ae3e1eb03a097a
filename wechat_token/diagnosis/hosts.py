"""What the hosts of this site say keeps them from working (R31): a missing key, a wrong setting."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from django.utils.translation import gettext as _

from ..models import Host

SEEN_WITHIN: Final = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class HostProblem:
    """``at``: when it was last met, None if the row does not tell."""

    host: str
    text: str
    at: dt.datetime | None

    def __str__(self) -> str:
        return _("Host %(host)s: %(problem)s") % {"host": self.host, "problem": self.text}


def problems(now: dt.datetime) -> list[HostProblem]:
    """Of hosts that were seen within a day. One query."""
    rows = Host.objects.filter(seen_at__gt=now - SEEN_WITHIN).exclude(problems={}).order_by("name")
    return [
        HostProblem(host.name, *_parted(text))
        for host in rows
        if isinstance(host.problems, dict)  # somebody may have edited the row
        for _kind, text in sorted(host.problems.items())
        if isinstance(text, str)
    ]


def _parted(text: str) -> tuple[str, dt.datetime | None]:
    """The engine writes the time before the text."""
    first, _blank, rest = text.partition(" ")
    try:
        at = dt.datetime.fromisoformat(first)
    except ValueError:
        return text, None
    return rest, at if at.tzinfo is not None else None
