"""The verdict of one run or of many."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from wechat_token.models import ACCESS_TOKEN, Account
from wechat_token.platforms import OFFICIAL_ACCOUNT, source_for

from .beat import INTERVAL
from .tickets import TYPES
from .world import Options, World


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is kept of a run."""

    lines: list[str] = field(repr=False)
    passed: bool
    account_days: float
    cpu: float
    calls: int
    served: int
    dead: int
    dead_seconds: float
    repairs: int
    longest_repair: float
    ticket_calls: dict[str, int]
    dead_ticket_seconds: dict[str, float]
    longest_dead_ticket: float


def simulate(options: list[Options], jobs: int = 1) -> int:
    """Run them all, print a line for each and the sum; 0 if all are as promised. ``jobs``: processes at a time."""
    verdicts = []
    for verdict in _verdicts(options, jobs):
        _say("\n".join(verdict.lines))
        verdicts.append(verdict)
    if len(verdicts) > 1:
        _say(_total(verdicts, ideal(options[0])))
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def _verdicts(options: list[Options], jobs: int) -> Iterator[Verdict]:
    if jobs == 1:
        yield from map(run, options)
        return
    # Forked before any of them has a connection; each makes its own database in its own memory.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        yield from pool.map(run, options)


def run(option: Options) -> Verdict:
    world = World(option)
    begun = time.process_time()
    world.run()
    cpu = time.process_time() - begun
    figures = world.witness.figures
    return Verdict(
        lines=list(_lines(world, cpu)),
        passed=not figures.violations,
        account_days=option.accounts * option.days,
        cpu=cpu,
        calls=world.calls_counted,
        served=figures.served,
        dead=figures.dead,
        dead_seconds=figures.dead_seconds,
        repairs=figures.repairs,
        longest_repair=figures.longest_repair,
        ticket_calls=world.ticket_calls_counted if option.tickets else {},
        dead_ticket_seconds=world.tickets.dead_seconds if option.tickets else {},
        longest_dead_ticket=world.tickets.longest_dead,
    )


def _lines(world: World, cpu: float) -> Iterator[str]:
    option, figures = world.options, world.witness.figures
    account_days = option.accounts * option.days
    per_day = world.calls_counted / account_days
    yield (
        f"{'FAILED' if figures.violations else 'passed'} "
        f"seed={option.seed} faults={option.faults:g} account_days={account_days:g} "
        f"served={figures.served} dead={figures.dead} dead_seconds={figures.dead_seconds:.1f} "
        f"calls_per_account_day={per_day:.3f} pace={world.witness.pace():.3f} ideal={ideal(option):.3f} "
        f"stampede={figures.token_calls / max(world.truth.issues, 1):.3f} waits={figures.waits} "
        f"probes={figures.calls['probe']} issued={world.truth.issues} "
        f"repairs={figures.repairs}+{figures.repairs_disturbed} longest_repair={figures.longest_repair:.1f}s "
        f"violations={figures.violations} "
        f"behind_our_back={figures.behind_our_back} slow_news={figures.slow_news} skew={figures.within_skew} "
        f"blind={figures.blind} restored={figures.restored} unavailable={figures.unavailable} "
        f"complaints={figures.complaints} kills={figures.kills} pauses={figures.pauses} "
        f"{_of_tickets(world)}"
        f"digest={world.digest:08x} speed={account_days / cpu:.1f}/s"
    )
    if figures.violations:
        yield f"faults of this run: {', '.join(world.swarm.enabled)}; widest skew {world.widest_skew:.1f} s"
        yield f"the first violation and what led to it (seed {option.seed}):"
        yield from world.failures


def _of_tickets(world: World) -> str:
    tickets, days = world.tickets, world.options.accounts * world.options.days
    if not world.options.tickets:
        return ""
    each = [
        f"{kind}_dead_seconds={tickets.dead_seconds[kind]:.1f} "
        f"{kind}_calls_per_account_day={world.ticket_calls_counted[kind] / days:.2f} "
        for kind in TYPES
    ]
    return (
        f"{''.join(each)}longest_dead_ticket={tickets.longest_dead:.1f}s tickets_served={tickets.served} "
        f"dead_tickets_served={tickets.dead_served} tickets_ended_early={tickets.ended_early} "
    )


def _total(verdicts: Iterable[Verdict], ideal_calls: float) -> str:
    runs = list(verdicts)
    days = sum(run.account_days for run in runs)
    return (
        f"total: {sum(run.passed for run in runs)} of {len(runs)} runs passed, "
        f"{days:.0f} account-days ({days / 365:.2f} account-years), "
        f"served={sum(run.served for run in runs)} dead={sum(run.dead for run in runs)} "
        f"dead_seconds_per_account_year={sum(run.dead_seconds for run in runs) / days * 365:.1f} "
        f"calls_per_account_day={sum(run.calls for run in runs) / days:.3f} ideal={ideal_calls:.3f} "
        f"repairs={sum(run.repairs for run in runs)} longest_repair={max(run.longest_repair for run in runs):.1f}s "
        f"{_tickets_in_all(runs, days)}"
        f"speed={days / sum(run.cpu for run in runs):.1f} account-days per CPU second"
    )


def _tickets_in_all(runs: list[Verdict], days: float) -> str:
    each = [
        f"{kind}_dead_seconds_per_account_day={sum(run.dead_ticket_seconds[kind] for run in runs) / days:.2f} "
        f"{kind}_calls_per_account_day={sum(run.ticket_calls[kind] for run in runs) / days:.2f} "
        for kind in runs[0].ticket_calls
    ]
    longest = max(run.longest_dead_ticket for run in runs)
    return f"{''.join(each)}longest_dead_ticket={longest:.1f}s " if each else ""


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def ideal(option: Options) -> float:
    """Calls per account and day: one in a life less the mean lead.

    The mean lead is that of the renewal rule, less the half tick of beat for which a due token waits on average.
    """
    source = source_for(OFFICIAL_ACCOUNT, ACCESS_TOKEN)
    endpoints = ["stable", "classic"] if option.endpoint == "mixed" else [option.endpoint]
    calls = []
    for endpoint in endpoints:
        renewal = source.renewal(Account(endpoint=endpoint), option.life)
        lead = (renewal.earliest + renewal.latest) / 2
        calls.append(86_400.0 / (option.life - lead + INTERVAL / 2))
    return sum(calls) / len(calls)


__all__ = ["ideal", "simulate"]
