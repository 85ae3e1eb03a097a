"""``health``: one word for load balancers, the state of its accounts for whoever has a key.

``ok``: every account is well. ``degraded``: some account has no usable token, cannot be renewed, or the
database is down while tokens that were served before still live. ``down`` (503): nothing can be served. One
account with a wrong AppSecret is no reason to take the server away from all the others, therefore 503 is for
the last case only.
"""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from django.db import Error as AnyDatabaseError
from django.db.models import Count, Max, Q
from django.http import HttpRequest, HttpResponse, JsonResponse

from .. import clock, process
from ..client_keys import usage
from ..conf import get_settings
from ..diagnosis import states
from ..engine import complaints, in_test_case, read
from ..models import Token
from ..querysets import TokenQuerySet
from ..querysets import usable as usable_tokens
from .access import authenticate, bearer
from .endpoint import endpoint, refuse_in_json
from .refusals import METHOD_NOT_ALLOWED

KEPT_SECONDS: Final = 1.0  # how long one look answers everybody
REST_FACTOR: Final = 50.0  # counting a million accounts takes its time: monitors cause 2 % load at most
BLIND_SECONDS: Final = 5.0  # the same while the database is down
LISTED: Final = 1000  # accounts in one answer; `total` tells how many there are
SCOPES_KEPT: Final = 256
LOCK_SECONDS: Final = 5.0  # for which the first look of a scope waits for those of others

Scope = int | None  # the id of a client key, or None for all accounts


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen; ``usable_until``: how long the longest-lived token lives without the database."""

    status: str
    accounts: tuple[dict[str, Any], ...]
    total: int
    usable_until: dt.datetime | None
    database: str = "ok"


@endpoint("GET", "HEAD", refuse=refuse_in_json, wrong_method=METHOD_NOT_ALLOWED)
def health(request: HttpRequest) -> HttpResponse:
    """Without a key only ``status``; a wrong key is refused, not ignored, so that its owner notices."""
    usage.flush_if_due()
    if "HTTP_AUTHORIZATION" not in request.META:
        look = _look(None, partial(_see, _tokens(), listed=0))
        return _answer(look, {"status": look.status})
    grant = authenticate(request, bearer(request)).grant
    tokens = _tokens()
    if grant.appids is not None:
        tokens = tokens.filter(account__client_keys=grant.key_id)
    look = _look(grant.key_id, partial(_see, tokens, listed=LISTED))
    body = {"status": look.status, "database": look.database, "total": look.total, "accounts": look.accounts}
    return _answer(look, body)


def _answer(look: _Look, body: dict[str, Any]) -> HttpResponse:
    return JsonResponse(body, status=503 if look.status == "down" else 200)


# -- looking ---------------------------------------------------------------------------------------

_lock: threading.Lock  # held during the queries; whoever has an older look does not wait for it
_looks: dict[Scope, tuple[float, _Look]]
process.keep(globals(), _lock=threading.Lock, _looks=dict)


def _look(scope: Scope, see: partial[_Look]) -> _Look:
    kept = _looks.get(scope)
    if kept is not None and clock.monotonic() < kept[0]:
        return kept[1]
    if not _lock.acquire(timeout=LOCK_SECONDS if kept is None else 0.001):
        return kept[1] if kept is not None else _blind(None)
    try:
        kept = _looks.get(scope)
        if kept is not None and clock.monotonic() < kept[0]:
            return kept[1]
        return _keep(scope, kept[1] if kept else None, see)
    finally:
        _lock.release()


def _keep(scope: Scope, former: _Look | None, see: partial[_Look]) -> _Look:
    started = clock.monotonic()
    try:
        look = read(see)
        seconds = max(KEPT_SECONDS, (clock.monotonic() - started) * REST_FACTOR)
    except AnyDatabaseError:
        look, seconds = _blind(former), BLIND_SECONDS
    if len(_looks) >= SCOPES_KEPT:
        _looks.clear()
    if not in_test_case():  # there, rows are rolled back behind our back
        _looks[scope] = clock.monotonic() + seconds, look
    return look


def _blind(former: _Look | None) -> _Look:
    until = former.usable_until if former else None
    status = "degraded" if until is not None and clock.now() < until else "down"
    return _Look(status, (), former.total if former else 0, until, database="unreachable")


def _tokens() -> TokenQuerySet:
    return Token.objects.active()


def _see(tokens: TokenQuerySet, *, listed: int) -> _Look:
    now = clock.now()
    usable = usable_tokens(now, get_settings().overlap)
    state = states.state_in_sql(now, overlap=get_settings().overlap, lease=get_settings().lease)
    seen = tokens.annotate(told_state=state).aggregate(
        total=Count("account", distinct=True),
        usable=Count("pk", filter=usable),
        dead=Count("pk", filter=Q(told_state=states.State.DEAD.value)),
        failing=Count("pk", filter=Q(failures__gt=0) & ~Q(due_at=None, asked_at__isnull=False)),
        until=Max("expires_at", filter=usable),
    )
    status = "degraded" if seen["dead"] or seen["failing"] else "ok"
    if seen["dead"] and not seen["usable"]:
        status = "down"
    rows = tokens.select_related("account").defer("value", "account__secret").order_by("account__ref", "kind")
    return _Look(status, tuple(_described(token, now) for token in rows[:listed]), seen["total"], seen["until"])


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
