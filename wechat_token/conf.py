"""The ``WECHAT_TOKEN`` setting: one dict, every key optional, read anew whenever Django's settings change.

Keys are the fields of :class:`Settings` in upper case. Unknown keys are reported by the system check
``wechat_token.E001`` and ignored here, so that a typo never stops a running site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed

NAME = "WECHAT_TOKEN"


@dataclass(frozen=True, slots=True)
class Settings:
    """Durations are in seconds unless the name says otherwise."""

    # -- WeChat
    api_base_url: str = "https://api.weixin.qq.com"
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    ca_bundle: str | None = None
    connect_timeout: float = 3.0
    request_deadline: float = 10.0  # total, from the first byte out to the last byte in
    max_answer_bytes: int = 65_536
    # -- life of a token
    overlap: float = 300.0  # how long WeChat keeps the old token working after a renewal
    lease_margin: float = 5.0  # the lease outlives the request deadline by this much (R2)
    wait_timeout: float = 15.0  # how long a caller without a usable token waits for somebody's refresh (R5)
    caller_grace: float = 15.0  # how long an overdue token is left to beat before callers renew it (R7)
    # -- serving
    cache_alias: str = "default"
    memory_seconds: float = 1.0  # how long a process trusts its own memory (R18)
    cache_seconds: float = 60.0  # how long a cached entry is trusted before the database is asked again
    # -- the batch
    beat_interval: int = 5  # first value of the periodic task; later edits in the admin win
    batch_size: int = 1000
    batch_threads: int = 32
    # -- secrecy and housekeeping
    encryption_keys: tuple[str, ...] = field(default=(), repr=False)
    log_days: int = 30


def known_keys() -> frozenset[str]:
    return frozenset(f.name.upper() for f in fields(Settings))


def unknown_keys() -> list[str]:
    return sorted(set(map(str, _configured())) - known_keys())


def _configured() -> Mapping[str, Any]:
    configured = getattr(django_settings, NAME, None)
    return configured if isinstance(configured, Mapping) else {}


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    known = known_keys()
    values = {key.lower(): value for key, value in _configured().items() if key in known}
    if "encryption_keys" in values:
        values["encryption_keys"] = tuple(values["encryption_keys"])
    return Settings(**values)


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == NAME:
        get_settings.cache_clear()


setting_changed.connect(_forget, dispatch_uid="wechat_token.conf")
