"""What a fuzz must not bring about: a server error, a hang, a lost worker, growing memory, a secret in sight."""

from __future__ import annotations

import json
import statistics
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.secrecy.canaries import Canaries

DOCUMENTED_503: Final = {"token_unavailable", "service_unavailable"}
GROWTH: Final = 0.03  # of a worker's memory, from the run's middle to its end
SLACK: Final = 3.0  # MB that a worker may go up and down by
TOLD: Final = 20  # faults that are printed


@dataclass
class Verdict:
    """Counts answers and keeps what is wrong.

    ``secrets`` are never to be in an answer or a log, ``tokens`` only in answers to requests with their key, ``keys``
    only where the server itself quotes a malformed request to its sender.
    """

    secrets: Canaries = field(default_factory=Canaries)
    tokens: Canaries = field(default_factory=Canaries)
    keys: Canaries = field(default_factory=Canaries)
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def fault(self, what: str) -> None:
        with self._lock:
            self.faults.append(what)

    def answered(self, about: str, answer: bytes, *, with_key: bool = False, odd_coding: bool = False) -> None:
        """``answer``: all bytes of it, '' if the server closed the connection without a word. ``odd_coding``: the
        request has a Transfer-Encoding, for which 501 is the right answer if nobody knows it.
        """
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head[9:12].decode("latin-1") or "closed"
        with self._lock:
            self.counts[status] += 1
        expected = (status == "503" and _is_documented(body)) or (status == "501" and odd_coding)
        if status[:1] == "5" and not expected:
            self.fault(f"{about}: HTTP {status} {body[-120:]!r}")
        quoted = status in ("400", "501") and body.startswith(b"<html>") and b"no-store" not in head
        self.look(about, answer, self.secrets, *(() if with_key else (self.tokens,)), *(() if quoted else (self.keys,)))

    def written(self, where: str, content: bytes) -> None:
        """Something that a process wrote: none of the three is to be in it."""
        self.look(where, content, self.secrets, self.tokens, self.keys)

    def look(self, about: str, content: bytes, *groups: Canaries) -> None:
        text = content.decode("utf-8", "replace")
        with self._lock:
            found = [name for group in groups for name, _around in group.find(text)]
        for name in found:
            self.fault(f"{about}: shows {name}")

    def memory(self, worker: int, samples: Sequence[float]) -> str:
        """Judge a worker's resident memory (MB, evenly spaced over the run); the figures in words."""
        if len(samples) < 10:
            self.fault(f"worker {worker}: {len(samples)} samples of its memory are too few")
            return "too few samples"
        tenth = max(len(samples) // 10, 1)
        middle = statistics.mean(samples[len(samples) // 2 : len(samples) // 2 + tenth])
        end = statistics.mean(samples[-tenth:])
        if end > middle * (1 + GROWTH) + SLACK:
            self.fault(f"worker {worker}: memory grew from {middle:.1f} to {end:.1f} MB in the second half")
        return f"{samples[0]:.1f} at first, {middle:.1f} in the middle, {end:.1f} MB at the end"

    def workers(self, before: Iterable[int], after: Iterable[int]) -> None:
        if gone := set(before) - set(after):
            self.fault(f"{len(gone)} workers ended during the run")

    def report(self) -> str:
        answers = ", ".join(f"{status}: {count}" for status, count in sorted(self.counts.items()))
        kinds = Counter(self.faults)
        lines = [f"answers: {sum(self.counts.values())} ({answers})", f"faults: {len(self.faults)}"]
        return "\n".join(lines + [f"  {count} × {what}" for what, count in kinds.most_common(TOLD)])


def _is_documented(body: bytes) -> bool:
    """In ``docs/http-api.md``: an error with a code, or health that says ``down``."""
    try:
        answer = json.loads(body)
    except ValueError:
        return False
    if not isinstance(answer, dict):
        return False
    error = answer.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code in DOCUMENTED_503 or answer.get("status") == "down"
