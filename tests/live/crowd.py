"""A crowd of readers: ``python -m tests.live.crowd APPID PROCESSES THREADS SECONDS [KIND]``.

Forks the processes, starts the threads, lets all ask at one moment (cold), and then read several times a second
until the time is over (warm). Prints a JSON list with one report a process.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import Any, Final

import django
from django.db import connections

from .readers import at_once

PAUSE: Final = (0.1, 0.4)  # seconds between two reads of a thread
SLOW: Final = 0.2  # seconds; reads as slow as this are reported one by one


def join_in(appid: str, threads: int, seconds: float, kind: str) -> dict[str, Any]:
    """What one process sees of the credential of this kind. ``slow`` are the warm reads of ``SLOW`` or longer: (asked
    at, seconds).
    """
    from wechat_token import get_ticket

    together = threading.Barrier(threads)
    reads: list[int] = []
    cold: list[float] = []
    slow: list[tuple[float, float]] = []
    errors: list[str] = []
    tokens: dict[str, float] = {}  # when each was last asked for

    def read() -> float:
        asked = time.time()
        try:
            token = get_ticket(appid, kind)
            tokens[token] = time.time() if token not in tokens else asked
        except Exception as exc:
            errors.append(f"{type(exc).__name__}: {exc}")
        took = time.time() - asked
        # As at the end of a request: a thousand threads must not keep a connection each.
        connections.close_all()
        return took

    def run() -> None:
        together.wait()
        cold.append(read())
        end, count = time.time() + seconds, 1
        while time.time() < end:
            time.sleep(random.uniform(*PAUSE))
            asked = time.time()
            took = read()
            count += 1
            if took >= SLOW:
                slow.append((asked, took))
        reads.append(count)

    crew = [threading.Thread(target=run) for _ in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return {"reads": sum(reads), "cold": max(cold), "slow": slow, "errors": errors, "tokens": tokens}


def main() -> None:
    django.setup()
    appid, processes, threads, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    kind = sys.argv[5] if sys.argv[5:] else "access_token"
    print(json.dumps(at_once(processes, lambda: join_in(appid, threads, seconds, kind))))


if __name__ == "__main__":
    main()
