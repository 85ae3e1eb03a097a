"""Those who use tokens: readers, honest complainers who use what they read, broken clients, a hammer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from django.db import Error as AnyDatabaseError

from wechat_token import get_access_token, refresh_access_token
from wechat_token.exceptions import AccountError, TokenUnavailable

from .processes import Process

if TYPE_CHECKING:
    from .world import World

OVERLAP = 300.0


class Actors:
    def __init__(self, world: World) -> None:
        self.world = world
        self.kernel = world.kernel
        self.rng = world.rng

    def start(self) -> None:
        for process in self.world.webs:
            self.live_in(process)
        if self.world.options.hammer:
            process = self.world.webs[0]
            self.kernel.spawn(process, self._hammer, "hammer")

    def live_in(self, process: Process) -> None:
        if self.world.options.reads:
            self.kernel.spawn(process, self._read_for_ever, "reader")

    def _read_for_ever(self) -> None:
        world, rng = self.world, self.rng
        rate = world.options.reads * len(world.appids) / len(world.webs) / 3600.0
        process = self.kernel.alive().process
        while True:
            self.kernel.sleep(rng.expovariate(rate))
            appid = rng.choice(world.appids)
            if rng.random() < 0.05:  # several threads and processes want the same at once
                for other in (process, process, *world.webs):
                    self._read_in(other, appid)
            self.read(appid)

    def look_closely(self, appid: str) -> None:
        """A token was issued: read soon, and again when the displaced one dies."""
        if not self.world.options.reads:
            return
        for delay in (self.rng.uniform(0.0, 3.0), OVERLAP + self.rng.uniform(-2.0, 5.0)):
            self.kernel.after(delay, partial(self.read_somewhere, appid))

    def read_somewhere(self, appid: str) -> None:
        self._read_in(self.rng.choice(self.world.webs), appid)

    def _read_in(self, process: Process, appid: str) -> None:
        if process.alive:
            self.kernel.spawn(process, partial(self.read, appid), "reader")

    def read(self, appid: str) -> None:
        """``get_access_token()``, judged; what it returns is used, and complained about if it is dead."""
        witness, task, since = self.world.witness, self.kernel.alive(), self.kernel.now
        task.fetched, task.blocked, task.paused = 0, 0.0, False
        usable = witness.usable(appid, task.process)
        try:
            text = get_access_token(appid)
        except TokenUnavailable as exc:
            witness.unavailable(task, appid, exc)
            return
        except (AccountError, AnyDatabaseError):
            return
        if usable and (task.fetched or task.blocked > 1.0) and witness.usable(appid, task.process):
            witness.waited(task, appid)
        if not witness.served(task, appid, text, since) and self.rng.random() < 0.7:
            self.complain(appid, text)

    def complain(self, appid: str, stale: str) -> None:
        """``refresh_access_token()``, judged."""
        world, witness, task, since = self.world, self.world.witness, self.kernel.alive(), self.kernel.now
        task.fetched, task.blocked, task.paused = 0, 0.0, False
        witness.figures.complaints += 1
        outdated = witness.stored.get(appid) != stale and witness.usable(appid, task.process)
        try:
            text = refresh_access_token(appid, stale_token=stale)
        except (TokenUnavailable, AccountError, AnyDatabaseError):
            return
        finally:
            if outdated and task.fetched and witness.usable(appid, task.process):
                witness.violated(appid, "a complaint about an outdated token caused a call")
        if text != stale:
            witness.served(task, appid, text, since)
        elif not world.truth.is_valid(text, self.kernel.now):
            world.note(appid, "a complaint about a dead token was refused")

    def complain_falsely(self, appid: str) -> None:
        """A broken client: several complaints, here and there, about a good token or an old one."""
        stale = self.world.witness.stored.get(appid, "")
        for _ in range(self.rng.randint(1, 20)):
            process = self.rng.choice(self.world.webs)
            if process.alive and stale:
                delay = self.rng.choice([0.0, 0.0, self.rng.uniform(0, 60)])
                self.kernel.spawn(process, partial(self.complain, appid, stale), "complainer", delay=delay)

    def _hammer(self) -> None:
        appid, pause = self.world.appids[0], 1.0 / self.world.options.hammer
        process = self.kernel.alive().process
        while True:
            self.kernel.sleep(pause)
            stale = self.world.witness.stored.get(appid)
            if stale:
                self.kernel.spawn(process, partial(self.complain, appid, stale), "hammer")

    def last_look(self) -> None:
        """Long after the last fault: every active account has a token that works."""
        for appid in self.world.appids:
            self._check_recovered(appid)
            self.kernel.spawn(self.world.webs[0], partial(self.read, appid), "last look")

    def _check_recovered(self, appid: str) -> None:
        world, row = self.world, self.world.witness.by_appid.get(appid)
        if row is None or not row.is_active or row.error_class == "quota":  # that waits for midnight
            return
        fact = world.truth.facts.get(world.witness.stored.get(appid, ""))
        working = fact is not None and self.kernel.now < fact.end
        if not working and (fact is None or fact.cause != "foreign" or fact.known_dead_at is not None):
            world.witness.violated(appid, f"no working token long after the last fault: {fact}")
