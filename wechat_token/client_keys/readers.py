"""Who reads what, from the counts by key and day that :mod:`wechat_token.client_keys.usage` writes down."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from django.db.models import Max, Q, Sum
from django.db.models.functions import Coalesce

from ..models import ClientKey, KeyUsage

DAYS: Final = 7
READERS_SHOWN: Final = 50


@dataclass(frozen=True, slots=True)
class Reader:
    """One client key's use of an account. The figures of ``DAYS`` days, of Beijing, today included."""

    key_id: int
    name: str
    prefix: str
    is_live: bool
    reads_today: int
    reads: int
    complaints: int
    last_day: dt.date


@dataclass(frozen=True, slots=True)
class Day:
    """One day of a key. ``share``: its reads in per cent of the busiest day's."""

    day: dt.date
    reads: int
    complaints: int
    refusals: int
    share: float


def readers(appid: str, today: dt.date, now: dt.datetime) -> list[Reader]:
    """Who read this account lately, most first. One query, by index."""
    rows = (
        KeyUsage.objects.filter(appid=appid, day__gt=today - dt.timedelta(days=DAYS))
        .order_by()
        .values("key_id", "key__name", "key__prefix", "key__revoked_at", "key__expires_at")
        .annotate(
            all_reads=Sum("reads"),
            all_complaints=Sum("complaints"),
            last=Max("day"),
            today=Coalesce(Sum("reads", filter=Q(day=today)), 0),
        )
        .order_by("-all_reads", "key_id")[:READERS_SHOWN]
    )
    return [
        Reader(
            row["key_id"], row["key__name"], row["key__prefix"],
            ClientKey(revoked_at=row["key__revoked_at"], expires_at=row["key__expires_at"]).is_live(now),
            row["today"], row["all_reads"], row["all_complaints"], row["last"],
        )
        for row in rows
    ]  # fmt: skip


def days(key: ClientKey, today: dt.date, *, most: int = 14) -> list[Day]:
    """A key's use by day, newest first, the days without any included. One query."""
    since = today - dt.timedelta(days=most - 1)
    sums = {
        row["day"]: row
        for row in KeyUsage.objects.filter(key=key, day__gte=since)
        .order_by()
        .values("day")
        .annotate(r=Sum("reads"), c=Sum("complaints"), f=Sum("refusals"))
    }
    highest = max((row["r"] for row in sums.values()), default=0) or 1
    found = []
    for back in range(most):
        day = today - dt.timedelta(days=back)
        row = sums.get(day, {"r": 0, "c": 0, "f": 0})
        found.append(Day(day, row["r"], row["c"], row["f"], 100 * row["r"] / highest))
    return found
