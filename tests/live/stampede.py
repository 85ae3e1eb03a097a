"""Many processes with many threads and two beats on one token, cold and through its renewals: calls a rotation (R1)."""

from __future__ import annotations

import itertools
import json
import subprocess
from dataclasses import dataclass
from typing import Any, Final

from wechat_token.sandbox import FakeWeChat, Fault

from .crew import CELERY
from .site import SECRET, live_site

SLOW_UPSTREAM: Final = 2.0  # seconds every renewal takes; whoever waits for it is seen
LIFE: Final = 30.0
SPARE_CONNECTIONS: Final = 30  # for worker, beats and whoever else uses the server


@dataclass(frozen=True, slots=True)
class Result:
    endpoint: str
    reads: int
    dead: int
    errors: int
    cold_calls: int
    rotations: int
    warm_calls: int
    blocked: int  # warm reads that took half of SLOW_UPSTREAM or longer
    longest_cold: float
    longest_warm: float

    @property
    def factor(self) -> float:
        return (self.cold_calls + self.warm_calls) / (1 + self.rotations)

    @property
    def is_kept(self) -> bool:
        return self.rotations > 0 and self.factor == 1.0 and not (self.dead or self.errors or self.blocked)

    def __str__(self) -> str:
        return (
            f"{self.endpoint}: {self.reads} reads, {self.dead} dead tokens served, {self.errors} errors; "
            f"cold {self.cold_calls} upstream call, warm {self.warm_calls} for {self.rotations} rotations, "
            f"factor {self.factor:.3f}; callers blocked {self.blocked} "
            f"(renewals took {SLOW_UPSTREAM:g} s, longest warm read {self.longest_warm:.2f} s, "
            f"longest cold read {self.longest_cold:.2f} s)"
        )


def run(*, endpoint: str, processes: int, threads: int, rotations: int, database: str) -> Result:
    settings = {"OVERLAP": LIFE / 3, "CACHE_SECONDS": LIFE / 6, "BEAT_INTERVAL": 1, "WAIT_TIMEOUT": 30}
    with live_site(database, redis=True, broker="redis", life=LIFE, overlap=LIFE / 3, settings=settings) as site:
        free = site.database.free_connections()
        if free < processes + SPARE_CONNECTIONS:
            raise SystemExit(f"{database}: {free} connections are free, {processes + SPARE_CONNECTIONS} are needed")
        appid = f"wx00000000crowd{endpoint}"[:18]
        site.fake.add_account(appid, SECRET)
        site.fake.inject(Fault("slow", seconds=SLOW_UPSTREAM), times=1_000_000)
        site.shell(  # no signal is sent: nobody fetches before the crowd does
            "from wechat_token.models import Account;"
            f"Account.objects.bulk_create([Account(appid={appid!r}, secret={SECRET!r}, endpoint={endpoint!r})])"
        )
        crowd = site.start(
            "-m", "tests.live.crowd", appid, str(processes), str(threads), str(LIFE * rotations),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        site.serve("worker", *CELERY, "worker", "--concurrency", "2")
        for beat in ("beat-1", "beat-2"):
            site.serve(beat, *CELERY, "beat", "--pidfile=")
        reports = json.loads(crowd.communicate(timeout=LIFE * rotations + 120)[0])
        return _judge(reports, site.fake, appid, endpoint)


@dataclass(frozen=True, slots=True)
class Tickets:
    """A crowd that asks for the ticket of an account without a token. ``turned_away``: threads that were told to come
    back in a second, because enough of their process waited already (R30); ``errors``: all else that went wrong.
    """

    reads: int
    dead: int
    turned_away: int
    errors: int
    token_calls: int
    ticket_calls: int
    longest: float  # seconds that the first read took

    @property
    def is_kept(self) -> bool:
        return (self.token_calls, self.ticket_calls) == (1, 1) and not (self.dead or self.errors)

    def __str__(self) -> str:
        return (
            f"ticket: {self.reads} reads, {self.dead} dead tickets served, {self.errors} errors, "
            f"{self.turned_away} turned away; upstream "
            f"{self.token_calls} call for the token and {self.ticket_calls} for the ticket, "
            f"longest cold read {self.longest:.2f} s"
        )


def run_tickets(*, processes: int, threads: int, database: str, seconds: float = 5.0) -> Tickets:
    """Cold, and warm for less time than until the first check of the ticket (R23)."""
    appid = "wx0000000000ticket"
    with live_site(database, redis=True, broker="redis", settings={"WAIT_TIMEOUT": 30}) as site:
        free = site.database.free_connections()
        if free < processes + SPARE_CONNECTIONS:
            raise SystemExit(f"{database}: {free} connections are free, {processes + SPARE_CONNECTIONS} are needed")
        site.fake.add_account(appid, SECRET)
        site.fake.inject(Fault("slow", seconds=0.2), times=2)
        site.shell(
            "from wechat_token.models import Account;"
            f"Account.objects.bulk_create([Account(appid={appid!r}, secret={SECRET!r})])"
        )
        crowd = site.start(
            "-m", "tests.live.crowd", appid, str(processes), str(threads), str(seconds), "jsapi_ticket",
            stdout=subprocess.PIPE,
        )  # fmt: skip
        reports = json.loads(crowd.communicate(timeout=seconds + 120)[0])
        fake = site.fake
        errors = [error for report in reports for error in report["errors"]]
        turned_away = sum("threads of this process wait for it already" in error for error in errors)
        return Tickets(
            reads=sum(report["reads"] for report in reports),
            dead=sum(not fake.is_valid(text, at) for report in reports for text, at in report["tokens"].items()),
            turned_away=turned_away,
            errors=len(errors) - turned_away,
            token_calls=fake.calls_to(appid, "stable"),
            ticket_calls=fake.calls_to(appid, "ticket"),
            longest=max(report["cold"] for report in reports),
        )


def _judge(reports: list[dict[str, Any]], fake: FakeWeChat, appid: str, endpoint: str) -> Result:
    calls = [call.t for call in fake.calls if call.appid == appid and call.endpoint == endpoint]
    # Calls of one rotation come together; the next rotation is most of a life away.
    rotations = sum(later - earlier > LIFE / 2 for earlier, later in itertools.pairwise(calls))
    cold = sum(call < calls[0] + LIFE / 2 for call in calls)
    slow = [took for report in reports for _, took in report["slow"]]
    return Result(
        endpoint=endpoint,
        reads=sum(report["reads"] for report in reports),
        dead=sum(not fake.is_valid(token, asked) for report in reports for token, asked in report["tokens"].items()),
        errors=sum(len(report["errors"]) for report in reports),
        cold_calls=cold,
        rotations=rotations,
        warm_calls=len(calls) - cold,
        blocked=sum(took >= SLOW_UPSTREAM / 2 for took in slow),
        longest_cold=max(report["cold"] for report in reports),
        longest_warm=max(slow, default=0.0),
    )
