"""The life of the tokens the fake has issued: made, displaced, revoked, expired, and looked up afterwards."""

from __future__ import annotations

import base64
import hashlib
import math
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import Final

FORGET_AFTER: Final = 3600.0
"""Seconds after its end that a token is forgotten where no history is kept."""


@dataclass(slots=True, eq=False)
class IssuedToken:
    """A token or ticket. It works in ``start <= t < end``; ``repr`` shows its serial, never its text."""

    text: str = field(repr=False)
    appid: str
    line: str
    serial: int
    start: float
    expiry: float  # its natural end
    told: float = 0.0  # the full life, as a ticket's answer tells it each time
    cut: float = math.inf  # displaced or revoked: dead from here on

    @property
    def end(self) -> float:
        return min(self.expiry, self.cut)

    def valid_at(self, t: float) -> bool:
        return self.start <= t < self.expiry and t < self.cut

    def cut_at(self, t: float) -> None:
        """Shorten the life. It never grows again."""
        self.cut = min(self.cut, t)

    def expires_in(self, now: float) -> int:
        """Whole seconds left of its natural life, at least 1; immune to rounding of large clock values."""
        return max(1, math.floor(self.expiry - now + 1e-6))


@dataclass(frozen=True, slots=True)
class Validity:
    """When one token worked: ``start <= t < end``. The token itself is named by its serial number only."""

    serial: int
    line: str
    start: float
    end: float


class Mint:
    """Makes texts that look like WeChat's: the same ones for the same seed, not guessable without it."""

    def __init__(self, seed: int | str | None) -> None:
        self._key = secrets.token_bytes(32) if seed is None else hashlib.sha256(str(seed).encode()).digest()
        self._rids = 0

    def _bytes(self, size: int, *parts: object) -> bytes:
        return hashlib.shake_256(self._key + "|".join(map(str, parts)).encode()).digest(size)

    def token(self, appid: str, line: str, serial: int) -> str:
        """139 characters, a two-digit cluster number and URL-safe base64."""
        raw = self._bytes(103, "token", appid, line, serial)
        return f"{10 + raw[0] % 90}_{base64.urlsafe_b64encode(raw[1:]).decode()}"

    def ticket(self, appid: str, line: str, serial: int) -> str:
        """86 characters, as WeChat's JS-SDK tickets."""
        raw = self._bytes(64, "ticket", appid, line, serial)
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    def rid(self, now: float) -> str:
        """A request id ``hhhhhhhh-hhhhhhhh-hhhhhhhh``; the first part is the time."""
        self._rids += 1
        tail = self._bytes(8, "rid", self._rids).hex()
        return f"{int(now) & 0xFFFFFFFF:08x}-{tail[:8]}-{tail[8:]}"


class Vault:
    """Every token issued, by its text. Without ``keep_all`` those long dead are forgotten, to save memory."""

    def __init__(self, *, keep_all: bool) -> None:
        self._by_text: dict[str, IssuedToken] = {}
        self._in_order: deque[IssuedToken] = deque()
        self._keep_all = keep_all

    def add(self, token: IssuedToken) -> None:
        self._by_text[token.text] = token
        self._in_order.append(token)
        if self._keep_all:
            return
        while self._in_order[0].end + FORGET_AFTER < token.start:
            del self._by_text[self._in_order.popleft().text]

    def find(self, text: str) -> IssuedToken | None:
        return self._by_text.get(text)

    def of(self, appid: str) -> list[IssuedToken]:
        return [token for token in self._in_order if token.appid == appid]


class TokenLine:
    """The succession of tokens of one kind: one current, and displaced ones that may still live a while."""

    def __init__(self) -> None:
        self.current: IssuedToken | None = None
        self.stuck = False  # the platform goes on handing out a current token that no longer works
        self._displaced: deque[IssuedToken] = deque()

    def succeed(self, new: IssuedToken, *, overlap: float, only_previous: bool) -> None:
        """Make ``new`` current. The displaced token lives ``overlap`` seconds more at most.

        ``only_previous``: tokens displaced earlier die at once, so that two renewals end a leaked token.
        """
        now = new.start
        if only_previous:
            self._cut_displaced(now)
        while self._displaced and self._displaced[0].end <= now:
            self._displaced.popleft()
        if self.current is not None:
            self.current.cut_at(now + overlap)
            self._displaced.append(self.current)
        self.current = new
        self.stuck = False

    def revoke(self, now: float) -> None:
        """End every token of this line now."""
        if self.current is not None:
            self.current.cut_at(now)
        self._cut_displaced(now)

    def _cut_displaced(self, now: float) -> None:
        for token in self._displaced:
            token.cut_at(now)
        self._displaced.clear()

    def offered(self, now: float) -> IssuedToken | None:
        """The current token if the platform would still hand it out."""
        token = self.current
        if token is not None and (token.valid_at(now) or (self.stuck and now < token.expiry)):
            return token
        return None
