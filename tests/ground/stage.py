"""The stage: ``python -m tests.ground.stage SOCKET`` plays scenes, each in a fresh process forked from this one.

A scene is a function of a test module. Django is set up once, before the fork, without a database connection, so that
a fresh process costs a few milliseconds. The scene's settings are put on after the fork. A process ends as any other
does, exit hooks included, and its end is what the other side waits for.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import socket
import sys
import threading
import time
import traceback
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import django


def main() -> None:
    django.setup()
    for name in ("django.test", "psycopg", "psycopg_pool", "MySQLdb", "wechat_token.engine", "example_project.urls"):
        with contextlib.suppress(ImportError):  # its service is not tested here, then
            importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(sys.argv[1])
        door.listen(64)
        while True:
            connection, _ = door.accept()
            line = connection.makefile("rw")
            order = json.loads(line.readline())
            with contextlib.suppress(Exception):  # the process of the scene will say so
                find(order)  # imported before the fork, modules need not be imported again
            gc.freeze()
            if os.fork() == 0:
                os.setsid()
                door.close()
                play(order, line)
                leave()
            line.close()
            connection.close()
            reap()


def find(order: dict[str, Any]) -> Any:
    module, _, name = order["scene"].partition(":")
    return getattr(importlib.import_module(module), name)


def reap() -> None:
    """Take leave of the scenes that have ended, so that the time they took is known."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


# -- in the process of a scene ---------------------------------------------------------------------

_line: Any = None  # to and from whoever ordered the scene


def play(order: dict[str, Any], line: Any) -> None:
    global _line
    _line = line
    _say(pid=os.getpid())
    try:
        dress(order)
        _say(result=find(order)(*order["args"], **order["kwargs"]))
    except BaseException:
        _say(failure=traceback.format_exc())


def leave() -> None:
    """End this process as the interpreter would, but for taking every module apart, which is most of its work."""
    threading._shutdown()  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    os._exit(0)


def _say(**what: Any) -> None:
    _line.write(json.dumps(what) + "\n")
    _line.flush()


def pause(what: Any = None) -> None:
    """Tell whoever ordered the scene that it got this far, and wait until it may go on."""
    _say(paused=what)
    _line.readline()


def dress(order: dict[str, Any]) -> None:
    """Put on a scene's settings. ``databases``: changes by alias; an empty one is no database at all."""
    from django.conf import settings
    from django.db import connections
    from django.test import override_settings

    for alias, changes in order["databases"].items():
        found = settings.DATABASES.setdefault(alias, {})
        if alias != "default" and not found:
            found.update(settings.DATABASES["default"])
        found.update(changes)
    for alias in [alias for alias, changes in order["databases"].items() if not changes]:
        settings.DATABASES[alias].clear()
    for connection in connections.all(initialized_only=True):
        del connections[connection.alias]  # made, not opened, while Django was set up
    connections.configure_settings(settings.DATABASES)
    changed = dict(order["settings"])
    if order["wechat"]:
        changed["WECHAT_TOKEN"] = {**settings.WECHAT_TOKEN, **order["wechat"]}
    override_settings(**changed).enable()


# -- what scenes have in common --------------------------------------------------------------------


def ask(appid: str | None = None, *, stale: str = "") -> dict[str, Any]:
    """What a caller gets, and after how many seconds."""
    from wechat_token import get_access_token, refresh_access_token

    began = time.monotonic()
    try:
        token = refresh_access_token(appid, stale_token=stale) if stale else get_access_token(appid)
    except Exception as exc:
        return heard(exc) | {"seconds": time.monotonic() - began}
    return {"token": token, "seconds": time.monotonic() - began}


def heard(exc: BaseException) -> dict[str, Any]:
    return {"error": [cls.__name__ for cls in type(exc).__mro__], "text": str(exc)}


def together(callers: int, work: Callable[[], Any], *, patience: float = 20.0) -> list[Any]:
    """Run ``work`` in so many threads, let go at one moment. One that hangs longer than ``patience`` gets None."""
    from django.db import connections

    start = threading.Barrier(callers)
    results: list[Any] = [None] * callers

    def run(number: int) -> None:
        start.wait()
        try:
            results[number] = work()
        except Exception as exc:
            results[number] = heard(exc)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(callers)]
    for thread in threads:
        thread.start()
    give_up_at = time.monotonic() + patience
    for thread in threads:
        thread.join(max(give_up_at - time.monotonic(), 0))
    return list(results)


def aside(work: Callable[[], Any]) -> threading.Thread:
    """Start ``work`` in a thread of its own, that closes its connections."""
    from django.db import connections

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def wait_until(condition: Callable[[], Any], patience: float = 5.0) -> float | None:
    """Seconds until ``condition`` was true, None if it did not come true."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > patience:
            return None
        time.sleep(0.02)
    return time.monotonic() - began


def shift_clock(by: float) -> None:
    """Let this host's own clock be wrong by so many seconds, whatever the package makes of it."""
    from wechat_token import clock

    name = "wall" if hasattr(clock, "wall") else "now"
    right = getattr(clock, name)
    setattr(clock, name, lambda: right() + clock.dt.timedelta(seconds=by))


def weixin(action: str, **what: Any) -> Any:
    """Ask or tell the fake WeChat something through its controls; see :mod:`wechat_token.sandbox.control`."""
    from django.conf import settings

    url = f"{settings.WECHAT_TOKEN['API_BASE_URL']}/_sandbox/{action}"
    if action in ("state", "calls", "issued", "calls_to"):
        request = urllib.request.Request(f"{url}?{urllib.parse.urlencode(what)}")
    else:
        request = urllib.request.Request(url, data=json.dumps(what).encode(), method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=5) as answer:
        return json.load(answer).get("result")


def all_asked(appids: list[str], endpoint: str) -> bool:
    """Whether WeChat was asked for a token of each account."""
    return all(weixin("calls_to", appid=appid, endpoint=endpoint) for appid in appids)


def stored(appid: str) -> str:
    """The token in the database, '' if there is none."""
    from wechat_token.models import Token

    token = Token.objects.filter(account__appid=appid).first()
    return token.value.reveal() if token is not None and token.version else ""


def add_key(*options: str) -> str:
    """Scene: a new client key."""
    import io

    from django.core.management import call_command

    printed = io.StringIO()
    call_command("wechat_token", "add-key", "ground", *options, stdout=printed)
    return printed.getvalue().strip()


CACHE_TABLE = {
    "default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "ground_cache"},
}


def make_cache_table() -> None:
    """Scene."""
    from django.core.management import call_command

    call_command("createcachetable", "ground_cache", verbosity=0)


if __name__ == "__main__":
    from tests.ground import stage  # the module that scenes import, not this copy of it

    stage.main()
