"""Percentiles of durations, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Durations:
    """All in seconds."""

    count: int
    p50: float
    p99: float
    longest: float

    def __str__(self) -> str:
        return (
            f"{self.count} reads, p50 {1e6 * self.p50:.1f} µs, p99 {1e6 * self.p99:.1f} µs, "
            f"longest {1e3 * self.longest:.2f} ms"
        )


def summarize(durations: Sequence[float]) -> Durations:
    """Raises ``IndexError`` if there are none."""
    ordered = sorted(durations)

    def at(share: float) -> float:
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)]

    return Durations(len(ordered), at(0.5), at(0.99), ordered[-1])


def machine() -> str:
    system = (
        platform.freedesktop_os_release()["PRETTY_NAME"] if os.path.exists("/etc/os-release") else platform.system()
    )
    return f"{os.cpu_count()} cores, {system}, Python {platform.python_version()}"
