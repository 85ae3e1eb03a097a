"""The faults of a chaos run, one function each: it makes one happen, waits, and leaves everything whole again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from wechat_token.sandbox import Fault

from . import services
from .crew import Crew
from .service import Service
from .site import Site
from .verdict import EarlyEnd, Pause, Read


@dataclass
class Stage:
    """Where faults happen. ``life`` and ``lease`` in seconds."""

    site: Site
    crew: Crew
    appids: dict[str, str]  # and their endpoints
    rng: random.Random
    life: float
    lease: float
    behind_replica: Service | None = None
    early_ends: list[EarlyEnd] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # promises, in words
    provoked: int = 0  # renewals before their time, so that a fault finds its victim soon

    def linger(self, at_least: float, at_most: float) -> None:
        time.sleep(self.rng.uniform(at_least, at_most))

    @contextmanager
    def call_under_way(self, seconds: float = 1.5) -> Iterator[str]:
        """Enter when WeChat has issued a token to the account and not yet answered."""
        yield self.spoil_a_call(Fault("slow", seconds=seconds))
        self.site.fake.clear_faults()

    def spoil_a_call(self, fault: Fault, times: int = 1) -> str:
        """Commit ``fault`` on the next calls of some account, which is made due for it; its AppID."""
        # What WeChat obeys without an answer is harmful on classic alone, so that one gets more than its share.
        endpoint = self.rng.choice(["classic", "classic", "stable"])
        appid = self.any_account(endpoint)
        self.site.fake.inject(fault, times=times, endpoint=endpoint, appid=appid)
        self.site.database.make_due(appid)
        self.provoked += 1
        give_up_at = time.monotonic() + 10
        while self.site.fake.state()["faults"] and time.monotonic() < give_up_at:
            time.sleep(0.02)
        return appid

    def any_account(self, endpoint: str = "") -> str:
        return self.rng.choice([appid for appid, its in self.appids.items() if endpoint in ("", its)])

    def await_recovery(self, patience: float) -> None:
        """Until every account's latest call has succeeded: the next fault is to meet a whole site."""
        give_up_at = time.monotonic() + patience
        while time.monotonic() < give_up_at:
            calls = [call for call in self.site.fake.calls if call.endpoint in ("stable", "classic")]
            latest = {call.appid: call for call in calls if call.appid in self.appids}
            if not any(call.errcode or call.fault not in ("", "slow") for call in latest.values()):
                return
            time.sleep(0.1)

    def callers(self) -> list[str]:
        """Everybody who may be in the middle of a refresh."""
        return [name for name in self.crew.names if not name.startswith(("beat", "http"))]

    def current_token(self, appid: str) -> str:
        return self.site.shell(f"from wechat_token import get_access_token; print(get_access_token({appid!r}))").strip()

    def complain(self, appid: str, token: str, processes: int) -> None:
        self.site.run("-m", "tests.live.readers", "complain", appid, str(processes), token)

    def cache_key(self, appid: str) -> str:
        return f"{self.site.run_name}:1:wechat_token:{self.site.site_id}:{appid}:access_token"


@dataclass(frozen=True, slots=True)
class Calamity:
    name: str
    happen: Callable[[Stage], None]
    needs: str = ""  # 'cache', 'broker', 'database' (links), 'sessions', 'web', 'callers' or 'replica'

    @property
    def is_outage(self) -> bool:
        """Whether whoever needs a fetch meanwhile may go without."""
        return self.needs in ("database", "sessions") or self.name == "upstream outage"


CALAMITIES: Final[list[Calamity]] = []


def calamity(needs: str = "") -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    def register(happen: Callable[[Stage], None]) -> Callable[[Stage], None]:
        CALAMITIES.append(Calamity(happen.__name__.replace("_", " "), happen, needs))
        return happen

    return register


# -- processes -------------------------------------------------------------------------------------


@calamity()
def worker_killed(stage: Stage) -> None:
    stage.crew.kill("worker")
    stage.linger(0.5, 3)
    stage.crew.start("worker")


@calamity()
def worker_killed_during_a_call(stage: Stage) -> None:
    with stage.call_under_way():
        stage.crew.kill("worker")
    stage.crew.start("worker")


@calamity()
def everybody_killed_during_a_call(stage: Stage) -> None:
    callers = stage.callers()
    with stage.call_under_way():
        stage.crew.kill(*callers)
    began = time.time()
    for name in callers:
        stage.crew.start(name)
    stage.linger(4, 6)
    stage.crew.pauses.append(Pause("everybody", began, time.time()))


@calamity()
def reader_killed(stage: Stage) -> None:
    reader = stage.rng.choice(stage.crew.readers)
    stage.crew.kill(reader)
    stage.crew.start(reader)


@calamity("web")
def web_worker_killed(stage: Stage) -> None:
    stage.crew.kill_one_child("web")
    stage.linger(4, 6)


@calamity("web")
def web_server_killed(stage: Stage) -> None:
    stage.crew.kill("web")
    stage.linger(0.5, 2)
    stage.crew.start("web")
    stage.linger(4, 6)


@calamity()
def worker_frozen_past_the_lease(stage: Stage) -> None:
    with stage.call_under_way(), stage.crew.frozen("worker"):
        time.sleep(stage.lease + 2)


@calamity()
def everybody_frozen_past_the_lease(stage: Stage) -> None:
    with stage.call_under_way(), stage.crew.frozen(*stage.callers()):
        time.sleep(stage.lease + 2)


