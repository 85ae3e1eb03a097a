"""Keep tokens alive with Celery's own worker and beat, read all the time, and judge every read afterwards."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

from .site import live_site

APPIDS = {"stable": "wx000000000stable", "classic": "wx00000000classic"}


@dataclass(frozen=True)
class Verdict:
    reads: int
    dead: int  # tokens served that the upstream refused at that moment
    errors: int
    calls: int
    ideal: float
    by_schedule: int

    def __str__(self) -> str:
        return (
            f"{self.reads} reads, {self.dead} dead tokens served, {self.errors} errors, {self.calls} upstream calls "
            f"({self.by_schedule} by schedule), ideal {self.ideal:.1f}, factor {self.calls / self.ideal:.2f}"
        )


def keep_alive(
    *, seconds: float, life: float, database: str, broker: str, beat_interval: int = 5, pool: str = "prefork"
) -> Verdict:
    """Run one stable and one classic account for ``seconds`` with tokens of ``life`` seconds.

    ``ideal``: see :func:`ideal_calls`.
    """
    settings = {"BEAT_INTERVAL": beat_interval}
    redis = broker == "redis"
    with live_site(database, redis=redis, broker=broker, life=life, settings=settings) as site:
        celery = ("-m", "celery", "-A", "example_project")
        site.serve("worker", *celery, "worker", "--pool", pool, "--concurrency", "2")
        site.serve("beat", *celery, "beat", "--schedule", str(site.folder / "beat"))
        for endpoint, appid in APPIDS.items():
            site.add_account(appid, endpoint)
        readers = [
            site.start("-m", "tests.live.readers", "loop", appid, str(seconds), stdout=subprocess.PIPE)
            for appid in APPIDS.values()
        ]
        lines = [line for reader in readers for line in reader.communicate(timeout=seconds + 60)[0].splitlines()]
        reads = [json.loads(line) for line in lines]
        tokens = [read for read in reads if "token" in read]
        calls = sum(site.fake.calls_to(appid, endpoint) for endpoint, appid in APPIDS.items())
        scheduled = site.shell(
            "from wechat_token.models import RefreshLog; print(RefreshLog.objects.filter(reason='schedule').count())"
        )
        return Verdict(
            reads=len(reads),
            # A token must have worked when it was handed out: at some moment between question and answer.
            dead=sum(
                not (site.fake.is_valid(read["token"], read["asked"]) or site.fake.is_valid(read["token"], read["at"]))
                for read in tokens
            ),
            errors=len(reads) - len(tokens),
            calls=calls,
            ideal=sum(ideal_calls(endpoint, life, seconds) for endpoint in APPIDS),
            by_schedule=int(scheduled),
        )


def ideal_calls(endpoint: str, life: float, seconds: float) -> float:
    """The first call and one a renewal, each in the middle of its jitter, without a single fault."""
    lead = 0.9 * life / 6 if endpoint == "classic" else 0.6 * life / 3
    return 1 + seconds / (life - lead)
