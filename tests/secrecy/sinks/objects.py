"""What the package's objects show of themselves."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from pprint import pformat
from typing import Any

from celery.result import AsyncResult

from tests.secrecy.scene import Scene
from wechat_token import conf, process, signals
from wechat_token.engine import Entry
from wechat_token.exceptions import ConfigurationError
from wechat_token.models import Account, ClientKey, KeyUsage, RefreshLog, Token

from .base import Seen, pickled, shown, sink

# -- objects -----------------------------------------------------------------------------------------


@sink("signals", lambda scene, text: signals.refresh_finished.send_robust(Token, planted=text))
def signal_payloads(scene: Scene) -> Seen:
    for payload in scene.recorder.signals:
        for name, value in payload.items():
            yield name, shown(value)


def _objects(scene: Scene) -> Iterator[Any]:
    yield from scene.objects
    for model in (Account, Token, RefreshLog, ClientKey, KeyUsage):
        yield from model._default_manager.all()
    for kept in process.snapshot():
        yield from kept.values() if isinstance(kept, dict) else (kept,)
    try:
        yield conf.get_settings()
    except ConfigurationError as error:
        yield error
    yield from scene.recorder.errors


def _some_of_each_type(scene: Scene) -> Iterator[Any]:
    counts: Counter[type] = Counter()
    for thing in _objects(scene):
        if isinstance(thing, AsyncResult):  # holds all of Celery
            continue
        counts[type(thing)] += 1
        if counts[type(thing)] <= 3:
            yield thing


@sink("objects: repr, str, format, pprint", lambda scene, text: scene.objects.append([text]))
def objects_shown(scene: Scene) -> Seen:
    for thing in _objects(scene):
        yield type(thing).__name__, f"{shown(thing)} {thing:{''}} {pformat(thing)}"


@sink("objects: attributes", lambda scene, text: scene.objects.append(_Holder(text)))
def objects_inside(scene: Scene) -> Seen:
    for thing in _objects(scene):
        for name, value in getattr(thing, "__dict__", {}).items():
            yield f"{type(thing).__name__}.{name}", shown(value)


@sink("objects: copied", lambda scene, text: scene.objects.append({text}))
def objects_copied(scene: Scene) -> Seen:
    for thing in _some_of_each_type(scene):
        try:
            twin = copy.deepcopy(thing)
        except Exception as error:  # what cannot be copied says so
            twin = error
        yield type(thing).__name__, shown(twin)


@sink("objects: pickled", lambda scene, text: scene.objects.append(frozenset({text})))
def objects_pickled(scene: Scene) -> Seen:
    """But for what holds plain text in this process's memory and is handed to nobody."""
    for thing in _some_of_each_type(scene):
        if not isinstance(thing, Entry | conf.Settings):
            yield type(thing).__name__, pickled(thing)


class _Holder:
    def __init__(self, text: str) -> None:
        self.text = text
