"""``python -m tests.simulation --seed N --days D [--faults X] [--accounts A] [--hosts H] [--runs R]``

Prints one verdict line per seed, and the figures. Exit status 1 if an invariant was violated.
"""

from __future__ import annotations

import argparse
import os
import sys

import django


def main() -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.simulation.settings"
    django.setup()
    from .report import simulate
    from .world import Options

    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    defaults = Options()
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, counting up from --seed")
    parser.add_argument("--days", type=float, default=defaults.days)
    parser.add_argument("--faults", type=float, default=defaults.faults, help="0 none, 1 usual, 5 five times that")
    parser.add_argument("--accounts", type=int, default=defaults.accounts)
    parser.add_argument("--hosts", type=int, default=defaults.hosts, help="each with a worker and a web process")
    parser.add_argument("--endpoint", choices=["stable", "classic", "mixed"], default=defaults.endpoint)
    parser.add_argument("--life", type=int, default=defaults.life, help="seconds a token lives at WeChat")
    parser.add_argument("--reads", type=float, default=defaults.reads, help="per account and hour")
    parser.add_argument("--beats", type=int, default=defaults.beats, help="0: no Celery at all")
    parser.add_argument("--hammer", type=float, default=0.0, help="false complaints a second, first account")
    parser.add_argument("--jump", type=float, default=0.0, help="seconds a host's clock is wrong, now and then")
    arguments = vars(parser.parse_args())
    runs = arguments.pop("runs")
    return simulate([Options(**arguments | {"seed": arguments["seed"] + n}) for n in range(runs)])


if __name__ == "__main__":
    sys.exit(main())
