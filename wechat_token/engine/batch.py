"""Refreshing many tokens at once: flights side by side, fed in the order of their due times (R17, R35)."""

from __future__ import annotations

import datetime as dt
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from django.db import DatabaseError, Error
from django.db.models import F, Q

from .. import clock
from ..conf import get_settings
from ..exceptions import WeChatTokenError
from ..models import Token
from ..platforms import platforms
from . import ground, hosts, threads
from .connections import alias, private
from .ground import Flight, Key
from .refresh import begin
from .schedule import Reason

logger = logging.getLogger("wechat_token")

SWEEP_AT: Final = 17 * 60 + 17  # seconds into the hour
SWEPT_AT_ONCE: Final = 10_000
SWEEP_EVERY: Final = 3600  # seconds between looks for accounts whose edit nobody heard of

Page = list[tuple[dt.datetime | None, int, str, str]]


def drain() -> Counter[str]:
    """Refresh what is due, most overdue first, until nothing is, for ``DRAIN_DEADLINE`` at most; count the outcomes.

    With nothing due: one query, and this host's heartbeat every 30 s. One drain a host at a time.
    """
    settings = get_settings()
    if settings.remote_url or settings.paused:
        return Counter()
    began = clock.monotonic()
    give_up_at = clock.monotonic() + settings.drain_deadline
    pages = _pages()
    with private():
        _sweep()
        first = next(pages, [])
        hosts.sign("ticked_at")
        if not first or not hosts.begin_drain():
            return Counter()
    try:
        return _fly(_keys(first, pages), Reason.SCHEDULE, give_up_at)
    finally:
        try:
            with private():
                hosts.end_drain(clock.monotonic() - began)
        except Error as exc:  # it ends by itself
            logger.warning("The end of a drain was not written: %s", type(exc).__name__)


def refresh_each(keys: Iterable[Key], *, reason: Reason, client: str = "") -> Counter[str]:
    """Refresh these tokens side by side; one that fails does not hold up the others."""
    settings = get_settings()
    return _fly(keys, reason, clock.monotonic() + max(settings.drain_deadline, settings.lease), client=client)


def _pages() -> Iterator[Page]:
    """What is due, page by page; each row once, also one that no refresh gets past."""
    now = clock.now()
    size = get_settings().batch_size
    due = Token.objects.using(alias()).due(now).filter(_served())
    after = Q()
    while True:
        page = list(due.filter(after).values_list("due_at", "pk", "account__ref", "kind")[:size])
        if page:
            yield page
        if len(page) < size:
            return
        due_at, pk = page[-1][:2]
        after = Q(due_at__gt=due_at) | Q(due_at=due_at, pk__gt=pk)


def _served() -> Q:
    """What somebody knows how to fetch: not the rows of a platform that was taken out of the settings."""
    known = Q()
    for platform in platforms().values():
        known |= Q(account__platform=platform.name, kind__in=platform.kinds)
    return known


def _keys(first: Page, pages: Iterator[Page]) -> Iterator[Key | None]:
    """What is due, and what falls due meanwhile, each once. None: nothing now, but ask again."""
    page, flown = first, set[Key]()
    while True:
        while page:
            for _due_at, _pk, ref, kind in page:
                if (ref, kind) not in flown:
                    flown.add((ref, kind))
                    yield ref, kind
            with private():
                page = next(pages, [])
        yield None
        pages = _pages()
        with private():
            page = next(pages, [])


def _fly(keys: Iterable[Key | None], reason: Reason, give_up_at: float, *, client: str = "") -> Counter[str]:
    """Start flights as threads come free, then wait for the last ones; what hangs is left to itself at the end."""
    outcomes: Counter[str] = Counter()
    in_the_air: set[Flight] = set()
    settings = get_settings()
    most = settings.batch_threads

    def land(at_most: int, seconds: float = math.inf) -> None:
        until = min(give_up_at, clock.monotonic() + seconds)
        while len(in_the_air) > at_most and clock.monotonic() < until:
            threads.wait_any([flight.landed for flight in in_the_air], min(1.0, until - clock.monotonic()))
            for flight in [flight for flight in in_the_air if flight.landed.done()]:
                in_the_air.discard(flight)
                outcomes[_outcome(flight)] += 1

    for key in keys:
        if key is None:
            # One account that hangs must not let everything else of this host wait for it (R33).
            if not in_the_air or clock.monotonic() >= give_up_at:
                break
            land(0, settings.beat_interval)
            continue
        land(most - 1)
        while clock.monotonic() < give_up_at:
            try:
                in_the_air.add(begin(key, reason, client=client, scheduled=True))
                break
            except ground.Crowded:  # by another batch of this process
                clock.sleep(ground.SLICE)
                land(max(len(in_the_air) - 1, 0))
            except WeChatTokenError as exc:
                logger.warning("Nothing is refreshed: %s", exc)
                outcomes["error"] += 1
                break
        else:
            break
    land(0)
    if in_the_air:
        outcomes["unfinished"] += len(in_the_air)
    return outcomes


def _outcome(flight: Flight) -> str:
    try:
        return str(flight.result.result().status.value)
    except (WeChatTokenError, DatabaseError) as exc:
        # Its type only: the cause is in the row or concerns the whole site (S2).
        logger.warning("Refreshing %s %s failed: %s", *flight.key, type(exc).__name__)
    except Exception as exc:
        logger.warning("Refreshing %s %s broke off: %s", *flight.key, type(exc).__name__)
    return "error"


def _sweep() -> None:
    """Once an hour: tokens whose account was edited by a process that did not live to say so, or past the package,
    fall due (R10). At one moment of the hour, so that no process need live for an hour to do that.
    """
    now = clock.now()
    if int(now.timestamp() - SWEEP_AT) % SWEEP_EVERY >= 2 * get_settings().beat_interval:
        return
    tokens = Token.objects.using(alias()).active().filter(_served())
    asleep = Q(due_at=None, asked_at__isnull=False)  # until somebody asks again (R28)
    forgotten = tokens.filter(~Q(edition=F("account__edition")) | Q(due_at=None)).exclude(asleep)
    found = list(forgotten.exclude(due_at__lte=now).values_list("pk", flat=True)[:SWEPT_AT_ONCE])
    Token.objects.using(alias()).filter(pk__in=found).exclude(due_at__lte=now).update(due_at=now)
