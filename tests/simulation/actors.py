"""Those who use tokens: readers, honest complainers who use what they read, broken clients, a hammer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from django.db import Error as AnyDatabaseError

from wechat_token import get_access_token, get_ticket, refresh_access_token, refresh_ticket
from wechat_token.exceptions import AccountError, EncryptionKeyError, RefreshRateLimited, TokenUnavailable

from .processes import EPOCH, Process

if TYPE_CHECKING:
    from .kernel import Task
    from .world import World

OVERLAP = 300.0
HONEST = "honest"
IN_TRANSACTION = 0.3  # share of the readers whose own connection is no place to read


class Actors:
    def __init__(self, world: World) -> None:
        self.world = world
        self.kernel = world.kernel
        self.rng = world.rng
        self._to_lock: set[str] = set()  # AppIDs whose row is locked as soon as a token of theirs is issued

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
            for kind in world.tickets.kinds(appid):
                if rng.random() < 0.5:
                    self.read_ticket(appid, kind)

    def look_closely(self, appid: str) -> None:
        """A token was issued: read soon, and again when the displaced one dies."""
        if not self.world.options.reads:
            return
        if appid in self._to_lock:
            self._to_lock.discard(appid)
            self._lock_in(appid, 0.0)
        for delay in (self.rng.uniform(0.0, 3.0), OVERLAP + self.rng.uniform(-2.0, 5.0)):
            self.kernel.after(delay, partial(self.read_somewhere, appid))

    def read_somewhere(self, appid: str) -> None:
        self._read_in(self.rng.choice(self.world.webs), appid)

    def _read_in(self, process: Process, appid: str) -> None:
        if process.alive:
            self.kernel.spawn(process, partial(self.read, appid), "reader")

    def read(self, appid: str, *, in_transaction: bool | None = None) -> None:
        """``get_access_token()``, judged; what it returns is used, and complained about if it is dead."""
        witness, task, since = self.world.witness, self._begun(), self.kernel.now
        task.in_transaction = self.rng.random() < IN_TRANSACTION if in_transaction is None else in_transaction
        usable = witness.usable(appid, task.process)
        known = witness.newest_served(task.process, appid)
        try:
            text = get_access_token(appid)
        except TokenUnavailable as exc:
            witness.unavailable(task, appid, exc)
            return
        except (AccountError, AnyDatabaseError, EncryptionKeyError):
            return
        finally:
            witness.answered(task, appid, since)
        if usable and witness.usable(appid, task.process):
            witness.waited(task, appid)
        witness.goes_on(task.process, appid, text, known)
        if not witness.served(task, appid, text, since) and self.rng.random() < 0.7:
            self.complain(appid, text)

    def complain(self, appid: str, stale: str, client: str = HONEST) -> None:
        """``refresh_access_token()``, judged."""
        world, witness, task, since = self.world, self.world.witness, self._begun(), self.kernel.now
        witness.complains(appid, client)
        outdated = witness.stored.get(appid) != stale and witness.usable(appid, task.process)
        is_true = not world.truth.is_valid(stale, since)
        known = witness.newest_served(task.process, appid)
        try:
            text = refresh_access_token(appid, stale_token=stale, client=client)
        except RefreshRateLimited as exc:
            if is_true and client == HONEST:
                witness.refused_unjustly(appid, exc)
            return
        except (TokenUnavailable, AccountError, AnyDatabaseError, EncryptionKeyError):
            return
        finally:
            witness.answered(task, appid, since)
            if outdated and task.fetched and witness.usable(appid, task.process):
                witness.violated(appid, "a complaint about an outdated token caused a call")
        if text != stale:
            witness.goes_on(task.process, appid, text, known)
            witness.served(task, appid, text, since)
        elif is_true:
            world.note(appid, "a complaint about a dead token was refused")

    def _begun(self) -> Task:
        """The task, for the account of what one call makes it wait for."""
        task = self.kernel.alive()
        task.fetched, task.blocked, task.paused = 0, 0.0, False
        return task

    # -- tickets -----------------------------------------------------------------------------------

    def read_ticket_somewhere(self, appid: str, kind: str) -> None:
        process = self.rng.choice(self.world.webs)
        if process.alive and self.world.options.reads and kind in self.world.tickets.kinds(appid):
            self.kernel.spawn(process, partial(self.read_ticket, appid, kind), "reader")

    def read_ticket(self, appid: str, kind: str, *, in_transaction: bool | None = None) -> None:
        """``get_ticket()``, judged; a dead one is complained about, and now and then a good one."""
        tickets, task, since, key = self.world.tickets, self._begun(), self.kernel.now, (appid, kind)
        task.in_transaction = self.rng.random() < IN_TRANSACTION if in_transaction is None else in_transaction
        usable = tickets.usable(key, task.process)
        known = task.process.served_tickets.get(key, (0, 0.0))[0]
        tickets.asks(key)
        try:
            text = get_ticket(appid, kind)
        except TokenUnavailable as exc:
            tickets.unavailable(task, key, exc)
            return
        except (AccountError, AnyDatabaseError, EncryptionKeyError):
            return
        finally:
            self.world.witness.answered(task, appid, since)
        if usable and tickets.usable(key, task.process):
            tickets.waited(task, key)
        works = tickets.gets(task, key, text, since, known)
        if self.rng.random() < (0.005 if works else 0.7):
            self._complain_about_ticket(key, text)

    def _complain_about_ticket(self, key: tuple[str, str], stale: str) -> None:
        world, task, since = self.world, self._begun(), self.kernel.now
        known = task.process.served_tickets.get(key, (0, 0.0))[0]
        world.witness.figures.complaints += 1
        try:
            text = refresh_ticket(*key, stale_ticket=stale, client=HONEST)
        except (TokenUnavailable, AccountError, AnyDatabaseError, EncryptionKeyError):
            return
        finally:
            world.witness.answered(task, key[0], since)
        if text != stale:
            world.tickets.gets(task, key, text, since, known)

    # -- clients that complain without reason ------------------------------------------------------

    def complain_falsely(self, appid: str) -> None:
        """A broken client: several complaints, here and there, about a good token or an old one."""
        stale = self.world.witness.stored.get(appid, "")
        for _ in range(self.rng.randint(1, 20)):
            self._complain_somewhere(appid, stale, "broken", self.rng.choice([0.0, 0.0, self.rng.uniform(0, 60)]))

    def lie(self, appid: str) -> None:
        """Half an hour of false complaints about whatever is current; as like as not it dies meanwhile, and somebody
        honest says so.
        """
        delay = 0.0
        while delay < 1800.0:
            self.kernel.after(delay, partial(self._lie_once, appid))
            delay += self.rng.uniform(0.1, 25.0)
        if self.rng.random() < 0.5:
            self.kernel.after(self.rng.uniform(0.0, 1800.0), partial(self._die_among_lies, appid))

    def _lie_once(self, appid: str) -> None:
        self._complain_somewhere(appid, self.world.witness.stored.get(appid, ""), "liar", 0.0)

    def _die_among_lies(self, appid: str) -> None:
        if not self.world.calm:
            self.world.calamities.kill_token(appid)
            for _ in range(4):
                self.kernel.after(self.rng.uniform(0.0, 10.0), partial(self.read_somewhere, appid))

    def _complain_somewhere(self, appid: str, stale: str, client: str, delay: float) -> None:
        process = self.rng.choice(self.world.webs)
        if process.alive and stale:
            self.kernel.spawn(process, partial(self.complain, appid, stale, client), "complainer", delay=delay)

    # -- callers that hold locks -------------------------------------------------------------------

    def lock(self, appid: str) -> None:
        """Soon a transaction of the site's has the row: any time, when it falls due, or when a token was issued."""
        row = self.world.witness.by_appid.get(appid)
        match self.rng.randrange(4):
            case 0:
                self._to_lock.add(appid)
            case 1 | 2 if row is not None and row.due_at is not None:
                due = (row.due_at - EPOCH).total_seconds() - self.kernel.now
                self._lock_in(appid, max(due - self.rng.uniform(0.0, 8.0), 0.0))
            case _:
                self._lock_in(appid, 0.0)

    def _lock_in(self, appid: str, seconds: float) -> None:
        process = self.rng.choice(self.world.webs)
        if process.alive:
            self.kernel.spawn(process, partial(self._hold_row, appid), "transaction", delay=seconds)

    def _hold_row(self, appid: str) -> None:
        world, rng, task = self.world, self.rng, self.kernel.alive()
        row = world.witness.by_appid.get(appid)
        tickets = [world.tickets.rows.get((appid, kind)) for kind in world.tickets.kinds(appid)]
        if tickets and rng.random() < 0.5:
            row = rng.choice(tickets) or row
        if row is None or world.calm or not world.database.lock(row.id, task):
            return
        luck = rng.random()
        seconds = rng.uniform(0.1, 5.0) if luck < 0.7 else rng.uniform(5.0, 60.0 if luck < 0.95 else 500.0)
        world.held_up(appid, "a transaction has the row", lasts=seconds + 20.0)
        try:
            if rng.random() < 0.1:  # it may not wait for the row, and has nothing else
                world.calamities.lose_value(appid)
            self.kernel.sleep(seconds * rng.random())
            self.read(appid, in_transaction=True)
            for kind in world.tickets.kinds(appid):
                self.read_ticket(appid, kind, in_transaction=True)
            if rng.random() < 0.2:
                self.complain(appid, world.witness.stored.get(appid, "none"))
            self.kernel.sleep(seconds * rng.random())
        finally:
            world.database.unlock(row.id)
            world.held_up(appid, "the transaction ends", lasts=0.0)

    def _hammer(self) -> None:
        appid, pause = self.world.appids[0], 1.0 / self.world.options.hammer
        process = self.kernel.alive().process
        while not self.world.calm:
            self.kernel.sleep(pause)
            stale = self.world.witness.stored.get(appid)
            if stale:
                self.kernel.spawn(process, partial(self.complain, appid, stale, "hammer"), "hammer")

    def last_look(self) -> None:
        """Long after the last fault: every active account has a token that works."""
        for appid in self.world.appids:
            self._check_recovered(appid)
            self.kernel.spawn(self.world.webs[0], partial(self.read, appid), "last look")
            for kind in self.world.tickets.kinds(appid):
                self.kernel.spawn(self.world.webs[0], partial(self.read_ticket, appid, kind), "last look")

    def _check_recovered(self, appid: str) -> None:
        world, row = self.world, self.world.witness.by_appid.get(appid)
        if row is None or not row.is_active or row.error_class == "quota":  # that waits for midnight
            return
        fact = world.truth.facts.get(world.witness.stored.get(appid, ""))
        working = fact is not None and self.kernel.now < fact.end
        if not working and (fact is None or fact.cause != "foreign" or fact.known_dead_at is not None):
            world.witness.violated(appid, f"no working token long after the last fault: {fact}")
