"""One run: hosts, processes, WeChat, chance and faults put together, and what everybody asks of the whole."""

from __future__ import annotations

import datetime as dt
import random
import traceback
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from django.db import Error as AnyDatabaseError

from wechat_token.models import Account, RefreshLog
from wechat_token.sandbox import FakeWeChat
from wechat_token.tasks import refresh_token

from . import swarm as swarms
from .actors import Actors
from .beat import Beat
from .cache import SharedCache
from .calamities import Calamities
from .database import TABLES, Database, create_tables
from .kernel import Kernel, Task
from .network import Network
from .processes import EPOCH, Host, Process
from .rows import Row
from .tickets import Tickets
from .upstream import Truth
from .wiring import wired
from .witness import Witness

DAY = 86_400.0
CALM = 2 * 3600.0  # after the last fault, before the last look
SHOWN = 60  # events printed with a failure


@dataclass(frozen=True, slots=True)
class Options:
    """``endpoint``: ``stable``, ``classic`` or ``mixed``. ``reads``: per account and hour. ``hammer``: false
    complaints a second about the first account. ``faults``: 0 is a healthy site, 1 a bad one. ``jump``: seconds by
    which one host's clock is wrong for half an hour of each day. ``tickets``: the world of tickets, ``A`` or ``B``; '':
    nobody asks for any. ``rivals``: share of the accounts whose ticket another system fetches, too."""

    seed: int = 1
    days: float = 1.0
    faults: float = 0.0
    accounts: int = 10
    hosts: int = 3
    endpoint: str = "mixed"
    life: int = 7200
    reads: float = 4.0
    hammer: float = 0.0
    beats: int = 1
    jump: float = 0.0
    tickets: str = ""
    rivals: float = 0.0


