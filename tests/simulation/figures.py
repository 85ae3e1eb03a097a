"""What a run is measured by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Figures:
    served: int = 0
    dead: int = 0  # dead tokens served, none of the excuses below
    dead_seconds: float = 0.0
    behind_our_back: int = 0  # killed by WeChat or another system, and nobody had complained yet
    slow_news: int = 0  # … known to the database, but not yet to this process, for more than a second
    within_skew: int = 0  # dead for less than the hosts' clocks differ
    blind: int = 0  # cache and database out of order for longer than the overlap
    restored: int = 0  # brought back by a backup of the database, and nobody had complained since
    unavailable: int = 0
    waits: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    repairs: int = 0
    repairs_disturbed: int = 0  # something else went wrong on the way
    longest_repair: float = 0.0
    kills: int = 0
    pauses: int = 0
    complaints: int = 0
    violations: int = 0

    @property
    def token_calls(self) -> int:
        return self.calls["classic"] + self.calls["stable"] + self.calls["stable_forced"]

    def repaired(self, seconds: float, disturbed: bool) -> None:
        if disturbed:
            self.repairs_disturbed += 1
            return
        self.repairs += 1
        self.longest_repair = max(self.longest_repair, seconds)
