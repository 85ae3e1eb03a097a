"""Counting what comes too often, per name and minute, in a table that cannot grow without end.

Each process counts for itself: this guards logs and patience, not secrecy. That rests on the keys' 190 random
bits.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Count:
    """``number``: this is the how-manieth within the window; ``seconds_left``: until the window ends;
    ``before``: how many the window before had, if it ended just now."""

    number: int
    seconds_left: float
    before: int = 0


class Throttle:
    """Counts events by name in windows of ``window`` seconds. The names longest unheard of are dropped."""

    def __init__(self, *, window: float = 60.0, capacity: int = 4096) -> None:
        self.window = window
        self.capacity = capacity
        self._entries: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def seen(self, name: Hashable, now: float) -> int:
        """How many events of ``name`` the current window has."""
        with self._lock:
            start, number = self._entries.get(name, (now, 0))
        return number if start <= now < start + self.window else 0

    def hit(self, name: Hashable, now: float) -> Count:
        """Count one event of ``name`` at ``now`` (monotonic seconds)."""
        with self._lock:
            start, number = self._entries.pop(name, (now, 0))
            before = 0
            if not start <= now < start + self.window:
                before = number if now < start + 2 * self.window else 0
                start, number = now, 0
            self._entries[name] = (start, number + 1)
            if len(self._entries) > self.capacity:
                self._entries.popitem(last=False)
        return Count(number + 1, start + self.window - now, before)
