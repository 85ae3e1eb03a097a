"""Children of the live tests: many real processes that ask for a token at one moment, or one that asks for ever.

``python -m tests.live.readers stampede APPID N``: fork N processes, release them at once, print a JSON list of
what each got. ``python -m tests.live.readers loop APPID SECONDS``: read ten times a second; one JSON line a read.
``python -m tests.live.readers complain APPID N TOKEN``: N processes complain about TOKEN at once.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import django


def at_once(processes: int, work: Callable[[], Any]) -> list[Any]:
    """Run ``work`` in forked processes that start at the same moment; their results, or the names of their errors."""
    gate_read, gate_write = os.pipe()
    pipes = []
    for _ in range(processes):
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(gate_write)
            os.read(gate_read, 1)  # returns when the parent closes its end
            try:
                result = work()
            except Exception as exc:
                result = f"{type(exc).__name__}: {exc}"
            os.write(write, json.dumps(result).encode())
            os._exit(0)
        os.close(write)
        pipes.append(read)
    time.sleep(0.3)
    os.close(gate_write)
    results = []
    for read in pipes:
        with os.fdopen(read) as pipe:
            results.append(json.loads(pipe.read()))
    for _ in pipes:
        os.wait()
    return results


def loop(appid: str, seconds: float) -> None:
    from wechat_token import get_access_token

    end = time.time() + seconds
    while time.time() < end:
        asked = time.time()
        try:
            got: dict[str, Any] = {"token": get_access_token(appid)}
        except Exception as exc:
            got = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps({"asked": asked, "at": time.time(), **got}), flush=True)
        time.sleep(0.1)


def main() -> None:
    django.setup()
    from wechat_token import get_access_token, refresh_access_token

    what, appid, *rest = sys.argv[1:]
    if what == "stampede":
        print(json.dumps(at_once(int(rest[0]), lambda: get_access_token(appid))))
    elif what == "complain":
        print(json.dumps(at_once(int(rest[0]), lambda: refresh_access_token(appid, stale_token=rest[1]))))
    else:
        loop(appid, float(rest[0]))


if __name__ == "__main__":
    main()
