"""What is known of a site, as :mod:`facts` reads it and :mod:`problems` judges it."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..platforms import ACCESS_TOKEN, OFFICIAL_ACCOUNT


class Database(enum.StrEnum):
    OK = "ok"
    READ_ONLY = "read-only"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class HostFact:
    """A ``Host`` row. ``problems``: text by subject, of those that were met within ``HOST_IS_GONE``."""

    name: str
    seen_at: dt.datetime
    beat_at: dt.datetime | None = None
    worker_at: dt.datetime | None = None
    ticked_at: dt.datetime | None = None
    tick_seconds: float = 0.0
    problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failing:
    """Tokens whose renewal fails for one reason. ``dead``: of these without a usable token; ``late``: of these dead or
    near their end after several tries; ``first_end``: when the next of them dies."""

    error_class: str
    errcode: int | None
    egress_ip: str
    count: int
    dead: int = 0
    late: int = 0
    examples: tuple[str, ...] = ()
    first_end: dt.datetime | None = None
    on_stable: bool = True  # all of them
    platform: str = OFFICIAL_ACCOUNT
    kind: str = ACCESS_TOKEN


@dataclass(frozen=True, slots=True)
class Group:
    count: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quota:
    appid: str
    endpoint: str
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class KeyEnd:
    name: str
    expires_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """``every``: seconds between ticks as far as beat's own table tells, None if somebody else starts them;
    ``tick``: '' or why beat starts none; ``waiting_since``: when the first active account was made."""

    now: dt.datetime
    database: Database = Database.OK
    hosts: tuple[HostFact, ...] = ()
    every: float | None = None
    tick: str = ""
    waiting_since: dt.datetime | None = None
    drain_deadline: float = 20.0
    paused: bool = False
    is_copy: bool = False
    failing: tuple[Failing, ...] = ()
    overdue: Group = Group()
    oldest_due: dt.datetime | None = None
    others: Mapping[str, Group] = field(default_factory=dict)  # whom another system renews, by endpoint
    complained: Group = Group()
    quotas: tuple[Quota, ...] = ()
    keys: tuple[KeyEnd, ...] = ()
