"""The places of the package that the simulation takes over; everything else of it runs as it is.

They are its seams: ``clock``, ``process``, ``engine.threads``, ``transport.call``, the ways to the database that
``engine.connections`` names, the cache, the cipher, chance, and the name of the host.
"""

from __future__ import annotations

import logging
import random
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar
from unittest import mock

from django.db import connection

from wechat_token import clock, encryption
from wechat_token.engine import attempt, batch, connections, ground, hosts, lifecycle, rows, served, site, threads
from wechat_token.platforms import transport

from .cipher import Cipher
from .prepared import prepared
from .threads import Threads

if TYPE_CHECKING:
    from wechat_token.models import Token

    from .world import World

T = TypeVar("T")


@contextmanager
def wired(world: World) -> Iterator[None]:
    """Put the simulation under the package."""
    kernel, patch = world.kernel, mock.patch.object
    chance = SimpleNamespace(random=random.Random(f"{world.seed}-jitter").random)
    owners = random.Random(f"{world.seed}-owners")
    simulated, cipher, way = Threads(kernel), Cipher(world), Way(world)
    everywhere: dict[Any, Any] = {
        threads.Future: simulated.Future,
        connections.in_place: lambda: False,
        connections.in_test_case: lambda using=None: False,
        connections.private: way.private,
        connections.read_here: way.read_here,
        connections.caller_is_in_transaction: way.caller_is_in_transaction,
        encryption.encrypt: cipher.encrypt,
        encryption.decrypt: cipher.decrypt,
        rows.write: _witnessed(world, rows.write),
    }
    with ExitStack() as stack:
        for context in (
            patch(clock, "wall", lambda: kernel.alive().process.wall()),
            patch(clock, "monotonic", lambda: kernel.alive().process.monotonic()),
            patch(clock, "sleep", world.sleep_of_the_package),
            patch(threads, "start", simulated.start),
            patch(threads, "wait", simulated.wait),
            patch(threads, "wait_any", simulated.wait_any),
            patch(transport, "call", world.network.call),
            patch(transport, "ready", lambda: None),
            patch(served, "caches", world.cache),
            patch(attempt, "random", chance),
            patch(attempt, "uuid", SimpleNamespace(uuid4=lambda: uuid.UUID(int=owners.getrandbits(128)))),
            patch(hosts, "name", lambda: kernel.alive().process.host.name),
            patch(lifecycle, "tell_worker", world.kick),
            patch(ground, "logger", Listener(world)),
            patch(batch, "logger", Listener(world)),
            prepared(world),
            connection.execute_wrapper(world.database.execute),
            world.database.transactions(),
            *([] if world.swarm.site_lookups else _spared()),
            _quiet(),
        ):
            stack.enter_context(context)
        for original, replacement in everywhere.items():
            for module, name in _users(original):
                stack.enter_context(patch(module, name, replacement))
        yield


def _users(original: Any) -> list[tuple[Any, str]]:
    """Every module of the package that has imported ``original``, and under which name."""
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "wechat_token"]
    return [(module, name) for module in modules for name, value in vars(module).items() if value is original]


def _spared() -> list[AbstractContextManager[Any]]:
    """What processes ask and say about themselves every minute is most of their statements, and never goes wrong by
    chance: one run in ten does it in full.
    """
    patch = mock.patch.object
    return [patch(site, "namespace", lambda cache: "a-site"), patch(hosts, "SAY_EVERY", 1800.0)]


@contextmanager
def _quiet() -> Iterator[None]:
    """The package logs every failure; there are thousands, and the history has them."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _witnessed(world: World, write: Callable[..., bool]) -> Callable[..., bool]:
    def witnessed(token: Token, fields: dict[str, object], owner: str = "") -> bool:
        task = world.kernel.alive()
        task.writing = (token.pk, fields)
        try:
            return write(token, fields, owner)
        finally:
            task.writing = None

    return witnessed


class Way:
    """The ways to the database. There is one connection, and it serves all; a reader in a transaction of the site's
    may not be answered on it, which is what the package calls ``NotHere``.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def private(self) -> AbstractContextManager[str]:
        return _PRIVATE

    def read_here(self, work: Callable[[], T]) -> T:
        if self.world.kernel.alive().in_transaction:
            raise connections.NotHere
        return work()

    def caller_is_in_transaction(self) -> bool:
        return self.world.kernel.alive().in_transaction


_PRIVATE = nullcontext("default")


class Listener:
    """In place of the loggers of those who run other people's work: what broke off there is a crash."""

    EXPECTED = ("Error", "OperationalError", "EncryptionKeyError", "Killed")

    def __init__(self, world: World) -> None:
        self.world = world

    def warning(self, message: str, *details: object) -> None:
        if ("broke off" in message or "Background" in message) and details[-1] not in self.EXPECTED:
            self.world.crash(message % details)
