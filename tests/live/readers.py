"""Children of the live tests: many real processes that ask for a token at one moment, or one that asks for ever.

``python -m tests.live.readers stampede APPID N``: fork N processes, release them at once, print a JSON list of
what each got. ``complain APPID N TOKEN``: N processes complain about TOKEN at once.
``loop APPIDS SECONDS [PAUSE]``: read in turn the tokens of the AppIDs, which commas separate; a JSON line a read.
``http APPIDS SECONDS PAUSE URL``: the same over HTTP with the client key in ``$WECHAT_TOKEN_LIVE_KEY``.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import django

from .asking import Asker
from .service import Service


def at_once(processes: int, work: Callable[[], Any]) -> list[Any]:
    """Run ``work`` in forked processes that start at the same moment; their results, or the names of their errors.

    They stand for processes that live on: each does what is left to do after its answer before it ends.
    """
    from wechat_token.engine import settle

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
            with os.fdopen(write, "w") as pipe:
                json.dump(result, pipe)
            settle(10)
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


def loop(appids: list[str], seconds: float, pause: float, read: Callable[[str], str]) -> None:
    """Read in turn and say so, one line a read. ``asked`` and ``at``: when the question and the answer came."""
    end = time.time() + seconds
    asker = Asker()
    for appid in itertools.cycle(appids):
        if time.time() >= end:
            return
        asker.ask(appid, partial(read, appid))
        time.sleep(pause)


def main() -> None:
    what, appid, *rest = sys.argv[1:]
    if what == "http":
        service = Service(rest[2], os.environ["WECHAT_TOKEN_LIVE_KEY"])
        loop(appid.split(","), float(rest[0]), float(rest[1]), lambda appid: service.read(appid).token)
        return
    django.setup()
    from wechat_token import get_access_token, refresh_access_token

    if what == "stampede":
        print(json.dumps(at_once(int(rest[0]), lambda: get_access_token(appid))))
    elif what == "complain":
        print(json.dumps(at_once(int(rest[0]), lambda: refresh_access_token(appid, stale_token=rest[1]))))
    else:
        loop(appid.split(","), float(rest[0]), float(rest[1]) if rest[1:] else 0.1, get_access_token)


if __name__ == "__main__":
    main()
