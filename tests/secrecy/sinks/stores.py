"""What is stored: messages, results, rows, the cache."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from pprint import pformat
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core import serializers
from django.core.cache import caches

from tests.secrecy.scene import Scene
from tests.secrecy.site import PLAIN
from wechat_token import clock
from wechat_token.models import Account, ClientKey, KeyUsage, RefreshLog, Token

from .base import Seen, files, name_account, sink
from .printed import output

# -- Celery ------------------------------------------------------------------------------------------


def _send_task(scene: Scene, text: str) -> None:
    scene.run_task("site.publish", text)


@sink("Celery messages", _send_task)
def celery_messages(scene: Scene) -> Seen:
    for path in files(scene.folder / "messages"):
        raw = path.read_text(errors="replace")
        yield path.name, raw
        if path.suffix == ".msg":
            body = json.loads(raw).get("body", "")
            yield path.name, _unbased(body)


@sink("Celery results", _send_task)
def celery_results(scene: Scene) -> Seen:
    return ((path.name, path.read_text(errors="replace")) for path in files(scene.folder / "results"))


@sink("Celery results in hand", _send_task)
def celery_in_hand(scene: Scene) -> Seen:
    return (("result", text) for text in scene.eager)


def _unbased(text: str) -> str:
    try:
        return base64.b64decode(text).decode("latin-1")
    except ValueError:
        return ""


# -- what is stored ----------------------------------------------------------------------------------


@sink("database file", name_account)
def database(scene: Scene) -> Seen:
    for path in files(scene.folder):
        if path.name.startswith(scene.database.name):
            yield path.name, path.read_bytes().decode("latin-1")


@sink("dumpdata", name_account)
def dumpdata(scene: Scene) -> Seen:
    for format_ in ("json", "xml"):
        yield format_, output("dumpdata", "wechat_token", "admin", "sessions", "auth.user", format=format_)


@sink("serializers", lambda scene, text: RefreshLog.objects.create(**_log_row(error=text)))
def serialized(scene: Scene) -> Seen:
    for model in (Account, Token, RefreshLog, ClientKey, KeyUsage):
        yield model.__name__, serializers.serialize("jsonl", model._default_manager.all())


@sink("refresh log", lambda scene, text: RefreshLog.objects.create(**_log_row(client=text)))
def refresh_log(scene: Scene) -> Seen:
    return ((str(row), pformat(vars(row))) for row in RefreshLog.objects.all())


def _log_row(**fields: Any) -> dict[str, Any]:
    return {"ref": PLAIN, "at": clock.now(), "duration_ms": 1, "reason": "x", **fields}


@sink("cache", lambda scene, text: caches["default"].set(text, text))
def cache(scene: Scene) -> Seen:
    for path in files(scene.folder / "cache"):
        content = path.read_bytes()
        yield path.name, content.decode("latin-1")
        rest = io.BytesIO(content)
        pickle.load(rest)  # when it expires
        yield path.name, zlib.decompress(rest.read()).decode("latin-1")


@sink(
    "sessions", lambda scene, text: Session.objects.create(session_key="x", session_data=text, expire_date=clock.now())
)
def sessions(scene: Scene) -> Seen:
    for session in Session.objects.all():
        yield session.session_key, f"{session.session_data} {session.get_decoded()}"


@sink("admin's own log", lambda scene, text: _log_entry(text))
def log_entries(scene: Scene) -> Seen:
    return ((str(entry.pk), pformat(vars(entry)) + entry.get_change_message()) for entry in LogEntry.objects.all())


def _log_entry(text: str) -> None:
    LogEntry.objects.create(user=User.objects.get(), action_flag=1, object_repr=text, change_message="")
