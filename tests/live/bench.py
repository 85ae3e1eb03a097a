"""A process that measures its own reads, phase by phase: ``python -m tests.live.bench APPID RATE THREADS``.

Each line of standard input is a number of seconds to read for, at ``RATE`` reads a second in each thread, or
``save`` to save an account five times, as an operator would. Each gets one JSON line as its answer.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django


def measure(appid: str, seconds: float, rate: float, pool: ThreadPoolExecutor, threads: int) -> dict[str, Any]:
    """``durations`` of all reads that gave a token, the ``tokens``, and the ``errors``.

    The threads are the same ones every time, with the database connections they have from before.
    """
    from wechat_token import get_access_token

    durations: list[float] = []
    tokens: set[str] = set()
    errors: list[str] = []
    end = time.monotonic() + seconds

    def read() -> None:
        while time.monotonic() < end:
            began = time.perf_counter()
            try:
                token = get_access_token(appid)
            except Exception as exc:
                errors.append(f"{type(exc).__name__}: {exc}")
            else:
                durations.append(time.perf_counter() - began)
                tokens.add(token)
            time.sleep(1 / rate)

    for done in [pool.submit(read) for _ in range(threads)]:
        done.result()
    return {"durations": durations, "tokens": sorted(tokens), "errors": errors}


def save(appid: str) -> dict[str, Any]:
    """How long each of five saves took; a save starts a task at the broker."""
    from wechat_token.models import Account

    account = Account.objects.get(appid=appid)
    durations = []
    for _ in range(5):
        began = time.perf_counter()
        account.save()
        durations.append(time.perf_counter() - began)
        time.sleep(0.2)
    return {"durations": durations, "tokens": [], "errors": []}


def main() -> None:
    django.setup()
    appid, rate, threads = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    pool = ThreadPoolExecutor(threads)
    measure(appid, 2.0, rate, pool, threads)
    for line in sys.stdin:
        answer = save(appid) if line.strip() == "save" else measure(appid, float(line), rate, pool, threads)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
