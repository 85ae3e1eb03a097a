"""The verdict of one run or of many."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from wechat_token.models import ACCESS_TOKEN, Account
from wechat_token.platforms import source_for

from .beat import INTERVAL
from .figures import Figures
from .world import Options, World


@dataclass(slots=True)
class Total:
    """Sums over all runs."""

    runs: int = 0
    failed: int = 0
    account_days: float = 0.0
    cpu: float = 0.0
    calls: int = 0
    served: int = 0
    dead: int = 0
    dead_seconds: float = 0.0
    repairs: int = 0
    longest_repair: float = 0.0

    def add(self, world: World, cpu: float) -> None:
        figures, option = world.witness.figures, world.options
        self.runs += 1
        self.failed += bool(figures.violations)
        self.account_days += option.accounts * option.days
        self.cpu += cpu
        self.calls += world.calls_counted
        self.served += figures.served
        self.dead += figures.dead
        self.dead_seconds += figures.dead_seconds
        self.repairs += figures.repairs
        self.longest_repair = max(self.longest_repair, figures.longest_repair)


def simulate(options: list[Options]) -> int:
    """Run them one after the other, print a line for each and the sum; 0 if all are as promised."""
    total = Total()
    for option in options:
        world = World(option)
        begun = time.process_time()
        world.run()
        cpu = time.process_time() - begun
        total.add(world, cpu)
        _print(world, world.witness.figures, cpu)
    if total.runs > 1:
        _say(
            f"total: {total.runs - total.failed} of {total.runs} runs passed, "
            f"{total.account_days:.0f} account-days ({total.account_days / 365:.2f} account-years), "
            f"served={total.served} dead={total.dead} "
            f"dead_seconds_per_account_year={total.dead_seconds / total.account_days * 365:.1f} "
            f"calls_per_account_day={total.calls / total.account_days:.3f} ideal={ideal(options[0]):.3f} "
            f"repairs={total.repairs} longest_repair={total.longest_repair:.1f}s "
            f"speed={total.account_days / total.cpu:.1f} account-days per CPU second"
        )
    return 1 if total.failed else 0


def _print(world: World, figures: Figures, cpu: float) -> None:
    option = world.options
    account_days = option.accounts * option.days
    verdict = "FAILED" if figures.violations else "passed"
    per_day = world.calls_counted / account_days
    _say(
        f"{verdict} seed={option.seed} faults={option.faults:g} account_days={account_days:g} "
        f"served={figures.served} dead={figures.dead} dead_seconds={figures.dead_seconds:.1f} "
        f"calls_per_account_day={per_day:.3f} pace={world.witness.pace():.3f} ideal={ideal(option):.3f} "
        f"stampede={figures.token_calls / max(world.truth.issues, 1):.3f} waits={figures.waits} "
        f"probes={figures.calls['probe']} issued={world.truth.issues} "
        f"repairs={figures.repairs}+{figures.repairs_disturbed} longest_repair={figures.longest_repair:.1f}s "
        f"violations={figures.violations} "
        f"behind_our_back={figures.behind_our_back} slow_news={figures.slow_news} skew={figures.within_skew} "
        f"blind={figures.blind} unavailable={figures.unavailable} complaints={figures.complaints} "
        f"kills={figures.kills} pauses={figures.pauses} "
        f"digest={world.digest:08x} speed={account_days / cpu:.1f}/s"
    )
    if figures.violations:
        _say(f"faults of this run: {', '.join(world.swarm.enabled)}; widest skew {world.widest_skew:.1f} s")
        _say(f"the first violation and what led to it (seed {option.seed}):")
        _say("\n".join(world.failures))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def ideal(option: Options) -> float:
    """Calls per account and day: one in a life less the mean lead.

    The mean lead is that of the renewal rule, less the half tick of beat for which a due token waits on average.
    """
    source = source_for(ACCESS_TOKEN)
    endpoints = ["stable", "classic"] if option.endpoint == "mixed" else [option.endpoint]
    calls = []
    for endpoint in endpoints:
        renewal = source.renewal(Account(endpoint=endpoint), option.life)
        lead = (renewal.earliest + renewal.latest) / 2
        calls.append(86_400.0 / (option.life - lead + INTERVAL / 2))
    return sum(calls) / len(calls)


__all__ = ["Total", "ideal", "simulate"]
