"""Where served tokens lie ready: this process's memory and the site's cache. Fast, never correct (R1).

Every entry says until when it is good, and how old its row was. Nothing goes back (R32): neither memory nor cache
replaces what a row said later by what it said before, nor brings back a token that WeChat was seen to refuse.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.db import BaseDatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache

from .. import clock, process
from ..conf import get_settings
from ..encryption import Place, decrypt, encrypt
from ..exceptions import EncryptionKeyError
from ..platforms import platforms
from ..redaction import Secret
from . import ground, schedule, site
from .connections import in_place, in_test_case, private
from .ground import Key

if TYPE_CHECKING:
    from ..models import Token

logger = logging.getLogger("wechat_token")

# A cache that failed is left alone for this long, so that reads stay fast while it hangs (R13).
CACHE_REST: Final = 5.0
BLIND_SECONDS: Final = 5.0  # the same for a database that failed, as long as a token is known
# What the database said longer ago is not written into the cache: somebody may have written later news meanwhile.
NEWS_SECONDS: Final = 1.0
OWED_SECONDS: Final = 90.0  # longer than anybody believes the cache without asking the database
LONGEST_ENTRY: Final = 4  # times the longest answer a token may come in: quoted, sealed and in base64
WITHDRAWN_TTL: Final = 3600  # seconds for which the cache remembers that a version is refused

Age = tuple[int, int]  # version and revision of the row: grows with everything that is written to it


@dataclass(frozen=True, slots=True)
class Entry:
    """One token as a process holds it; replaced whole, never changed (R18)."""

    ref: str
    kind: str
    token_id: int
    version: int
    revision: int
    value: str = field(repr=False)
    usable_until: dt.datetime
    expires_at: dt.datetime
    due_at: dt.datetime | None
    loaded_at: dt.datetime  # when the database last said so
    raw: str = field(default="", repr=False)  # the cache's bytes, to recognise an unchanged entry unread
    fresh_until: float = 0.0  # monotonic: trusted without looking
    dead_at: float = 0.0  # monotonic: never served again
    blind_until: float = 0.0  # monotonic: the database has just failed and is not asked again before

    @property
    def key(self) -> Key:
        return self.ref, self.kind

    @property
    def secret(self) -> Secret:
        return Secret(self.value)

    @property
    def age(self) -> Age:
        return self.version, self.revision

    def expires_in(self, now: dt.datetime) -> int:
        """Whole seconds others can rely on (R12), at least 0."""
        end = schedule.reliable_until(self.usable_until, self.due_at, now, get_settings().overlap)
        return max(int((end - now).total_seconds()), 0)


def entry_of(token: Token, now: dt.datetime) -> Entry | None:
    """The entry for a row, or None if the row has no usable token now. An unreadable one is none (R36)."""
    end = schedule.usable_until(token, get_settings().overlap)
    if end is None or token.expires_at is None or now >= end:
        return None
    try:
        value = token.value.reveal()
    except EncryptionKeyError:
        return None
    return Entry(
        ref=token.account.ref,
        kind=token.kind,
        token_id=token.pk,
        version=token.version,
        revision=token.revision,
        value=value,
        usable_until=end,
        expires_at=token.expires_at,
        due_at=schedule.planned_at(token),
        loaded_at=now,
    )


# -- memory ----------------------------------------------------------------------------------------

# Two generations (R18): the hot path looks into ``young`` only, without a lock; when that is full it becomes ``old``,
# and what is asked for again moves back. ``_floors``: entries of rows older than this are not taken any more.
young: dict[Key, Entry]
old: dict[Key, Entry]
_floors: dict[Key, Age]
_cache_rests_until: float
_isolated: bool
process.keep(globals(), young=dict, old=dict, _floors=dict, _cache_rests_until=float, _isolated=bool)


def recall(key: Key) -> Entry | None:
    return young.get(key) or old.get(key)


def newer(entry: Entry) -> Entry:
    """``entry``, or what memory holds of its key if that is at least as new, and alive."""
    known = recall(entry.key)
    if known is not None and known.age >= entry.age and clock.monotonic() < known.dead_at:
        return known
    return entry


def remember(entry: Entry, *, raw: str = "", seconds: float | None = None, blind_until: float = 0.0) -> Entry:
    """Put an entry into memory, trusted for ``seconds`` (default: the MEMORY_SECONDS setting), and return it; or the
    newer one that is there.
    """
    now = clock.monotonic()
    known = recall(entry.key)
    if known is not None and known.age > entry.age and now < known.dead_at:
        return known
    if seconds is None:
        # A test case rolls its rows back behind our back: there, every read looks again.
        seconds = 0.0 if in_test_case() else get_settings().memory_seconds
    left = (entry.usable_until - clock.now()).total_seconds()
    kept = Entry(
        entry.ref, entry.kind, entry.token_id, entry.version, entry.revision, entry.value, entry.usable_until,
        entry.expires_at, entry.due_at, entry.loaded_at, raw or entry.raw,
        fresh_until=now + min(seconds, left), dead_at=now + left, blind_until=blind_until,
    )  # fmt: skip
    if entry.age >= _floors.get(entry.key, (0, 0)):
        _keep(kept)
    return kept


def go_blind(entry: Entry) -> Entry:
    """The database is down: go on with ``entry``, and do not ask again for a while (R13). The cache is asked every
    second all the same: another process may have got through, and have replaced the token.
    """
    return remember(entry, blind_until=clock.monotonic() + BLIND_SECONDS)


def _keep(entry: Entry) -> None:
    global young, old
    if len(young) >= get_settings().memory_entries and entry.key not in young:
        old, young = young, {}
    young[entry.key] = entry
    old.pop(entry.key, None)


def is_outdated(entry: Entry) -> bool:
    """Whether this process knows later news of the row than this entry."""
    known = recall(entry.key)
    return entry.age < _floors.get(entry.key, (0, 0)) or (known is not None and entry.age < known.age)


def withdraw(key: Key, age: Age) -> None:
    """WeChat refuses the token, or the row has none that is good: serve nothing of the row up to ``age``, here and
    wherever the cache is shared.
    """
    drop(key, age)
    if _shared_cache(resting=True) is not None:
        _tell(key, News(age, _withdrawn(key, age), WITHDRAWN_TTL))


def drop(key: Key, age: Age) -> None:
    """Serve nothing of the row up to ``age`` in this process."""
    if len(_floors) >= 2 * get_settings().memory_entries:
        _floors.clear()
    _floors[key] = max(age, _floors.get(key, (0, 0)))
    for memory in (young, old):
        known = memory.get(key)
        if known is not None and known.age <= _floors[key]:
            memory.pop(key, None)


def forget(key: Key) -> None:
    """Ask the database anew, here and elsewhere."""
    young.pop(key, None)
    old.pop(key, None)
    _floors.pop(key, None)
    cache = _shared_cache()
    if cache is not None:
        try:
            with private() if isinstance(cache, BaseDatabaseCache) else nullcontext():
                cache.delete(_spot(cache, key)[0])
        except Exception as exc:  # whatever a cache backend raises; they have no common base
            _rest(exc)


def forget_account(ref: str) -> None:
    """The account was edited, deactivated or deleted: :func:`forget` whatever it may have."""
    for kind in {kind for platform in platforms().values() for kind in platform.kinds}:
        forget((ref, kind))


def clear_memory() -> None:
    young.clear()
    old.clear()
    _floors.clear()


# -- cache -----------------------------------------------------------------------------------------


def publish(entry: Entry) -> Entry:
    """Make a committed token known here at once and to every process that shares the cache."""
    kept = remember(entry)
    share(kept)
    return kept


def share(entry: Entry) -> None:
    """Put what the database has just said into the cache, unless the cache knows better."""
    late = (clock.now() - entry.loaded_at).total_seconds() > NEWS_SECONDS
    if late or is_outdated(entry) or _shared_cache(resting=True) is None:
        return
    # The TTL is always given: Django's default of 300 s would drop a good token early.
    raw = _tell(entry.key, News(entry.age, _written(entry), _ttl(entry)))
    if raw:
        remember(entry, raw=raw)


class News(NamedTuple):
    """What the cache is to hold for a key, for ``ttl`` seconds."""

    age: Age
    text: Secret
    ttl: int


_owed: dict[Key, News]  # what the cache did not take: others go on with what it holds until they are told
process.keep(globals(), _owed=dict)


def _tell(key: Key, news: News) -> str:
    """Write the news, now or as soon as the cache takes it; what was written, '' if nothing was."""
    try:
        written = _write(key, news)
    except Exception as exc:  # see forget()
        _rest(exc)
        if key not in _owed or _owed[key].age <= news.age:
            _owed[key] = news
        if not in_place():
            ground.aside("tell the cache", _pay)
        return ""
    _owed.pop(key, None)
    return written


def _pay() -> None:
    give_up_at = clock.monotonic() + OWED_SECONDS
    owed: list[tuple[Key, News]] = []
    while _owed and clock.monotonic() < give_up_at:
        clock.sleep(1.0)
        owed = list(_owed.items())
        for key, news in owed:
            if _owed.get(key) is news and not _tell(key, news) and key in _owed:
                break  # it rests again
    for key, news in owed:  # by now nobody believes the cache any more without asking the database
        if _owed.get(key) is news:
            _owed.pop(key, None)


def _write(key: Key, news: News) -> str:
    """Write, sealed for its place, unless the cache holds later news. What was written; raises what caches do.

    Django's caches cannot compare and set, so between the look and the write somebody may have been faster: whoever
    was held up there takes back what it wrote.
    """
    cache = _shared_cache()
    if cache is None:
        raise CacheRests
    begun = clock.monotonic()
    # A cache in the database is written on a connection of ours: not in the caller's transaction, nor behind its locks.
    with private() if isinstance(cache, BaseDatabaseCache) else nullcontext():
        name, place = _spot(cache, key)
        there = _unseal(_got(cache, name), key, place)
        if there is not None and there.age > news.age:
            return ""
        raw = encrypt(news.text, place)
        cache.set(name, raw, timeout=news.ttl)
        if clock.monotonic() - begun > NEWS_SECONDS:
            cache.delete(name)
            return ""
    return raw


class CacheRests(Exception):
    """It failed a moment ago."""


def look_up(key: Key, known: Entry | None) -> Entry | None:
    """What the shared cache holds for ``key``: an entry, ``known`` itself if nothing changed, or None.

    Garbage, another account's entry, dead and outdated tokens count as nothing.
    """
    cache = _shared_cache()
    if cache is None:
        return None
    try:
        name, place = _spot(cache, key)
        raw = _got(cache, name)
    except Exception as exc:  # see forget()
        _rest(exc)
        return None
    if known is not None and raw and raw == known.raw:
        return None if is_outdated(known) else known
    entry = _unseal(raw, key, place)
    if entry is None:
        return None
    if not entry.value:  # withdrawn
        drop(key, entry.age)
        return None
    if clock.now() >= entry.usable_until or is_outdated(entry):
        return None
    return entry


# What unpickling raises about bytes that nobody pickled. It says nothing about the cache, which goes on working.
GARBAGE: Final = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, ImportError, IndexError, KeyError,
)  # fmt: skip


def _got(cache: BaseCache, name: str) -> Any:
    """What the cache holds under this name; None for what cannot be read, which the next write replaces."""
    try:
        return cache.get(name)
    except GARBAGE:
        return None


def is_confirmed(entry: Entry, now: dt.datetime) -> bool:
    """Whether the database vouched for this entry recently enough to serve it without asking again."""
    age = (now - entry.loaded_at).total_seconds()
    return -5.0 <= age < get_settings().cache_seconds


@contextmanager
def isolated() -> Iterator[None]:
    """Leave the shared cache alone: within, this process plays with a WeChat that is none."""
    global _isolated
    former, _isolated = _isolated, True
    try:
        yield
    finally:
        _isolated = former


def _shared_cache(*, resting: bool = False) -> BaseCache | None:
    """The cache all processes share, unless there is none, what is done here is nobody else's business, or (but for
    ``resting``) it failed a moment ago.
    """
    if _isolated or in_test_case() or get_settings().paused:
        return None
    if clock.monotonic() < _cache_rests_until and not resting:
        return None
    cache = caches[get_settings().cache_alias]
    return None if isinstance(cache, LocMemCache | DummyCache) else cache


def _rest(exc: Exception) -> None:
    global _cache_rests_until
    if isinstance(exc, CacheRests):
        return
    _cache_rests_until = clock.monotonic() + CACHE_REST
    logger.warning("The cache does not answer (%s); tokens are read from the database.", type(exc).__name__)


def _spot(cache: BaseCache, key: Key) -> tuple[str, Place]:
    """The name of the key's entry, and what only that entry opens with: site, kind and ref (S8)."""
    (ref, kind), namespace = key, site.namespace(cache)
    # Quoted: some caches refuse blanks and the like, and would count as down for the sake of one bad name.
    name = f"wechat_token:{namespace}:{quote(ref, safe=':@')[:120]}:{kind}"
    return name, Place("cache", f"{namespace}/{kind}/{ref}")


