"""Where served tokens lie ready: this process's memory and the site's cache. Fast, never correct (R1).

Every entry says until when it is good, so that a stale, foreign or damaged one is recognised by whoever reads it.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache

from . import clock, schedule, transactions
from .conf import get_settings
from .encryption import decrypt, encrypt
from .exceptions import EncryptionKeyError

if TYPE_CHECKING:
    from .models import Token

logger = logging.getLogger("wechat_token")

Key = tuple[str, str]  # AppID, kind

# A cache that failed is left alone for this long, so that reads stay fast while it hangs (R13).
CACHE_REST: Final = 5.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One token as a process holds it; replaced whole, never changed (R18)."""

    appid: str
    kind: str
    token_id: int
    version: int
    value: str = field(repr=False)
    usable_until: dt.datetime
    expires_at: dt.datetime
    due_at: dt.datetime | None
    loaded_at: dt.datetime  # when the database last said so
    raw: str = field(default="", repr=False)  # the cache's bytes, to recognise an unchanged entry unread
    fresh_until: float = 0.0  # monotonic: trusted without looking
    dead_at: float = 0.0  # monotonic: never served again

    def expires_in(self, now: dt.datetime) -> int:
        """Whole seconds others can rely on (R12), at least 0."""
        end = schedule.reliable_until(self.usable_until, self.due_at, now, get_settings().overlap)
        return max(int((end - now).total_seconds()), 0)


_memory: dict[Key, Entry] = {}
_cache_rests_until = 0.0


def entry_of(token: Token, now: dt.datetime) -> Entry | None:
    """The entry for a row, or None if the row has no usable token now."""
    end = schedule.usable_until(token, get_settings().overlap)
    if end is None or token.expires_at is None or now >= end:
        return None
    return Entry(
        appid=token.account.appid,
        kind=token.kind,
        token_id=token.pk,
        version=token.version,
        value=token.value.reveal(),
        usable_until=end,
        expires_at=token.expires_at,
        due_at=token.due_at,
        loaded_at=now,
    )


# -- memory ----------------------------------------------------------------------------------------


def recall(key: Key) -> Entry | None:
    return _memory.get(key)


def remember(entry: Entry, *, raw: str = "", seconds: float | None = None) -> Entry:
    """Put an entry into memory, trusted for ``seconds`` (default: the MEMORY_SECONDS setting)."""
    now = clock.monotonic()
    if seconds is None:
        # A test case rolls its rows back behind our back: there, every read looks again.
        seconds = 0.0 if transactions.in_test_case() else get_settings().memory_seconds
    left = (entry.usable_until - clock.now()).total_seconds()
    kept = Entry(
        entry.appid, entry.kind, entry.token_id, entry.version, entry.value, entry.usable_until,
        entry.expires_at, entry.due_at, entry.loaded_at, raw or entry.raw,
        fresh_until=now + min(seconds, left), dead_at=now + left,
    )  # fmt: skip
    _memory[entry.appid, entry.kind] = kept
    return kept


def forget(key: Key) -> None:
    """Drop an entry here and in the cache: its account was edited, or WeChat refuses its token."""
    _memory.pop(key, None)
    cache = _shared_cache()
    if cache is not None:
        try:
            cache.delete(_cache_key(key))
        except Exception as exc:  # whatever a cache backend raises; they have no common base
            _rest(exc)


def clear_memory() -> None:
    _memory.clear()


# -- cache -----------------------------------------------------------------------------------------


def publish(entry: Entry) -> Entry:
    """Make a committed token known here at once and to every process that shares the cache."""
    raw = ""
    cache = _shared_cache()
    if cache is not None:
        raw = _seal(entry)
        try:
            # The TTL is always given: Django's default of 300 s would drop a good token early.
            cache.set(_cache_key((entry.appid, entry.kind)), raw, timeout=_ttl(entry))
        except Exception as exc:  # see forget()
            _rest(exc)
    return remember(entry, raw=raw)


def look_up(key: Key, known: Entry | None) -> Entry | None:
    """What the shared cache holds for ``key``: an entry, ``known`` itself if nothing changed, or None.

    Garbage, another account's entry and dead tokens count as nothing.
    """
    cache = _shared_cache()
    if cache is None:
        return None
    try:
        raw = cache.get(_cache_key(key))
    except Exception as exc:  # see forget()
        _rest(exc)
        return None
    if not isinstance(raw, str):
        return None
    if known is not None and raw == known.raw:
        return known
    entry = _unseal(raw)
    if entry is None or (entry.appid, entry.kind) != key or clock.now() >= entry.usable_until:
        return None
    return entry


def is_confirmed(entry: Entry, now: dt.datetime) -> bool:
    """Whether the database vouched for this entry recently enough to serve it without asking again."""
    age = (now - entry.loaded_at).total_seconds()
    return -5.0 <= age < get_settings().cache_seconds


def _shared_cache() -> BaseCache | None:
    """The cache all processes share, unless it has none, it rests, or a test case would leak into it."""
    if clock.monotonic() < _cache_rests_until or transactions.in_test_case():
        return None
    cache = caches[get_settings().cache_alias]
    return None if isinstance(cache, LocMemCache | DummyCache) else cache


def _rest(exc: Exception) -> None:
    global _cache_rests_until
    _cache_rests_until = clock.monotonic() + CACHE_REST
    logger.warning("The cache does not answer (%s); tokens are read from the database.", type(exc).__name__)


def _cache_key(key: Key) -> str:
    return f"wechat_token:{key[0]}:{key[1]}"


def _ttl(entry: Entry) -> int:
    return max(int((entry.usable_until - clock.now()).total_seconds()), 1)


def _seal(entry: Entry) -> str:
    return encrypt(
        json.dumps(
            [
                entry.appid, entry.kind, entry.token_id, entry.version, entry.value,
                entry.usable_until.timestamp(), entry.expires_at.timestamp(),
                None if entry.due_at is None else entry.due_at.timestamp(), entry.loaded_at.timestamp(),
            ]
        )
    )  # fmt: skip


def _unseal(raw: str) -> Entry | None:
    try:
        appid, kind, token_id, version, value, usable, expires, due, loaded = json.loads(decrypt(raw))
        return Entry(
            appid, kind, int(token_id), int(version), value,
            _moment(usable), _moment(expires), None if due is None else _moment(due), _moment(loaded), raw=raw,
        )  # fmt: skip
    except (EncryptionKeyError, ValueError, TypeError, OverflowError):
        return None


def _moment(timestamp: Any) -> dt.datetime:
    return dt.datetime.fromtimestamp(timestamp, dt.UTC)
