"""Callers that are greenlets: ``python -m tests.ground.greenlets LOCKED ABANDONED``, two AppIDs; prints JSON.

``LOCKED``: a caller whose own transaction holds the token's row. ``ABANDONED``: the caller that asked first gives up.
"""

# ruff: noqa: E402  all else is imported after the patch
from gevent import monkey

monkey.patch_all()

import json
import sys
import time
from typing import Any

import django
import gevent

from tests.ground.stage import ask, stored, wait_until


def own_lock(appid: str) -> dict[str, Any]:
    from django.db import transaction

    from tests.ground.test_callers_locks import take

    stood_still: list[float] = []

    def beat() -> None:
        while True:
            began = time.monotonic()
            gevent.sleep(0.01)
            stood_still.append(time.monotonic() - began - 0.01)

    heart = gevent.spawn(beat)
    with transaction.atomic():
        take("token locked", appid)
        stood_still.clear()
        answer = ask(appid)
        longest = max(stood_still)
        transaction.set_rollback(True)
    heart.kill()
    heals = wait_until(lambda: stored(appid))
    return {"answer": answer, "stood still": longest, "heals": heals}


def abandoned(appid: str) -> dict[str, Any]:
    def give_up_soon() -> str:
        try:
            with gevent.Timeout(0.4):
                return str(ask(appid))
        except gevent.Timeout:
            return "gave up"

    first = gevent.spawn(give_up_soon)
    gevent.sleep(0.2)
    second = gevent.spawn(ask, appid)
    return {"first": first.get(), "second": second.get(), "third": ask(appid)}


if __name__ == "__main__":
    django.setup()
    sys.stdout.write(json.dumps({"own lock": own_lock(sys.argv[1]), "abandoned": abandoned(sys.argv[2])}))
