"""What the rows say, read for :mod:`problems`: a constant number of queries, each by an index or rarely (R17)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from django.conf import settings as django_settings
from django.db import DatabaseError, InterfaceError
from django.db.models import Count, Min, Q

from .. import beat, checks, clock, process
from ..conf import get_settings
from ..engine import alias, complaints, in_test_case, lock_is_held, private, read, schedule
from ..models import Account, ClientKey, Endpoint, Host, Token
from ..platforms import platforms
from ..querysets import TokenQuerySet, usable
from . import problems, states
from .evidence import Database, Facts, Failing, Group, HostFact, KeyEnd, Quota

T = TypeVar("T")

OTHERS_REMEMBERED: Final = dt.timedelta(days=1)
KEY_IN_USE: Final = dt.timedelta(days=7)
HOSTS_READ: Final = 1000
GROUPS: Final = 50
COUNTED: Final = 1001
NEARLY: Final = 0.8  # of a day's calls
LEAST_LIMIT: Final = 50  # calls a day, of any account; a test account has 200
REST_FACTOR: Final = 50.0  # what reads a whole table takes 2 % of the time at most
TRIED_OFTEN: Final = 3  # failures in a row, from which a passing failure is worth a word near the token's end

_kept: dict[str, tuple[float, Any]]  # what is expensive to know: until when it holds (monotonic), and what it is
process.keep(globals(), _kept=dict)


def collect(tokens: TokenQuerySet | None = None) -> Facts:
    """Everything, of these tokens' accounts if any are named: a client sees its own. Raises database errors."""
    state = database()
    if state is not Database.OK:
        return Facts(clock.now(), database=state)
    return read(partial(_collect, tokens))


def of_site() -> Facts:
    """Of the site itself only, no account: a few queries, whatever its size. Raises database errors."""
    state = database()
    return read(_collect_site) if state is Database.OK else Facts(clock.now(), database=state)


def of_hosts(*, ticks: bool) -> Facts:
    """For a page: of the hosts only, and with ``ticks`` also whether they are silent. One query, or two."""
    now = clock.now()
    every, tick = _beat() if ticks else (None, "")
    rows = tuple(map(_host, Host.objects.order_by("name")[:HOSTS_READ]))
    return Facts(
        now, hosts=rows, every=every, tick=tick, waiting_since=now, drain_deadline=get_settings().drain_deadline,
        paused=get_settings().paused,
    )  # fmt: skip


def database() -> Database:
    """Whether the database takes writes, by an UPDATE of no row: nothing is changed."""
    try:
        with private():
            Host.objects.using(alias()).filter(pk=-1).update(tick_seconds=0.0)
    except (DatabaseError, InterfaceError) as exc:
        if lock_is_held(exc):
            return Database.OK
    else:
        return Database.OK
    try:
        with private():
            Host.objects.using(alias()).filter(pk=-1).exists()
    except (DatabaseError, InterfaceError):
        return Database.UNREACHABLE
    return Database.READ_ONLY


def _collect_site() -> Facts:
    now, settings = clock.now(), get_settings()
    every, tick = _remembered("tick", 5.0, _beat)
    return Facts(
        now,
        hosts=tuple(map(_host, Host.objects.order_by("name")[:HOSTS_READ])),
        every=every,
        tick=tick,
        waiting_since=Account.objects.active().order_by("pk").values_list("created_at", flat=True).first(),
        drain_deadline=settings.drain_deadline,
        paused=settings.paused,
        is_copy=checks.database_is_copy(),
    )


def _collect(mine: TokenQuerySet | None) -> Facts:
    site = _collect_site()
    now = site.now
    tokens = Token.objects.active() if mine is None else mine
    overdue = tokens.filter(failures=0, due_at__lt=now - schedule.seconds(states.OVERDUE_AFTER))
    found = list(overdue.order_by("due_at").values_list("due_at", "account__ref")[: problems.NAMED])
    return replace(
        site,
        failing=_failing(tokens, now),
        overdue=Group(overdue[:COUNTED].count() if len(found) == problems.NAMED else len(found), _names(found)),
        oldest_due=found[0][0] if found else None,
        others=_others(tokens, now),
        complained=_complained(tokens, now),
        quotas=_remembered("quotas", 0.0, partial(_quotas, now)) if mine is None else (),
        keys=_keys(now) if mine is None else (),
    )


