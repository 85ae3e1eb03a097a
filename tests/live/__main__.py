"""``python -m tests.live renewal|chaos|ground|stampede|outage|night``: the proofs with real processes on real services.

Loopback only, bounded, and clean afterwards. Exit code 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import signal
import sys

from . import chaos, night, outage, stampede
from .figures import machine
from .renewal import keep_alive


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.live", description=__doc__)
    proofs = parser.add_subparsers(dest="proof", required=True)

    renewal = proofs.add_parser("renewal", help="Celery keeps short-lived tokens alive while readers read")
    renewal.add_argument("--seconds", type=float, default=300)
    renewal.add_argument("--life", type=float, default=60)
    renewal.add_argument("--database", choices=("sqlite", "postgres", "mariadb"), default="postgres")
    renewal.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    renewal.add_argument("--pool", choices=("prefork", "threads"), default="prefork")
    renewal.set_defaults(prove=prove_renewal)

    helps = {
        "chaos": "one fault after another against a whole site",
        "ground": "the faults of locks, probes and exits alone: a quick look",
    }
    for name, seconds in (("chaos", 300), ("ground", 20)):
        havoc = proofs.add_parser(name, help=helps[name])
        havoc.add_argument("--seconds", type=float, default=seconds)
        havoc.add_argument("--seed", type=int, default=1)
        havoc.add_argument("--life", type=float, default=90)
        havoc.add_argument("--database", choices=("sqlite", "postgres", "mariadb"), default="postgres")
        havoc.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
        havoc.add_argument("--pool", choices=("prefork", "threads"), default="prefork")
        havoc.add_argument("--isolation", default="", help="of database connections, e.g. 'serializable'")
        havoc.set_defaults(prove=prove_chaos)

    crowd = proofs.add_parser("stampede", help="upstream calls a rotation with a thousand readers and two beats")
    crowd.add_argument("--processes", type=int, default=64)
    crowd.add_argument("--threads", type=int, default=16)
    crowd.add_argument("--rotations", type=int, default=2)
    crowd.add_argument("--database", choices=("sqlite", "postgres", "mariadb"), default="sqlite")
    crowd.add_argument("--endpoint", choices=("classic", "stable", "both"), default="both")
    crowd.add_argument("--ticket", action="store_true", help="of an account that has no token yet, and nothing else")
    crowd.set_defaults(prove=prove_stampede)

    away = proofs.add_parser("outage", help="reads, and how fast, while one service is refused or hangs")
    away.add_argument("--what", choices=tuple(outage.LINKS), default="redis")
    away.add_argument("--seconds", type=float, default=15, help="of each of the four phases")
    away.add_argument("--database", choices=("postgres", "mariadb"), default="postgres")
    away.set_defaults(prove=prove_outage)

    dark = proofs.add_parser("night", help="twelve faults, and when an operator was told of each")
    dark.add_argument("--database", choices=("postgres", "mariadb"), default="postgres")
    dark.add_argument("--only", default="", help="faults whose name has this in it")
    dark.set_defaults(prove=prove_night)

    options = parser.parse_args()
    # As Ctrl-C does: whatever was started is ended, whatever was made is dropped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(machine())
    return 0 if options.prove(options) else 1


def prove_renewal(options: argparse.Namespace) -> bool:
    found = keep_alive(
        seconds=options.seconds, life=options.life, database=options.database, broker=options.broker,
        pool=options.pool,
    )  # fmt: skip
    print(f"{options.database} + {options.broker}, {options.pool}, {options.seconds:.0f} s: {found}")
    return found.dead == 0 and found.errors == 0


def prove_chaos(options: argparse.Namespace) -> bool:
    found = chaos.run(
        database=options.database, broker=options.broker, seconds=options.seconds, seed=options.seed,
        life=options.life, isolation=options.isolation, pool=options.pool, ground_only=options.proof == "ground",
    )  # fmt: skip
    site = " + ".join(filter(None, (options.database, options.isolation, options.broker, options.pool)))
    print(f"{site}, seed {options.seed}, {options.seconds:.0f} s: {found}")
    return found.is_kept


def prove_stampede(options: argparse.Namespace) -> bool:
    if options.ticket:
        tickets = stampede.run_tickets(
            processes=options.processes, threads=options.threads, database=options.database
        )  # fmt: skip
        print(f"{options.database}, {options.processes} processes × {options.threads} threads, {tickets}", flush=True)
        return tickets.is_kept
    kept = True
    for endpoint in ("classic", "stable") if options.endpoint == "both" else (options.endpoint,):
        found = stampede.run(
            endpoint=endpoint, processes=options.processes, threads=options.threads,
            rotations=options.rotations, database=options.database,
        )  # fmt: skip
        print(f"{options.database}, {options.processes} processes × {options.threads} threads, {found}", flush=True)
        kept = kept and found.is_kept
    return kept


def prove_outage(options: argparse.Namespace) -> bool:
    phases = outage.run(what=options.what, database=options.database, seconds=options.seconds)
    for phase in phases:
        saves = f", longest save {1e3 * phase.longest_save:.0f} ms" if phase.longest_save else ""
        served = f"{phase.dead} dead tokens served, {phase.errors} errors"
        print(f"{options.what} {phase.name:14} {phase.reads}, {served}{saves}")
    kept = all(phase.is_kept for phase in phases)
    print(
        f"{options.database}, {options.what} away: worst p99 is {outage.ratio(phases):.1f} times the healthy one; "
        f"promises {'kept' if kept else 'BROKEN'}"
    )
    return kept


def prove_night(options: argparse.Namespace) -> bool:
    kept = night.run(options.database, options.only)
    print(f"{options.database}: promises {'kept' if kept else 'BROKEN'}")
    return kept


if __name__ == "__main__":
    sys.exit(main())
