"""The live client keys as a process holds them: an immutable table, replaced whole when any key changed (S3).

Finding a key costs a hash and a look into a dict. Once a second, and only when somebody asks, one small
aggregate query tells whether a key was made, edited or revoked anywhere; unknown keys cause no query of their
own. While the database is down the last table goes on serving (R13).
"""

from __future__ import annotations

import datetime as dt
import hmac
import logging
import math
import re
import threading
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from django.db import Error as AnyDatabaseError
from django.db import transaction
from django.db.models import Count, Max, Sum
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete
from django.views.decorators.debug import sensitive_variables

from .. import clock, process
from ..engine import alias, aside, fingerprint, in_test_case, read, server_clock
from ..exceptions import WeChatTokenError
from ..models import Account, ClientKey, Reading
from ..redaction import Secret
from ..signals import on_model
from . import keys
from .networks import Address, Network, networks_of

logger = logging.getLogger("wechat_token.access")

CHECK_SECONDS: Final = 1.0
BLIND_SECONDS: Final = 2.0  # between looks at a database that was down at the last one

NO_KEYS: Final = "The database is down, and this process has no client keys from before."

# What the check query returns; equal as long as no key has changed.
Version = tuple[int, int, int]


# What may name an account: nothing that a cache's keys or a log line could stumble over.
_REF: Final = re.compile(r"[A-Za-z0-9_:@.-]{1,160}")


class KeysUnavailable(WeChatTokenError):
    """Nobody can be let in: there are no client keys to compare with."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one live key allows. ``appids`` None: every account; ``networks`` None: from anywhere."""

    key_id: int
    name: str
    prefix: str
    digest: str = field(repr=False)
    appids: frozenset[str] | None
    may_refresh: bool
    networks: tuple[Network, ...] | None
    expires_at: dt.datetime | None
    fingerprint: str = ""  # for the security log; '' where it cannot be made
    may_read: str = Reading.EVERYTHING

    def covers(self, appid: str) -> bool:
        if self.appids is not None:
            return appid in self.appids
        return _REF.fullmatch(appid) is not None

    def admits(self, address: Address | None) -> bool:
        if self.networks is None:
            return True
        return address is not None and any(address in network for network in self.networks)

    def reads(self, reading: Reading) -> bool:
        """Whether the key is given this; one whose right cannot be read is given nothing."""
        steps = Reading.values
        return self.may_read in steps and steps.index(reading) <= steps.index(self.may_read)

    def is_live(self, now: dt.datetime) -> bool:
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class _Table:
    grants: Mapping[str, Grant]
    version: Version
    fresh_until: float  # monotonic
    blind: bool = False  # the last check failed


_table: _Table | None
_failed_until: float  # monotonic: until then nobody tries again to load a first table
_turn: threading.Lock  # whose turn it is to check; held during the query, awaited only for the first table
process.keep(globals(), _table=lambda: None, _failed_until=float, _turn=threading.Lock)


@sensitive_variables()
def find(text: str) -> Grant | None:
    """The grant of a presented key; None if it is malformed, unknown, revoked or expired.

    Raises :class:`KeysUnavailable` only if this process has never been able to load the keys.
    """
    if not keys.is_well_formed(text):
        return None
    digest = keys.digest(text)
    grant = _current().get(digest)
    if grant is None or not hmac.compare_digest(grant.digest, digest) or not grant.is_live(clock.now()):
        return None
    return grant


def expire() -> None:
    """Look again at the next request: a key was changed by this very process, which is to notice at once."""
    if _table is not None:
        _install(replace(_table, fresh_until=-math.inf))


def connect() -> None:
    """Receivers that make every change of a key, its accounts or their AppIDs noticeable."""
    on_model(post_save, _key_changed, ClientKey)
    on_model(post_delete, _key_changed, ClientKey)
    m2m_changed.connect(
        _accounts_changed, sender=ClientKey.accounts.through, dispatch_uid="wechat_token.keyring.accounts"
    )
    on_model(post_save, _account_changed, Account)
    on_model(pre_delete, _account_changed, Account)


# -- looking ---------------------------------------------------------------------------------------


def _current() -> Mapping[str, Grant]:
    table = _table
    if table is None:
        with _turn:
            return (_table or _first_table()).grants
    if clock.monotonic() < table.fresh_until:
        return table.grants
    if table.blind:
        # A database that hangs must not slow down readers: look behind their back until it answers again.
        aside("keyring", partial(_take_turn, table))
        return table.grants
    return _take_turn(table).grants


