"""Where the state of alerts is kept: in rows, or in the cache while the database takes none."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import logging
from collections.abc import Collection
from typing import Any, Final, Protocol

from django.core.cache import caches
from django.db import IntegrityError, connections

from .. import clock, process
from ..conf import get_settings
from ..engine import alias, host_name, private
from ..models import Alert
from .telling import State

logger = logging.getLogger("wechat_token.alerts")

OUTAGES: Final = ("database-read-only", "database-unreachable")  # the causes that cannot be kept in rows
KEPT_IN_CACHE: Final = 24 * 3600  # seconds
HOST_COUNTS: Final = (
    60.0  # seconds for which a host that cannot reach the database keeps the others from saying it is over
)

_FIELDS: Final = tuple(field.name for field in dataclasses.fields(State))


class States(Protocol):
    def load(self, present: Collection[str]) -> dict[str, State]:
        """By cause. ``present``: what this process has found."""

    def write(self, state: State) -> State | None:
        """Write it, if nobody has since it was read; as it is then, or None."""

    def forget(self, state: State) -> None: ...


class InDatabase:
    """One conditional UPDATE for each change, which commits at once. Raises database errors."""

    def load(self, present: Collection[str]) -> dict[str, State]:
        with private():
            rows = list(Alert.objects.all())
        return {row.cause: _of_row(row) for row in rows}

    def write(self, state: State) -> State | None:
        news = {name: getattr(state, name) for name in _FIELDS} | {"delivered": list(state.delivered)}
        news["revision"] = state.revision + 1
        with private() as using:
            rows = Alert.objects.using(using)
            if state.revision:
                written = rows.filter(cause=state.cause, revision=state.revision).update(**news)
                return dataclasses.replace(state, revision=state.revision + 1) if written else None
            if rows.filter(cause=state.cause).exists():
                return None
            try:
                rows.create(**news)
            except IntegrityError:  # another process was faster
                return None
        return dataclasses.replace(state, revision=1)

    def forget(self, state: State) -> None:
        with private() as using:
            Alert.objects.using(using).filter(cause=state.cause, revision=state.revision).delete()


def _of_row(row: Alert) -> State:
    values = {name: getattr(row, name) for name in _FIELDS}
    kept = row.delivered if isinstance(row.delivered, list) else []
    return State(**{**values, "delivered": tuple(map(str, kept))})


# Without a cache that answers: what this process has told, by itself.
_kept: dict[str, dict[str, Any]]
process.keep(globals(), _kept=dict)


class InCache:
    """Of the database's own outages. An entry also names the hosts that see it: the others cannot call it over."""

    def load(self, present: Collection[str]) -> dict[str, State]:
        found = {}
        for cause in OUTAGES:
            entry = self._read(cause)
            if entry is None:
                continue
            if cause in present:
                self._seen(cause, entry)
            elif self._is_seen_elsewhere(cause, entry):
                continue
            found[cause] = _of_entry(cause, entry)
        return found

    def write(self, state: State) -> State | None:
        number = state.revision + 1
        try:
            if not self._cache.add(f"{self._key(state.cause)}:{state.first_at.timestamp()}:{number}", 1, timeout=600):
                return None
        except Exception:  # whatever a cache backend raises: this process is on its own
            logger.debug("The cache takes no alert either.")
        written = dataclasses.replace(state, revision=number)
        entry = _as_entry(written)
        entry["hosts"] = (self._read(state.cause) or {}).get("hosts", {})
        if written.gone_at is None:
            entry["hosts"][host_name()] = clock.now().timestamp()
        self._write(state.cause, entry)
        return written

    def forget(self, state: State) -> None:
        _kept.pop(state.cause, None)
        try:
            self._cache.delete(self._key(state.cause))
        except Exception:
            return

    @property
    def _cache(self) -> Any:
        return caches[get_settings().cache_alias]

    def _key(self, cause: str) -> str:
        settings = connections[alias()].settings_dict
        way = "/".join(str(settings[name]) for name in ("ENGINE", "PORT", "NAME"))
        return f"wechat_token:alert:{hashlib.sha256(way.encode()).hexdigest()[:16]}:{cause}"

    def _read(self, cause: str) -> dict[str, Any] | None:
        try:
            entry = json.loads(self._cache.get(self._key(cause)) or "null")
        except Exception:
            entry = None
        entry = entry if isinstance(entry, dict) else _kept.get(cause)
        try:
            if entry is not None:
                _of_entry(cause, entry)
        except (KeyError, TypeError, ValueError):  # of another version
            return None
        return entry

    def _write(self, cause: str, entry: dict[str, Any]) -> None:
        _kept[cause] = entry
        try:
            self._cache.set(self._key(cause), json.dumps(entry), timeout=KEPT_IN_CACHE)
        except Exception:
            return

    def _seen(self, cause: str, entry: dict[str, Any]) -> None:
        entry.setdefault("hosts", {})[host_name()] = clock.now().timestamp()
        self._write(cause, entry)

    def _is_seen_elsewhere(self, cause: str, entry: dict[str, Any]) -> bool:
        hosts = {name: at for name, at in entry.get("hosts", {}).items() if name != host_name()}
        oldest = clock.now().timestamp() - HOST_COUNTS
        return cause == "database-unreachable" and any(at > oldest for at in hosts.values())


_TIMES: Final = ("first_at", "gone_at", "told_at", "sending_until")


def _as_entry(state: State) -> dict[str, Any]:
    values = {name: getattr(state, name) for name in _FIELDS} | {"delivered": list(state.delivered)}
    return values | {name: values[name] and values[name].isoformat() for name in _TIMES}


def _of_entry(cause: str, entry: dict[str, Any]) -> State:
    values = {name: entry[name] for name in _FIELDS} | {"cause": cause, "delivered": tuple(entry["delivered"])}
    return State(**values | {name: values[name] and dt.datetime.fromisoformat(values[name]) for name in _TIMES})
