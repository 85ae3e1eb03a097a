"""Which faults a run has. Each run gets a random subset, each fault with a random strength (swarm testing):
a run with everything at once hides what a run with three faults finds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class Swarm:
    """Probabilities per call, statement, operation or step, and rates per day of the whole site or of an account."""

    # Replica reads are not among them: rows are read where they are written (R34), whatever a router says, and with
    # one database there is none. Routers and replicas that lag are tested in tests/ground.

    # per HTTP request
    refused: float = 0.004  # nothing leaves
    lost_before: float = 0.004  # reset before WeChat read it
    lost_after: float = 0.004  # WeChat obeyed, the answer is lost
    late: float = 0.003  # WeChat obeys after we gave up
    stalled: float = 0.003  # obeyed, the answer comes after our deadline
    spoiled: float = 0.005  # obeyed, the answer is no use: HTML, half, empty, a life of NaN
    failing: float = 0.005  # not obeyed: 5xx, busy
    undecided: float = 0.1  # per probe: WeChat does not tell whether it accepts the token
    # per step of any task
    kill: float = 0.0002
    pause: float = 0.0004
    # per SQL statement, per cache operation
    sql_before: float = 0.0006
    sql_after: float = 0.0006  # committed, but the acknowledgement is lost
    cache_error: float = 0.002
    late_sets: float = 0.002  # between reading and writing a cache entry a thread is held up for up to two minutes
    # per day, whole site
    outages: float = 0.1
    database_outages: float = 0.1
    cache_outages: float = 0.2
    cache_flushes: float = 1.0
    cache_poisonings: float = 2.0
    read_only_caches: float = 0.2  # a cache that answers, and takes nothing
    restarts: float = 2.0  # SIGKILL of a whole process at any moment
    freezes: float = 2.0  # SIGSTOP of a whole process, then SIGCONT
    beat_gaps: float = 0.05  # no beat for up to three hours
    clock_steps: float = 0.3
    lost_keys: float = 0.05  # a host comes up with settings that lack the encryption key
    # per day and account
    foreign: float = 0.05  # another system renews the account
    killed_tokens: float = 0.02  # WeChat ends a token early
    false_complaints: float = 0.2
    edits: float = 0.03
    secret_resets: float = 0.01
    freezes_of_secret: float = 0.01
    ip_whitelists: float = 0.01
    quotas: float = 0.005
    deactivations: float = 0.01
    deletions: float = 0.005
    hand_edits: float = 0.02  # somebody writes nonsense into the row, past the package
    locks: float = 0.5  # a transaction of the site's has the row locked while it asks for the token
    lost_values: float = 0.02  # a stored token that nobody can read
    restores: float = 0.02  # a row as it was an hour ago or more, from a backup
    hung_accounts: float = 0.05  # WeChat leaves this account's requests without an answer
    liars: float = 0.05  # a client complains falsely for half an hour, beside honest ones
    # per run
    skew: float = 2.0  # seconds a host's clock may be wrong, either way
    two_beats: float = 0.3  # probability of a second beat for the whole run
    site_lookups: float = 0.1  # probability that processes ask the database all the time which site it is

    # of tickets:
    blamed: float = 0.01  # per ticket request: 40001, although the token is good
    ended_tickets: float = 0.03  # per day and account: WeChat ends them early
    rivals: float = 0.3  # share of the accounts whose ticket another system fetches, too

    faults: float = 1.0
    enabled: list[str] = field(default_factory=list)


OF_TICKETS = ("blamed", "ended_tickets", "rivals")
FIXED = (*OF_TICKETS, "faults", "enabled", "two_beats", "site_lookups", "skew")
_ALL = tuple(f.name for f in fields(Swarm))
NAMES = tuple(name for name in _ALL if name not in FIXED)
PROBABILITIES = frozenset(NAMES[: NAMES.index("outages")])
PROBABILITY_CAP = 0.25


def draw(rng: random.Random, faults: float, *, tickets: bool = False) -> Swarm:
    """A random subset of all faults, ``faults`` times as strong as usual. With 0: none at all."""
    swarm = Swarm(faults=faults)
    for name in NAMES:
        usual = getattr(swarm, name)
        on = faults > 0 and rng.random() < 0.6
        strength = usual * faults * rng.uniform(0.3, 1.7) if on else 0.0
        setattr(swarm, name, min(strength, PROBABILITY_CAP) if name in PROBABILITIES else strength)
        if on:
            swarm.enabled.append(name)
    swarm.skew = swarm.skew * faults if faults and rng.random() < 0.5 else 0.0
    swarm.two_beats = float(faults > 0 and rng.random() < swarm.two_beats)
    swarm.site_lookups = float(faults > 0 and rng.random() < swarm.site_lookups)
    for name in OF_TICKETS:
        on = tickets and faults > 0 and rng.random() < 0.6
        setattr(swarm, name, min(getattr(swarm, name) * faults * rng.uniform(0.3, 1.7), 1.0) if on else 0.0)
        if on:
            swarm.enabled.append(name)
    return swarm
