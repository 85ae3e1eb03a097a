"""A cache shared by all simulated processes, like Redis: it forgets, fails, and holds what it should not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import World


class CacheDown(Exception):
    pass


class SharedCache:
    """The part of Django's cache API that the package uses."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.content: dict[str, tuple[float, Any]] = {}

    def __getitem__(self, alias: str) -> SharedCache:
        return self  # it is its own ``django.core.cache.caches``

    def get(self, key: str) -> Any:
        self._pass()
        ends, value = self.content.get(key, (0.0, None))
        return value if self.world.kernel.now < ends else None

    def set(self, key: str, value: Any, timeout: float | None) -> None:
        world = self.world
        if world.swarm.late_sets and world.rng.random() < world.swarm.late_sets:
            world.hold_up(world.rng.uniform(1.0, 120.0))
        self._pass(writes=True)
        self.content[key] = (math.inf if timeout is None else self.world.kernel.now + timeout, value)

    def delete(self, key: str) -> None:
        self._pass(writes=True)
        self.content.pop(key, None)

    def flush(self) -> None:
        self.content.clear()

    def poison(self, victim: str, other: str) -> None:
        """Put garbage, or the entry of another account, where the victim's entry is."""
        ends, foreign = self.content.get(self._name(other), (self.world.kernel.now + 60.0, "garbage"))
        value = self.world.rng.choice([foreign, foreign, "gAAAAA-garbage", "", 17, b"\xff\x00"])
        self.content[self._name(victim)] = (ends, value)

    def _name(self, appid: str) -> str:
        return next((name for name in self.content if name.endswith(f":{appid}:access_token")), "")

    def _pass(self, *, writes: bool = False) -> None:
        world = self.world
        world.step("cache", 0.0002 + 0.0008 * world.rng.random())
        host = world.kernel.alive().process.host
        swarm = world.swarm
        down_until = max(host.cache_down_until, host.cache_read_only_until if writes else 0.0)
        if world.kernel.now < down_until or (swarm.cache_error and world.rng.random() < swarm.cache_error):
            world.cache_trouble_at = world.kernel.now
            raise CacheDown
