"""S2, proven: secrets are planted, everything fails in every way, and nothing of them shows anywhere.

``docs/secrecy.md`` has the two tables in words, and what they do not cover.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import redis
import sentry_sdk
from django.core.management import call_command
from django.test import override_settings
from django.views import debug
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from tests.secrecy.canaries import Canaries
from tests.secrecy.failures import FAILURES, Failure
from tests.secrecy.scene import Scene
from tests.secrecy.sinks import SINKS
from tests.secrecy.site import database_file

# One of each kind; the others are proof.
SLICE = {
    "wrong AppSecret",
    "central server of remote mode refuses the key",
    "AppSecret presented as client key",
    "fault in the engine whose text holds the token",
}


class KeptEvents(Transport):
    """Sends nothing."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.events += [item.payload.json for item in envelope.items if item.payload.json is not None]


@pytest.fixture(scope="module")
def sentry() -> Iterator[list[Any]]:
    """The SDK as a site starts it: nothing set but where to send, with all the integrations it finds."""
    transport = KeptEvents()
    before = sentry_sdk.get_global_scope().client
    sentry_sdk.init("http://nobody@127.0.0.1:9/1", transport=transport)
    yield transport.events
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(before)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None, django_db_blocker: Any) -> Path:
    """A migrated database file, to be copied."""
    path = tmp_path_factory.mktemp("secrecy") / "template.sqlite3"
    with django_db_blocker.unblock(), database_file(path):
        call_command("migrate", verbosity=0)
    return path


@pytest.fixture(scope="module")
def _site() -> Iterator[None]:
    """The URLs; and Django's error reports, with their templates compiled once for all of them."""
    with (
        override_settings(ROOT_URLCONF="tests.secrecy.urls"),
        mock.patch.object(debug.DEBUG_ENGINE, "from_string", cache(debug.DEBUG_ENGINE.from_string)),
    ):
        yield


@pytest.fixture
def opened(
    template: Path, tmp_path: Path, sentry: list[Any], _site: None, django_db_blocker: Any
) -> AbstractContextManager[Scene]:
    """To be entered by the test itself: pytest sets standard output anew between a fixture and its test."""

    @contextmanager
    def open_() -> Iterator[Scene]:
        scene = Scene(tmp_path)
        scene.sentry = sentry
        sentry.clear()
        with django_db_blocker.unblock(), sentry_sdk.isolation_scope(), scene.open(template):
            yield scene

    return open_()


def hits(scene: Scene, canaries: Canaries) -> Iterator[tuple[str, str, str, str]]:
    """Sink, place in it, canary, and the text around."""
    for sink in SINKS:
        for where, text in sink.collect(scene):
            for canary, around in canaries.find(text):
                yield sink.name, where, canary, around


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(failure, id=failure.name, marks=() if failure.name in SLICE else pytest.mark.proof)
        for failure in FAILURES
    ],
)
def test_secrecy__nothing_shows(
    failure: Failure, opened: AbstractContextManager[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened as scene:
        scene.warm_up()
        failure.set_up(scene, monkeypatch)
        scene.exercise()
        monkeypatch.undo()
        scene.repair()
        scene.plant_tokens()
        marks = scene.marks()
        found = {f"{failure.name} | {' | '.join(hit)}" for hit in hits(scene, scene.canaries)}
    assert failure.proof in marks
    assert not found, "\n".join(sorted(found))


def test_secrecy__sinks_notice_what_is_planted(opened: AbstractContextManager[Scene]) -> None:
    """No sink is blind: each is given a text of its own and has to show it."""
    planted = Canaries()
    with opened as scene:
        scene.exercise()
        for sink in SINKS:
            text = secrets.token_hex(12)
            planted.plant(sink.name, text)
            sink.plant(scene, text)
        noticed = {name for name, _where, canary, _around in hits(scene, planted) if name == canary}
    blind = {sink.name for sink in SINKS} - noticed
    assert not blind, ", ".join(sorted(blind))


@pytest.mark.services
def test_secrecy__redis_holds_ciphertext(opened: AbstractContextManager[Scene]) -> None:
    """Keys and contents of a real Redis, which others may read."""
    url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
    client = redis.Redis.from_url(url, socket_connect_timeout=0.5)
    try:
        client.ping()
    except redis.RedisError:
        pytest.skip("no Redis answers")
    prefix = f"secrecy-{secrets.token_hex(8)}"
    backend = "django.core.cache.backends.redis.RedisCache"
    with opened as scene:
        scene.override(CACHES={"default": {"BACKEND": backend, "LOCATION": url, "KEY_PREFIX": prefix}})
        scene.warm_up()
        scene.plant_tokens()
        names = list(client.scan_iter(f"{prefix}:*"))
        texts = [name.decode() + (client.get(name) or b"").decode("latin-1") for name in names]
        client.delete(*names)
        found = [hit for text in texts for hit in scene.canaries.find(text)]
    client.close()
    assert len(names) == 2
    assert not found


def test_secrecy__counts() -> None:
    assert len({failure.name for failure in FAILURES}) == len(FAILURES) >= 16
    assert len({sink.name for sink in SINKS}) == len(SINKS) >= 24
    assert {failure.name for failure in FAILURES} > SLICE


def test_secrecy__document_names_every_failure_and_every_place() -> None:
    document = (Path(__file__).parent.parent / "docs" / "secrecy.md").read_text()
    cells = {part.partition(" (")[0].strip() for part in re.split(r" · |\|", document)}
    assert {failure.name for failure in FAILURES} - cells == set()
    assert {sink.name for sink in SINKS} - cells == set()