class World:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.seed = options.seed
        self.rng = random.Random(f"{options.seed}-world")
        self.kernel = Kernel(random.Random(f"{options.seed}-order"))
        self.kernel.crashed = self._crashed
        self.swarm = swarms.draw(random.Random(f"{options.seed}-swarm"), options.faults, tickets=bool(options.tickets))
        self.calm = False
        epoch = EPOCH.timestamp()
        self.fake = FakeWeChat(
            lambda: epoch + self.kernel.now, options.life, seed=options.seed, history=False,
            ticket_world="B" if options.tickets == "B" else "A",
        )  # fmt: skip
        self.truth = Truth(self, self.fake, epoch)
        self.network = Network(self)
        self.database = Database(self)
        self.cache = SharedCache(self)
        self.witness = Witness(self)
        self.tickets = Tickets(self)
        self.hosts = [Host(number) for number in range(options.hosts)]
        self.widest_skew = 0.0
        self.set_skews()
        self.workers = [Process(self.kernel, host, f"worker-{host.number}") for host in self.hosts]
        self.webs = [Process(self.kernel, host, f"web-{host.number}") for host in self.hosts]
        self.appids = [f"wx{number:016x}" for number in range(options.accounts)]
        self.history: deque[tuple[float, str | None, str, tuple[object, ...]]] = deque(maxlen=4000)
        self.digest = 0
        self.failures: list[str] = []
        self.cache_trouble_at = -1e9
        self._trouble_at: dict[str | None, float] = {}
        self._quiet_since = -1e9
        self._held_up_until: dict[str, float] = {}
        self.beats: list[Beat] = []
        for number in range(options.beats + int(self.swarm.two_beats)):
            self.beats.append(Beat(self, number))
        self.actors = Actors(self)
        self.calamities = Calamities(self)

    # -- a run -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Live through the days, then let the faults stop, and see whether everybody has recovered."""
        create_tables()
        with wired(self):
            drawn, self.swarm = self.swarm, swarms.draw(self.rng, 0.0)
            self.kernel.spawn(self.webs[0], self._add_accounts, "setup")
            self.kernel.run(1.0)
            self.swarm = drawn
            self.witness.reload()
            for beat in self.beats:
                beat.start()
            self.actors.start()
            self.calamities.start()
            self.tickets.start_rivals(max(self.options.rivals, self.swarm.rivals))
            if self.options.jump:
                self.calamities.jump(self.options.jump)
            self._prune()
            self.kernel.run(self.options.days * DAY)
            self.calls_counted = self.witness.figures.token_calls
            self.ticket_calls_counted = dict(self.tickets.calls)
            if self.options.faults or self.options.jump:
                self.calm = True
                self.calamities.stop()
                self.kernel.run(self.kernel.now + CALM)
                self.actors.last_look()
                self.kernel.run(self.kernel.now + 60.0)
            self.tickets.settle()
        for model in TABLES:
            model._default_manager.all().delete()

    def _add_accounts(self) -> None:
        for number, appid in enumerate(self.appids):
            self.fake.add_account(appid, f"secret-{number}")
            endpoint = self.options.endpoint
            if endpoint == "mixed":
                endpoint = ("stable", "classic")[number % 2]
            Account.objects.create(appid=appid, secret=f"secret-{number}", endpoint=endpoint)
            self.witness.born_at[appid] = self.kernel.now

    def _prune(self) -> None:
        """The nightly task, done by hand: the log must not slow the run down."""
        RefreshLog.objects.all().delete()
        self.kernel.after(DAY, self._prune)

    # -- steps -------------------------------------------------------------------------------------

    def step(self, kind: str, seconds: float) -> None:
        """An I/O point: time passes, and the process may be killed or frozen right here."""
        process, swarm, rng = self.kernel.alive().process, self.swarm, self.rng
        if swarm.kill and rng.random() < swarm.kill:
            self.note(None, "%s is killed at %s", process.name, kind)
            self.kill(process)
        if swarm.pause and rng.random() < swarm.pause:
            self.pause(process, rng.uniform(1.0, 60.0))
        self.kernel.sleep(seconds)

    def sleep_of_the_package(self, seconds: float) -> None:
        self.kernel.alive().blocked += seconds
        self.kernel.sleep(seconds)

    def kill(self, process: Process) -> None:
        """SIGKILL; the supervisor starts another one soon."""
        self.witness.figures.kills += 1
        self.disturb()
        self.witness.process_died(process)
        self.kernel.after(self.rng.uniform(0.5, 20.0), partial(self._restart, process))
        self.kernel.kill(process)

    def _restart(self, dead: Process) -> None:
        fresh = Process(self.kernel, dead.host, dead.name)
        for group in (self.workers, self.webs):
            if dead in group:
                group[group.index(dead)] = fresh
                if group is self.webs:
                    self.actors.live_in(fresh)

    def pause(self, process: Process, seconds: float) -> None:
        self.witness.figures.pauses += 1
        self.note(None, "%s stands still for %.1f s", process.name, seconds)
        process.pause(seconds)
        self.disturb(seconds)

    def hold_up(self, seconds: float) -> None:
        """The current thread alone stands still."""
        task = self.kernel.alive()
        self.note(None, "a thread of %s stands still for %.1f s", task.process.name, seconds)
        for thread in (task, task.starter):
            if thread is not None:
                thread.paused = True
        self.cache_trouble_at = self.kernel.now + seconds
        self.kernel.sleep(seconds)

    def restart_host(self, host: Host) -> None:
        for process in (*self.workers, *self.webs):
            if process.host is host and process.alive:
                self.kill(process)

    def worker(self) -> Process | None:
        """A worker that takes messages now."""
        ready = [w for w in self.workers if w.alive and w.paused_until <= self.kernel.now]
        return self.rng.choice(ready) if ready else None

    def kick(self, token_id: int) -> None:
        """``lifecycle.tell_worker``: a message to some worker about one token."""
        self.kernel.after(0.05, partial(self._deliver, partial(refresh_token.run, token_id)))

    def _deliver(self, work: Callable[[], object]) -> None:
        worker = self.worker()
        if worker is not None:
            self.kernel.spawn(worker, work, "kick")

    # -- clocks ------------------------------------------------------------------------------------

    def time(self) -> dt.datetime:
        """The true time."""
        return self.time_at(self.kernel.now)

    def time_at(self, moment: float) -> dt.datetime:
        return EPOCH + dt.timedelta(seconds=moment)

    def set_skews(self) -> None:
        if self.swarm.skew:
            for host in self.hosts:
                host.skew = self.rng.uniform(-self.swarm.skew, self.swarm.skew)
        self.skew_changed()

    def skew_changed(self) -> None:
        """How far wall clocks have ever been apart in this run, from each other or from the truth."""
        skews = [0.0, *(host.skew for host in self.hosts)]
        self.widest_skew = max(self.widest_skew, max(skews) - min(skews))

    # -- who hears what ----------------------------------------------------------------------------

    def beats_hear(self, row: Row) -> None:
        for beat in self.beats:
            beat.hear(row)

    def beats_reconsider(self) -> None:
        for beat in self.beats:
            beat.reconsider()

    def issued(self, appid: str) -> None:
        self.actors.look_closely(appid)

    # -- trouble -----------------------------------------------------------------------------------

    def trouble(self, appid: str | None, what: str, *, lasts: float = 0.0) -> None:
        """Something was made to fail for this account, or (None) for all."""
        self._trouble_at[appid] = max(self._trouble_at.get(appid, -1e9), self.kernel.now + lasts)
        if appid is None:
            self.disturb(lasts)
        self.note(appid, "fault: %s", what)

    def held_up(self, appid: str, what: str, *, lasts: float) -> None:
        """Something keeps everybody from writing this account's row."""
        self.trouble(appid, what, lasts=lasts)
        self._held_up_until[appid] = self.kernel.now + lasts

    def disturb(self, lasts: float = 0.0) -> None:
        self._quiet_since = max(self._quiet_since, self.kernel.now + lasts)

    def last_trouble(self, appid: str) -> float:
        return max(self._trouble_at.get(appid, -1e9), self._trouble_at.get(None, -1e9))

    def quiet_since(self, appid: str = "") -> float:
        """When the last thing ended that can hold up a process, or the row of this account: database, kill, pause,
        lock, no beat.
        """
        return max(self._quiet_since, self._held_up_until.get(appid, -1e9))

    def disturbed(self) -> bool:
        return self._quiet_since > self.kernel.now - 60.0

    def blind_since(self) -> float | None:
        """Since when the current process has had neither cache nor database."""
        task, now = self.kernel.task, self.kernel.now
        host = task.process.host if task is not None else self.hosts[0]
        if self.database.was_down(now - 6.0) and host.cache_down_until > now - 6.0:
            return max(self.database.down_since, host.cache_down_since)
        return None

    # -- history -----------------------------------------------------------------------------------

    def note(self, appid: str | None, what: str, *details: object) -> None:
        self.digest = zlib.crc32(f"{self.kernel.now:.6f}{appid}{what}".encode(), self.digest)
        self.history.append((self.kernel.now, appid, what, details))

    def violation(self, appid: str, what: str) -> None:
        self.note(appid, "VIOLATION: %s", what)
        if not self.failures:
            self.failures.append(self.story(appid))
        elif len(self.failures) < 20:
            self.failures.append(f"{self.kernel.now:.1f} {appid}: {what}")

    def story(self, appid: str) -> str:
        """The last events that concern an account, oldest first."""
        events = [event for event in self.history if event[1] in (appid, None)][-SHOWN:]
        return "\n".join(
            f"  {time:12.3f}  {who or '':18}  {what % details if details else what}"
            for time, who, what, details in events
        )

    def _crashed(self, task: Task, exc: Exception) -> None:
        if isinstance(exc, AnyDatabaseError) and task.process in self.workers:
            return  # a failed Celery task, of which the next tick knows nothing
        self.crash(f"{task.name} in {task.process.name} crashed: {''.join(traceback.format_exception(exc))}")

    def crash(self, what: str) -> None:
        self.witness.figures.violations += 1
        self.violation("", what)