@calamity()
def reader_frozen_past_the_lease(stage: Stage) -> None:
    with stage.crew.frozen(stage.rng.choice(stage.crew.readers)):
        time.sleep(stage.lease + 2)


@calamity()
def one_beat_killed(stage: Stage) -> None:
    beat = stage.rng.choice(["beat-1", "beat-2"])
    stage.crew.kill(beat)
    stage.linger(1, 4)
    stage.crew.start(beat)


@calamity()
def both_beats_frozen(stage: Stage) -> None:
    with stage.crew.frozen("beat-1", "beat-2"):
        time.sleep(stage.life / 4)


@calamity()
def celery_dead(stage: Stage) -> None:
    """R7: callers renew by themselves."""
    names = ("worker", "beat-1", "beat-2")
    stage.crew.kill(*names)
    time.sleep(stage.life / 2)
    for name in names:
        stage.crew.start(name)


# -- WeChat ----------------------------------------------------------------------------------------

BAD_ANSWERS: Final = {
    "answer lost": Fault("lost_after"),
    "request lost": Fault("lost_before"),
    "answer hangs": Fault("hang_after", seconds=30),
    "request hangs": Fault("hang_before", seconds=30),
    "answer drips": Fault("drip", seconds=0.2),
    "answer cut": Fault("cut"),
    "502": Fault("status"),
    "502 after issuing": Fault("status", obeyed=True),
    "busy": Fault("error", errcode=-1),
    "garbage": Fault("garbage"),
    "huge answer": Fault("huge"),
    "no token in the answer": Fault("value_empty"),
    "no life in the answer": Fault("life_missing"),
    "redirect": Fault("redirect"),
    "connection refused": Fault("refused"),
}


def _bad_answer(fault: Fault) -> Callable[[Stage], None]:
    def happen(stage: Stage) -> None:
        stage.spoil_a_call(fault, times=stage.rng.choice([1, 2]))
        stage.site.fake.clear_faults()
        stage.await_recovery(15)

    return happen


CALAMITIES.extend(Calamity(f"upstream: {name}", _bad_answer(fault)) for name, fault in BAD_ANSWERS.items())


@calamity()
def upstream_outage(stage: Stage) -> None:
    """Shorter than the shortest lead, which is an eighth of the life."""
    stage.site.fake.outage(until=stage.site.fake.now() + stage.life / 20)
    time.sleep(stage.life / 20)
    stage.await_recovery(15)


@calamity()
def token_ended_by_wechat_and_complaints(stage: Stage) -> None:
    appid = stage.any_account()
    token = stage.current_token(appid)
    begin = time.time()
    stage.site.fake.kill_token(appid)
    stage.complain(appid, token, 3)
    # Every process hears of it within a second; a read may have begun just before.
    stage.early_ends.append(EarlyEnd(appid, begin, time.time() + 1.5))


@calamity()
def false_complaints(stage: Stage) -> None:
    appid = stage.any_account()
    stage.complain(appid, stage.current_token(appid), 5)


# -- stores ----------------------------------------------------------------------------------------


@calamity("cache")
def cache_and_queue_flushed(stage: Stage) -> None:
    services.delete_keys(f"{stage.site.run_name}*")


@calamity("cache")
def cache_poisoned_with_garbage(stage: Stage) -> None:
    with services.admin("redis") as redis:
        for appid in stage.appids:
            redis.set(stage.cache_key(appid), stage.rng.choice([b"\x80garbage", b"", b"12", stage.rng.randbytes(300)]))


@calamity("cache")
def cache_entries_swapped(stage: Stage) -> None:
    with services.admin("redis") as redis:
        entries = [redis.get(stage.cache_key(appid)) for appid in stage.appids]
        for appid, entry in zip(stage.appids, entries[1:] + entries[:1], strict=True):
            if entry is not None:
                redis.set(stage.cache_key(appid), entry)


@calamity("cache")
def cache_entries_of_long_ago_put_back(stage: Stage) -> None:
    with services.admin("redis") as redis:
        entries = {appid: redis.get(stage.cache_key(appid)) for appid in stage.appids}
        time.sleep(stage.life / 3)
        for appid, entry in entries.items():
            if entry is not None:
                redis.set(stage.cache_key(appid), entry)


@calamity("sessions")
def database_read_only(stage: Stage) -> None:
    with stage.site.database.read_only():
        stage.linger(2, 5)


@calamity("sessions")
def database_sessions_ended(stage: Stage) -> None:
    for _ in range(3):
        stage.site.database.end_sessions()
        stage.linger(0.1, 1)


def _link_fault(name: str, what: str) -> Callable[[Stage], None]:
    def happen(stage: Stage) -> None:
        link = stage.site.links[name]
        getattr(link, what)()
        try:
            stage.linger(2, 5)
        finally:
            link.up()

    return happen


for _name in ("cache", "broker", "database"):
    for _what in ("down", "hang", "cut"):
        CALAMITIES.append(Calamity(f"{_name} {_what}", _link_fault(_name, _what), _name))


# -- people ----------------------------------------------------------------------------------------


@calamity()
def account_edited(stage: Stage) -> None:
    appid = stage.any_account()
    stage.site.shell(f"from wechat_token.models import Account; Account.objects.get(appid={appid!r}).save()")
    stage.provoked += 1


@calamity()
def lease_in_the_far_future(stage: Stage) -> None:
    """A row edited by hand; nobody may believe it."""
    appid = stage.any_account()
    stage.site.database.lend_for_ever(appid)
    stage.site.database.make_due(appid)
    stage.provoked += 1