def _remembered(name: str, seconds: float, look: Callable[[], T]) -> T:
    """What ``look`` tells; not asked again for ``seconds``, nor for many times of what it took."""
    kept = _kept.get(name)
    if kept is not None and clock.monotonic() < kept[0] and not in_test_case():
        found: T = kept[1]
        return found
    began = clock.monotonic()
    found = look()
    took = clock.monotonic() - began
    _kept[name] = clock.monotonic() + max(seconds, took * REST_FACTOR), found
    return found


def _host(row: Host) -> HostFact:
    oldest = row.seen_at - problems.HOST_IS_GONE
    told = {}
    for subject, problem in row.problems.items() if isinstance(row.problems, dict) else ():  # or somebody edited it
        text, at = _parted(problem)
        if text and (at is None or at >= oldest):
            told[subject] = text
    return HostFact(
        row.name, row.seen_at, beat_at=row.beat_at, worker_at=row.worker_at, ticked_at=row.ticked_at,
        tick_seconds=row.tick_seconds, problems=told,
    )  # fmt: skip


def _parted(problem: Any) -> tuple[str, dt.datetime | None]:
    """What one entry of a row says, '' if it makes no sense, and when it was last met, None if it does not tell."""
    if not isinstance(problem, dict) or not isinstance(problem.get("text"), str):
        return "", None
    try:
        at = dt.datetime.fromisoformat(problem["at"])
    except (KeyError, TypeError, ValueError):
        return problem["text"], None
    return problem["text"], at if at.tzinfo is not None else None


def beat_interval() -> float | None:
    """Seconds between ticks, as far as beat's own table or the settings tell."""
    return _remembered("tick", 5.0, _beat)[0]


def _beat() -> tuple[float | None, str]:
    """Seconds between ticks, None where that is not known, and what is wrong with the periodic task: '', 'missing' or
    'disabled'."""
    scheduled = _interval_in_settings()
    if scheduled or beat.is_scheduled_in_settings():
        return scheduled, ""
    if not beat.is_installed():
        return None, ""
    ticks = beat.ticks()
    enabled = [tick for tick in ticks if tick.enabled]
    if not enabled:
        return None, "disabled" if ticks else "missing"
    return min((tick.every for tick in enabled if tick.every is not None), default=None), ""


def _interval_in_settings() -> float | None:
    entries = getattr(django_settings, "CELERY_BEAT_SCHEDULE", None) or {}
    for entry in entries.values():
        if isinstance(entry, dict) and entry.get("task") == beat.TASK:
            every = entry.get("schedule")
            seconds = every.total_seconds() if isinstance(every, dt.timedelta) else every
            return float(seconds) if isinstance(seconds, int | float) else None
    return None


