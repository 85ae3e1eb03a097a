"""Logs, printed lines and warnings of a process."""

from __future__ import annotations

import logging
import sys
import warnings

from tests.secrecy.scene import Scene

from .base import Seen, sink

# -- logs --------------------------------------------------------------------------------------------


_named: set[str] = set()  # what has a sink of its own; see Recorder.emit


def _log(name: str, *families: str) -> None:
    _named.update(families)

    @sink(f"log: {name}", lambda scene, text: logging.getLogger(families[0]).debug("x %s", text))
    def collect(scene: Scene) -> Seen:
        return ((family, line) for family in families for line in scene.recorder.lines[family])


_log("wechat_token", "wechat_token")
_log("urllib3 and requests", "urllib3", "requests")
_log("celery", "celery", "kombu", "amqp", "billiard", "redis")
_log("SQL", "django.db")
_log("requests that failed", "django.request", "django.security")
_log("access lines of runserver", "django.server")
_log("access lines of gunicorn and uvicorn", "gunicorn", "uvicorn")
_log("gunicorn's errors", "gunicorn.error")
_log("security", "wechat_token.security")


@sink("log: everybody else", lambda scene, text: logging.getLogger("asyncio").debug(text))
def other_logs(scene: Scene) -> Seen:
    for family, lines in scene.recorder.lines.items():
        if family not in _named:
            yield from ((family, line) for line in lines)


# -- the process's own output ------------------------------------------------------------------------


@sink("standard output", lambda scene, text: print(text))  # noqa: T201  what is tested
def stdout(scene: Scene) -> Seen:
    yield "stdout", scene.recorder.stdout.getvalue()


@sink("standard error", lambda scene, text: print(text, file=sys.stderr))  # noqa: T201  likewise
def stderr(scene: Scene) -> Seen:
    yield "stderr", scene.recorder.stderr.getvalue()


@sink("warnings", lambda scene, text: warnings.warn(text, stacklevel=1))
def python_warnings(scene: Scene) -> Seen:
    return (("warning", str(warning)) for warning in scene.recorder.warnings)