def _first_table() -> _Table:
    global _failed_until
    if clock.monotonic() < _failed_until:
        raise KeysUnavailable(NO_KEYS)
    try:
        return _install(_load(_version()))
    except AnyDatabaseError as exc:
        logger.warning("Client keys cannot be loaded (%s); nobody can be let in.", type(exc).__name__)
        _failed_until = clock.monotonic() + BLIND_SECONDS
    raise KeysUnavailable(NO_KEYS)


def _take_turn(table: _Table) -> _Table:
    """Check and reload; whoever comes meanwhile goes on with the table there is."""
    if not _turn.acquire(blocking=False):
        return table
    try:
        version = _version()
        grants = table.grants if version == table.version else _load(version).grants
        return _install(_Table(grants, version, _fresh_until()))
    except AnyDatabaseError as exc:
        logger.warning("Client keys cannot be checked (%s); the last known ones hold.", type(exc).__name__)
        return _install(_Table(table.grants, table.version, clock.monotonic() + BLIND_SECONDS, blind=True))
    finally:
        _turn.release()


def _install(table: _Table) -> _Table:
    global _table
    _table = table
    return table


def _fresh_until() -> float:
    # A test case rolls its rows back behind our back: there, every look asks again.
    return clock.monotonic() + (0.0 if in_test_case() else CHECK_SECONDS)


def _version() -> Version:
    return read(_read_version)


def _read_version() -> Version:
    sums: dict[str, Any] = {"n": Count("pk"), "revoked": Count("revoked_at"), "stamps": Sum("stamp")}
    time = server_clock()
    if time is not None:  # the keys' ends are in its time, and this process may read nothing else of the database
        sums["time"] = Max(time)
    before = clock.wall()
    row = ClientKey.objects.aggregate(**sums)
    if row.get("time") is not None:
        clock.compare(dt.datetime.fromtimestamp(row["time"], dt.UTC), before, clock.wall())
    return row["n"], row["revoked"], row["stamps"] or 0


def _load(version: Version) -> _Table:
    """Read the keys; ``version`` was read before, so that the next check notices a change in between."""
    return _Table(_fingerprinted(read(_read_grants)), version, _fresh_until())


def _fingerprinted(grants: dict[str, Grant]) -> dict[str, Grant]:
    with suppress(AnyDatabaseError, WeChatTokenError):
        return {digest: replace(grant, fingerprint=fingerprint(Secret(digest))) for digest, grant in grants.items()}
    return grants


def _read_grants() -> dict[str, Grant]:
    appids: defaultdict[int, set[str]] = defaultdict(set)
    links = ClientKey.accounts.through.objects.using(alias()).values_list("clientkey_id", "account__ref")
    for key_id, appid in links.iterator():
        appids[key_id].add(appid)
    return {
        key.digest: Grant(
            key_id=key.pk,
            name=key.name,
            prefix=key.prefix,
            digest=key.digest,
            appids=None if key.all_accounts else frozenset(appids[key.pk]),
            may_refresh=key.may_refresh,
            networks=_networks(key),
            expires_at=key.expires_at,
            may_read=key.may_read,
        )
        for key in ClientKey.objects.filter(revoked_at=None).iterator()
    }


def _networks(key: ClientKey) -> tuple[Network, ...] | None:
    networks = networks_of(key.networks)
    if networks == ():
        logger.error("The networks of client key %s cannot be read; it is refused everywhere.", key.prefix)
    return networks


# -- changes ---------------------------------------------------------------------------------------


def _key_changed(using: str, **kwargs: Any) -> None:
    transaction.on_commit(expire, using=using)


def _accounts_changed(
    instance: Any, action: str, reverse: bool, pk_set: set[int] | None, using: str, **kwargs: Any
) -> None:
    """Stamp the keys whose accounts were edited, from either side of the relation."""
    changed = ClientKey.objects.using(using)
    if not reverse:
        changed = changed.filter(pk=instance.pk)
    elif pk_set is not None:
        changed = changed.filter(pk__in=pk_set)
    elif action == "pre_clear":  # afterwards nobody knows which keys they were
        changed = changed.filter(accounts=instance)
    else:
        return
    _stamp(changed, using)


def _account_changed(instance: Account, using: str, raw: bool = False, **kwargs: Any) -> None:
    """An AppID may have been edited, or be free for another account from now on."""
    if not raw:
        _stamp(ClientKey.objects.using(using).filter(accounts=instance), using)


def _stamp(changed: Any, using: str) -> None:
    if changed.update(updated_at=clock.now()):
        _key_changed(using)
