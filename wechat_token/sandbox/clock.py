"""A clock that moves only when told to, so that hours of token life pass in no time (R19)."""

from __future__ import annotations


class ManualClock:
    """Call it for the time in seconds; move it with :meth:`advance`. Never goes back."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> float:
        """Let ``seconds`` pass and return the new time. Raises ``ValueError`` for a step back."""
        if seconds < 0:
            raise ValueError("time does not run backwards")
        self._now += seconds
        return self._now
