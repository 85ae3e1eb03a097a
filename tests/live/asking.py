"""Questions of a child process, each written down with its answer, none awaited for ever.

A question that stays open past its limit is written down as a hang, and the process begins anew in place: its
threads, connections and transactions end, so that one hang is one line in the verdict and not the end of the run.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

WAIT: Final = 10.0  # seconds; the sites' WAIT_TIMEOUT: what a caller may wait where a fetch is needed
OWN_LOCK: Final = 2.0  # what one may wait whose own transaction holds what the fetch needs
AT_ONCE: Final = 1.0  # what one may wait for whom a good token is in the database
SLACK: Final = 3.0  # for a busy machine, and for the request under way (its deadline is 2.5 s)
GIVE_UP: Final = 10.0  # after limit and slack: whoever is merely late may still write down its own answer
TICK: Final = 0.25


@dataclass(slots=True)
class _Question:
    line: dict[str, Any]
    limit: float
    open_for: float = 0.0  # counted in ticks: a process that stands still does not age


class Asker:
    def __init__(self) -> None:
        self._open: dict[int, _Question] = {}
        self._numbers = itertools.count()
        self._writing = threading.Lock()
        threading.Thread(target=self._watch, name="hang-watch", daemon=True).start()

    def ask(self, appid: str, question: Callable[[], str], *, limit: float = WAIT, **about: str) -> str:
        """The token, or '' and an error in the log. ``about``: further fields of the :class:`Read`."""
        line: dict[str, Any] = {"appid": appid, "asked": time.time(), "limit": limit, **about}
        number = next(self._numbers)
        self._open[number] = _Question(line, limit)
        try:
            answer = {"token": question()}
        except Exception as exc:
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        finally:
            self._open.pop(number, None)
        self._write({**line, "at": time.time(), **answer})
        return answer.get("token", "")

    def _write(self, line: dict[str, Any]) -> None:
        with self._writing:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()

    def _watch(self) -> None:
        while True:
            time.sleep(TICK)
            for question in list(self._open.values()):
                question.open_for += TICK
                if question.open_for > question.limit + SLACK + GIVE_UP:
                    self._write({**question.line, "at": time.time(), "error": "Hang: no answer"})
                    begin_anew()


def begin_anew() -> None:
    """As a new process with the same command, identity and log. Does not return."""
    sys.stdout.flush()
    os.execv(sys.executable, sys.orig_argv)