def _ttl(entry: Entry) -> int:
    return max(int((entry.usable_until - clock.now()).total_seconds()), 1)


def _written(entry: Entry) -> Secret:
    return Secret(
        json.dumps(
            [
                entry.ref, entry.kind, entry.token_id, entry.version, entry.revision, entry.value,
                entry.usable_until.timestamp(), entry.expires_at.timestamp(),
                None if entry.due_at is None else entry.due_at.timestamp(), entry.loaded_at.timestamp(),
            ]
        )
    )  # fmt: skip


def _withdrawn(key: Key, age: Age) -> Secret:
    now = clock.now().timestamp()
    return Secret(json.dumps([*key, 0, *age, "", now, now, None, now]))


def _unseal(raw: Any, key: Key, place: Place) -> Entry | None:
    """The entry in the cache's text; None for garbage, and for what is another credential's or site's."""
    if not isinstance(raw, str) or not raw or len(raw) > LONGEST_ENTRY * get_settings().max_answer_bytes:
        return None
    try:
        ref, kind, token_id, version, revision, value, usable, expires, due, loaded = json.loads(decrypt(raw, place))
        entry = Entry(
            ref, kind, int(token_id), int(version), int(revision), value,
            _moment(usable), _moment(expires), None if due is None else _moment(due), _moment(loaded), raw=raw,
        )  # fmt: skip
    except (EncryptionKeyError, ValueError, TypeError, OverflowError):
        return None
    return entry if entry.key == key and isinstance(value, str) else None


def _moment(timestamp: Any) -> dt.datetime:
    return dt.datetime.fromtimestamp(timestamp, dt.UTC)
