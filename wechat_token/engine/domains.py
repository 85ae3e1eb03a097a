"""For which hosts an account signs pages that ask without a key: its ``js_domains``, remembered for a second."""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

from django.db import Error as AnyDatabaseError

from .. import clock, process
from ..exceptions import StoreUnavailable
from ..models import Account
from ..platforms.js_domains import parse
from .connections import alias, in_place, in_test_case, private, read
from .ground import aside

FRESH_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 10.0  # nobody asked for longer: what was true then is looked up before it is used
KEPT: Final = 1000  # anybody may ask for any name


class Listed(NamedTuple):
    hosts: frozenset[str]
    fresh_until: float  # monotonic


_known: dict[str, Listed]
process.keep(globals(), _known=dict)


def js_hosts(ref: str) -> frozenset[str]:
    """The hosts of an active account; none for any other ref. Raises ``StoreUnavailable`` (R13)."""
    known, now = _known.get(ref), clock.monotonic()
    if known is not None:
        if now < known.fresh_until:
            return known.hosts
        if now < known.fresh_until + IDLE_SECONDS and not in_place():  # nobody waits for a database that hangs
            _known[ref] = Listed(known.hosts, now + FRESH_SECONDS)
            aside(("js domains", ref), partial(_look_again, ref))
            return known.hosts
    try:
        hosts = read(partial(_read, ref))
    except AnyDatabaseError as exc:
        if known is None:
            raise StoreUnavailable(ref, exc) from exc
        return known.hosts
    return hosts if in_test_case() else _remembered(ref, hosts)


def _look_again(ref: str) -> None:
    with private():
        _remembered(ref, _read(ref))


def _read(ref: str) -> frozenset[str]:
    lists = Account.objects.using(alias()).active().filter(ref=ref).values_list("js_domains", flat=True)
    return parse(lists.first() or "")


def _remembered(ref: str, hosts: frozenset[str]) -> frozenset[str]:
    if len(_known) >= KEPT:
        _known.clear()
    _known[ref] = Listed(hosts, clock.monotonic() + FRESH_SECONDS)
    return hosts
