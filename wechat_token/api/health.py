"""What monitors ask. Three questions, three addresses, none of which writes for a caller without a key.

``health/live``: does this process answer? ``health``: can it serve? 503 (``down``) means only that *this process* can
serve nothing: its database is away and nothing in memory lives, or it has no key that reads a stored secret. What is
wrong with accounts is no reason to take a server away from the others, nor the admin from whoever is to mend it: that
is ``degraded``, and with a key it says what it is. ``health/accounts``: is everybody served who asks? 503 names those
who are not.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar, cast

from django.db import Error as AnyDatabaseError
from django.db.models import Count, Max, Q
from django.http import HttpRequest, HttpResponse, JsonResponse

from .. import clock, process
from ..client_keys import usage
from ..client_keys.keyring import Grant
from ..conf import get_settings
from ..diagnosis import facts, problems, pulse, states
from ..diagnosis.evidence import Database, Facts
from ..diagnosis.problems import Problem, Severity
from ..engine import complaints, in_test_case, read, schedule
from ..models import ACCESS_TOKEN, KeyUsage, Token
from ..querysets import TokenQuerySet
from ..querysets import usable as usable_tokens
from .access import authenticate, bearer
from .endpoint import endpoint, refuse_in_json
from .refusals import METHOD_NOT_ALLOWED, SERVICE_UNAVAILABLE, Refusal

KEPT_SECONDS: Final = 1.0  # how long one look answers everybody
REST_FACTOR: Final = 50.0  # counting a million accounts takes its time: monitors cause 2 % load at most
BLIND_SECONDS: Final = 5.0  # the same while the database is down
LISTED: Final = 1000  # accounts in one answer; `total` tells how many there are
SCOPES_KEPT: Final = 256
LOCK_SECONDS: Final = 5.0  # for which the first look of a scope waits for those of others
READ_WITHIN: Final = dt.timedelta(days=1)  # days before today on which a client's read counts as "somebody reads it"

T = TypeVar("T")
Scope = tuple[str, int | None]  # the view, and the id of a client key or None for all accounts


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen; ``usable_until``: how long the longest-lived token lives without the database."""

    status: str
    accounts: tuple[dict[str, Any], ...]
    total: int
    usable_until: dt.datetime | None
    database: Database = Database.OK
    problems: tuple[dict[str, object], ...] = ()


