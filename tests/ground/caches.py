"""A cache that processes share, played in one process: its calls can fail, and be late as those of a slow process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

SETTING = {"default": {"BACKEND": "tests.ground.caches.SharedCache"}}


class CacheDown(Exception):
    """As a client's own errors, which have no common base."""


class SharedCache(BaseCache):
    """Keeps everything for ever; ``calls`` says what was asked of it."""

    stored: ClassVar[dict[str, Any]] = {}
    calls: ClassVar[list[str]] = []
    failing: ClassVar[set[str]] = set()
    late: ClassVar[list[tuple[str, Any]] | None] = None

    def __init__(self, location: str = "", params: dict[str, Any] | None = None) -> None:
        super().__init__(params or {})

    @classmethod
    def clear_all(cls) -> None:
        cls.stored.clear()
        cls.calls.clear()
        cls.failing.clear()
        cls.late = None

    @classmethod
    @contextmanager
    def fails(cls, *names: str) -> Iterator[None]:
        """``get``, ``set`` and ``delete`` of these names raise within."""
        cls.failing.update(names)
        yield
        cls.failing.difference_update(names)

    @classmethod
    @contextmanager
    def slow_process(cls) -> Iterator[list[tuple[str, Any]]]:
        """What is set within is under way when this ends, and arrives with :meth:`arrive`."""
        cls.late = under_way = []
        yield under_way
        cls.late = None

    @classmethod
    def arrive(cls, under_way: list[tuple[str, Any]]) -> None:
        for key, value in under_way:
            cls._put(key, value)

    @classmethod
    def _put(cls, key: str, value: Any) -> None:
        if value is None:
            cls.stored.pop(key, None)
        else:
            cls.stored[key] = value

    def _called(self, name: str, key: str, version: int | None) -> str:
        self.calls.append(name)
        if name in self.failing:
            raise CacheDown(name)
        return str(self.make_and_validate_key(key, version=version))

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        return self.stored.get(self._called("get", key, version), default)

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        key = self._called("set", key, version)
        if key in self.stored:
            return False
        self.stored[key] = value
        return True

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        key = self._called("set", key, version)
        if self.late is not None:
            self.late.append((key, value))
        else:
            self.stored[key] = value

    def delete(self, key: str, version: int | None = None) -> bool:
        key = self._called("delete", key, version)
        if self.late is not None:
            self.late.append((key, None))
            return True
        return self.stored.pop(key, None) is not None

    def has_key(self, key: str, version: int | None = None) -> bool:
        return self._called("get", key, version) in self.stored

    def clear(self) -> None:
        self.stored.clear()