def _failing(tokens: TokenQuerySet, now: dt.datetime) -> tuple[Failing, ...]:
    living = usable(now, get_settings().overlap)
    near = Q(failures__gte=TRIED_OFTEN, expires_at__lt=now + schedule.seconds(schedule.ALERT_BEFORE_END)) & living
    failing = tokens.filter(failures__gt=0)
    columns = ("error_class", "errcode", "egress_ip", "account__platform", "kind")
    groups = failing.order_by().values(*columns).annotate(
        count=Count("pk"), alive=Count("pk", filter=living), near=Count("pk", filter=near),
        tried=Count("pk", filter=Q(failures__gte=TRIED_OFTEN)), alive_tried=Count(
            "pk", filter=Q(failures__gte=TRIED_OFTEN) & living),
        first_end=Min("expires_at", filter=living), example=Min("account__ref"),
        classic=Count("pk", filter=~Q(account__endpoint=Endpoint.STABLE)),
    ).order_by("-count")[:GROUPS]  # fmt: skip
    found = list(groups)
    examples: dict[tuple[Any, ...], list[str]] = {}
    if found:
        some = failing.order_by("-failures", "pk").values_list(*columns, "account__ref")
        for *cause, appid in some[: GROUPS * problems.NAMED]:
            examples.setdefault(tuple(cause), []).append(appid)
    return tuple(
        Failing(
            row["error_class"], row["errcode"], row["egress_ip"], row["count"],
            dead=row["count"] - row["alive"],
            late=row["near"] + row["tried"] - row["alive_tried"],
            examples=tuple(sorted({row["example"], *examples.get(tuple(row[name] for name in columns), ())})[
                : problems.NAMED]),
            first_end=row["first_end"], on_stable=not row["classic"],
            platform=row["account__platform"], kind=row["kind"],
        )
        for row in found
    )  # fmt: skip


def _names(found: Iterable[tuple[Any, str]]) -> tuple[str, ...]:
    return tuple(appid for _other, appid in found)


def _others(tokens: TokenQuerySet, now: dt.datetime) -> dict[str, Group]:
    seen = tokens.filter(foreign_at__gt=now - OTHERS_REMEMBERED)
    groups: dict[str, list[str]] = {}
    for endpoint, appid in seen.order_by("-foreign_at").values_list("account__endpoint", "account__ref")[:COUNTED]:
        groups.setdefault(endpoint, []).append(appid)
    return {name: Group(len(appids), tuple(appids[: problems.NAMED])) for name, appids in groups.items()}


def _complained(tokens: TokenQuerySet, now: dt.datetime) -> Group:
    lately = now - schedule.seconds(complaints.REFUSED_IS_NEWS)
    seen = tokens.filter(complaints_refused_at__gt=lately).values_list("account__ref", flat=True)
    appids = list(seen.order_by("-complaints_refused_at")[:COUNTED])
    return Group(len(appids), tuple(appids[: problems.NAMED]))


def _quotas(now: dt.datetime) -> tuple[Quota, ...]:
    """Whoever has used most of a day's calls. It reads the whole table, therefore rarely where that is large."""
    today = Token.objects.active().filter(usage__day=schedule.beijing_day(now))
    limits = {"classic": 2_000, "stable": 500_000, "stable_forced": 20}
    much = Q(account__daily_limit__gt=0, usage__classic__gte=LEAST_LIMIT * NEARLY)
    for endpoint, limit in limits.items():
        own = Q(account__daily_limit=None) if endpoint == "classic" else Q()
        much |= own & Q(**{f"usage__{endpoint}__gte": int(limit * NEARLY)})
    found = []
    for token in today.filter(much).select_related("account").defer("value", "account__secret")[:COUNTED]:
        offering = platforms().get(token.account.platform)
        source = offering.source(token.kind) if offering is not None else None
        if source is None:
            continue
        for forced in (False, True):
            endpoint = source.endpoint(token.account, forced=forced)
            limit = source.daily_limit(token.account, forced=forced)
            quota = Quota(token.account.ref, endpoint, schedule.calls_today(token, endpoint, now), limit)
            if quota.used >= quota.limit * NEARLY and quota not in found:
                found.append(quota)
    return tuple(found)


def _keys(now: dt.datetime) -> tuple[KeyEnd, ...]:
    """Of clients in use: keys that end soon, or ended within a day."""
    ending = ClientKey.objects.filter(
        revoked_at=None, last_used_at__gt=now - KEY_IN_USE,
        expires_at__gt=now - dt.timedelta(days=1), expires_at__lt=now + problems.KEY_ENDS_WITHIN,
    ).order_by("expires_at")  # fmt: skip
    return tuple(KeyEnd(name, at) for name, at in ending.values_list("name", "expires_at")[:COUNTED] if at is not None)