@endpoint("GET", "HEAD", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
def live(request: HttpRequest) -> HttpResponse:
    """That this process answers. No I/O: whatever is down elsewhere, restarting it would not help."""
    return JsonResponse({"status": "ok"})


@endpoint("GET", "HEAD", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
def health(request: HttpRequest) -> HttpResponse:
    """Without a key only ``status``; a wrong key is refused, not ignored, so that its owner notices."""
    if "HTTP_AUTHORIZATION" not in request.META:
        look = _look(("health", None), partial(_see, _tokens(), listed=0, mine=False), _blind)
        return _answer(look, {})
    grant = _authenticated(request)
    see = partial(_see, _tokens_of(grant), listed=LISTED, mine=grant.appids is not None)
    look = _look(("health", grant.key_id), see, _blind)
    body = {"database": look.database, "total": look.total, "problems": look.problems, "accounts": look.accounts}
    return _answer(look, body)


def _answer(look: _Look, body: dict[str, Any]) -> HttpResponse:
    status = "down" if pulse.reads_nothing() else look.status
    return JsonResponse({"status": status, **body}, status=503 if status == "down" else 200)


@endpoint("GET", "HEAD", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
def accounts(request: HttpRequest) -> HttpResponse:
    """Of the accounts of this key that some client has read today or yesterday: who has no usable token."""
    grant = _authenticated(request)
    look: dict[str, Any] | None = _look(("accounts", grant.key_id), partial(_see_read, _tokens_of(grant)), _blank)
    if look is None:
        raise Refusal(SERVICE_UNAVAILABLE, BLIND_SECONDS)
    return JsonResponse(look, status=503 if look["unserved"] else 200)


def _authenticated(request: HttpRequest) -> Grant:
    grant = authenticate(request, bearer(request)).grant
    usage.flush_if_due()
    return grant


# -- looking ---------------------------------------------------------------------------------------

_lock: threading.Lock  # held during the queries; whoever has an older look does not wait for it
_looks: dict[Scope, tuple[float, Any]]
process.keep(globals(), _lock=threading.Lock, _looks=dict)


def _look(scope: Scope, see: Callable[[], T], blind: Callable[[T | None], T]) -> T:
    """What ``see`` shows, not looked at anew for a while. ``blind``: what to go by while the database is down."""
    kept = _looks.get(scope)
    if kept is not None and clock.monotonic() < kept[0]:
        return cast(T, kept[1])
    if not _lock.acquire(timeout=LOCK_SECONDS if kept is None else 0.001):
        return cast(T, kept[1]) if kept is not None else blind(None)
    try:
        kept = _looks.get(scope)
        if kept is not None and clock.monotonic() < kept[0]:
            return cast(T, kept[1])
        former: T | None = kept[1] if kept else None
        return _keep(scope, former, see, blind)
    finally:
        _lock.release()


def _keep(scope: Scope, former: T | None, see: Callable[[], T], blind: Callable[[T | None], T]) -> T:
    started = clock.monotonic()
    try:
        look = see()
        seconds = max(KEPT_SECONDS, (clock.monotonic() - started) * REST_FACTOR)
    except AnyDatabaseError:
        look, seconds = blind(former), BLIND_SECONDS
    if len(_looks) >= SCOPES_KEPT:
        _looks.clear()
    if not in_test_case():  # there, rows are rolled back behind our back
        _looks[scope] = clock.monotonic() + seconds, look
    return look


def _blind(former: _Look | None) -> _Look:
    until = former.usable_until if former else None
    status = "degraded" if until is not None and clock.now() < until else "down"
    found = _told(problems.problems(Facts(clock.now(), database=Database.UNREACHABLE)))
    return _Look(status, (), former.total if former else 0, until, Database.UNREACHABLE, found)


def _blank(former: dict[str, Any] | None) -> None:
    """Who is served cannot be told without the database: neither yes nor no (R29)."""


# -- what there is to see --------------------------------------------------------------------------


def _tokens() -> TokenQuerySet:
    return Token.objects.active()


def _tokens_of(grant: Grant) -> TokenQuerySet:
    return _tokens() if grant.appids is None else _tokens().filter(account__client_keys=grant.key_id)


def _see(tokens: TokenQuerySet, *, listed: int, mine: bool) -> _Look:
    site = facts.collect(tokens if mine else None)
    if site.database is Database.UNREACHABLE:
        raise AnyDatabaseError
    found = problems.problems(site)
    look = read(partial(_count, tokens, listed=listed))
    status = "degraded" if any(problem.severity is not Severity.WARNING for problem in found) else look.status
    return _Look(status, look.accounts, look.total, look.usable_until, site.database, _told(found))


def _count(tokens: TokenQuerySet, *, listed: int) -> _Look:
    now = clock.now()
    usable = usable_tokens(now, get_settings().overlap)
    state = states.state_in_sql(now, overlap=get_settings().overlap, lease=get_settings().lease)
    seen = tokens.annotate(told_state=state).aggregate(
        total=Count("account", distinct=True),
        dead=Count("pk", filter=Q(told_state=states.State.DEAD.value)),
        failing=Count("pk", filter=Q(failures__gt=0) & ~Q(due_at=None, asked_at__isnull=False)),
        until=Max("expires_at", filter=usable),
    )
    status = "degraded" if seen["dead"] or seen["failing"] else "ok"
    rows = tokens.select_related("account").defer("value", "account__secret").order_by("account__ref", "kind")
    described = tuple(_described(token, now) for token in rows[:listed])
    return _Look(status, described, seen["total"], seen["until"])


def _see_read(tokens: TokenQuerySet) -> dict[str, Any]:
    def see() -> dict[str, Any]:
        now = clock.now()
        since = dt.date.fromisoformat(schedule.beijing_day(now)) - READ_WITHIN
        read_by_somebody = KeyUsage.objects.filter(day__gte=since, reads__gt=0).values("appid")
        asked_for = tokens.filter(kind=ACCESS_TOKEN, account__ref__in=read_by_somebody)
        served = asked_for.usable(now, get_settings().overlap).values("pk")
        unserved = asked_for.exclude(pk__in=served).select_related("account").defer("value", "account__secret")
        rows = tuple(_described(token, now) for token in unserved.order_by("account__ref")[:LISTED])
        return {"status": "unserved" if rows else "ok", "read": asked_for.count(), "unserved": rows}

    return read(see)


def _described(token: Token, now: dt.datetime) -> dict[str, Any]:
    report = states.report(token, now, overlap=get_settings().overlap, lease=get_settings().lease)
    return {
        "appid": token.account.ref,
        "kind": token.kind,
        "state": report.state,
        "seconds_left": report.seconds_left,
        "error_class": token.error_class or None,
        "errcode": token.errcode,
        "complaints_refused": complaints.refuses_complaints(token, now),
    }


def _told(found: list[Problem]) -> tuple[dict[str, object], ...]:
    return tuple(problem.as_json() for problem in found)
