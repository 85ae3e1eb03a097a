"""Caches that carry text only, and which do not (S8).

Most of Django's cache backends unpickle what they read: whoever can write to the server behind one runs code in every
process that reads it. What this package keeps in a cache is text; so the alias it uses need not be able to carry
anything else::

    CACHES["wechat_token"] = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://…",
        "OPTIONS": {"serializer": "wechat_token.text_cache.TextSerializer"},
    }
    WECHAT_TOKEN["CACHE_ALIAS"] = "wechat_token"
"""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings as django_settings
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.memcached import PyLibMCCache, PyMemcacheCache
from django.core.cache.backends.redis import RedisCache, RedisSerializer
from django.utils.module_loading import import_string


class TextSerializer:
    """For Django's ``RedisCache``, and by its older name for django-redis: text in UTF-8, and nothing else."""

    def __init__(self, options: Any = None) -> None:
        """``options``: what django-redis hands to each serializer."""

    def dumps(self, value: Any) -> bytes:
        """Raises ``TypeError`` for anything but text, and shows nothing of it (S2)."""
        if isinstance(value, str):
            return value.encode("utf-8", "surrogatepass")
        raise TypeError(f"this cache carries text only, not {type(value).__name__}")

    def loads(self, value: bytes) -> str:
        """Raises ``ValueError`` for bytes that are no text."""
        return value.decode("utf-8")


def unpickles(alias: str) -> bool:
    """Whether the cache of this name unpickles what others can write into it; False where that cannot be told."""
    configured = django_settings.CACHES[alias]
    options = {str(name).lower(): value for name, value in configured.get("OPTIONS", {}).items()}
    backend = import_string(configured["BACKEND"])
    if configured["BACKEND"].startswith("django_redis."):
        return "pickle" in _path(options.get("serializer", "django_redis.serializers.pickle"))
    if issubclass(backend, RedisCache):
        return _is_pickling(options.get("serializer"))
    if issubclass(backend, PyMemcacheCache):
        return "serde" not in options or "pickle" in _path(options["serde"])
    return issubclass(backend, _ALWAYS)


_ALWAYS: Final = (FileBasedCache, DatabaseCache, PyLibMCCache)


def _is_pickling(serializer: Any) -> bool:
    if serializer is None:
        return True
    found = import_string(serializer) if isinstance(serializer, str) else serializer
    return issubclass(found if isinstance(found, type) else type(found), RedisSerializer)


def _path(thing: Any) -> str:
    if isinstance(thing, str):
        return thing.lower()
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__name__', type(thing).__name__)}".lower()
