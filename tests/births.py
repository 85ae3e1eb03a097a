"""What the birth rule (R23) is worth: tickets of a busy site, simulated with the rule itself and nothing around it.

::

    python -m tests.births [--runs 200] [--days 10] [--seed 1]

World A: a ticket lives 7,200 s from its first issue, and the first request after that gets the next one. World B: a new
one at every even hour, which does not end the old one. "Another system": one that fetches the ticket and caches it for
7,000 s, in the same world. Counted are the seconds in which the site serves a ticket that is dead.
"""

from __future__ import annotations

import argparse
import datetime as dt
import random
from dataclasses import dataclass

import django

LIFE = 7200.0
EPOCH = dt.datetime(2026, 3, 2, 4, 0, tzinfo=dt.UTC)
TICK = 5.0  # seconds between the ticks of beat


class Issuer:
    """WeChat: what it hands out when it is asked at a moment, and until when each of that works."""

    def __init__(self, world: str, start: float) -> None:
        self.world = world
        self.dies: list[float] = []
        self._born = float("-inf")
        self._offset = start

    def ask(self, at: float) -> int:
        """The number of the ticket."""
        if self.world == "stuck":
            self.dies = [float("inf")]
        elif self.world == "A":
            if at >= self._born + LIFE:
                self._born = at
                self.dies.append(at + LIFE)
        else:
            mark = (at + self._offset) // LIFE * LIFE - self._offset
            if mark > self._born:
                self._born = mark
                self.dies.append(mark + 1.5 * LIFE)
        return len(self.dies) - 1


@dataclass
class Result:
    dead: float = 0.0  # seconds
    longest: float = 0.0
    calls: int = 0
    busiest: int = 0  # calls of the day that had most
    unserved: float = 0.0  # seconds without any ticket: readers wait for an answer


def run(world: str, *, days: float, seed: str, other: bool = False) -> Result:
    """One account. ``world``: ``A``, ``B``, or ``stuck`` on one ticket for ever."""
    from wechat_token.engine import birth, schedule
    from wechat_token.models import Account, Token

    rng = random.Random(seed)
    issuer, end = Issuer(world, rng.uniform(0, LIFE)), days * 86_400.0
    rival = rng.uniform(-LIFE, 7000.0) if other else end
    token = Token(account=Account(appid="wx1", ref="wx1"), kind="jsapi_ticket")
    result, served, dead_since, now = Result(), -1, None, 0.0
    by_day: dict[str, int] = {}

    def moment(at: float) -> dt.datetime:
        return EPOCH + dt.timedelta(seconds=at)

    while now < end:
        arrives = now + rng.lognormvariate(-3.2, 0.4)
        answered = arrives + rng.lognormvariate(-3.2, 0.4)
        while rival <= arrives:
            issuer.ask(rival)
            rival += 7000.0 + rng.uniform(0, 5)
        value = issuer.ask(arrives)
        token.sent_at = moment(now)
        token.usage = schedule.counted(token, "ticket", moment(now))
        result.calls += 1
        day = schedule.beijing_day(moment(now))
        by_day[day] = by_day.get(day, 0) + 1
        same, digest = value == served, str(value)
        fields = birth.answered(
            token, same=same, digest=digest, life=int(LIFE), now=moment(answered), endpoint="ticket",
            chance=rng.random(), daily_limit=10_000, is_ours=served >= 0,
        )  # fmt: skip
        if not same:
            fields |= {"issued_at": moment(now), "former_digest": str(served)}
            dead_since = None
        for name, new in fields.items():
            setattr(token, name, new)
        served = value
        good_until = (token.expires_at - EPOCH).total_seconds()
        due = (token.due_at - EPOCH).total_seconds()
        # Beat comes within a tick; when the ticket is not good any more, the next reader asks at once.
        now = max(min(due + rng.uniform(0, TICK), good_until + rng.uniform(0, 0.02)), answered)
        replaced = now + 0.1  # about when the next answer is in
        dies = issuer.dies[value]
        wrong = max(min(good_until, replaced) - max(answered, dies), 0.0)
        result.dead += wrong
        if wrong:
            dead_since = max(answered, dies) if dead_since is None else dead_since
            result.longest = max(result.longest, min(good_until, replaced) - dead_since)
        result.unserved += max(replaced - good_until, 0.0)
    result.busiest = max(by_day.values())
    return result


CASES = (
    ("world A", "A", False), ("world A, another system fetches too", "A", True), ("world B", "B", False),
    ("one ticket for ever", "stuck", False),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--days", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    django.setup()
    print(f"{options.runs} accounts of {options.days:g} days each, by day and account:")
    print(f"{'':36} dead s (worst account)  longest stretch s  calls (busiest day)  readers wait s")
    for name, world, other in CASES:
        runs = [
            run(world, days=options.days, seed=f"{options.seed}-{n}", other=other) for n in range(options.runs)
        ]  # fmt: skip
        days = options.days * len(runs)
        print(
            f"{name:36} {sum(r.dead for r in runs) / days:8.2f} ({max(r.dead for r in runs) / options.days:8.2f})"
            f"      {max(r.longest for r in runs):13.1f}  {sum(r.calls for r in runs) / days:8.1f}"
            f" ({max(r.busiest for r in runs):5})       {sum(r.unserved for r in runs) / days:9.2f}"
        )


if __name__ == "__main__":
    main()
