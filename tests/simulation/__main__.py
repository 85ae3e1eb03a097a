"""``python -m tests.simulation --seed N --days D [--faults X] [--accounts A] [--hosts H] [--runs R] [--jobs J]``

Prints one verdict line per seed, and a sum. Exit status 1 if an invariant was violated; then the seed's faults and the
last events of the account are printed, and the same command with that seed shows the same again.

A hundred account-years on two cores::

    python -m tests.simulation --seed 1 --runs 183 --days 10 --accounts 20 --reads 1 --faults 1 --jobs 2

The same with tickets (``--tickets A`` or ``B``) takes ten times as long: until the birth of a first ticket is
known, it is asked for every 30 s.

What the figures mean:

======================  ===============================================================================
dead, dead_seconds      dead tokens handed out, and for how long they were: must be 0
calls_per_account_day   token requests of any kind, also those that failed and each account's first
pace, ideal             requests from the first to the latest, and what the renewal rule alone would need
stampede                requests per token issued
repairs=A+B             lost answers after which the next request left undisturbed, and those where something
                        else failed on the way; ``longest_repair`` is of the former, and must be within 30 s
behind_our_back         dead tokens handed out that WeChat or another system had ended, before any complaint
slow_news               … after the complaint, by a process that had not heard of it for more than a second
skew                    … dead for less than the hosts' clocks differ
blind                   … where cache and database were down for longer than the overlap
restored                … which a backup of the database had brought back, before any complaint
unavailable             readers that got an error for want of a token, or of a ticket
…_dead_seconds          for how long the site would have handed out a ticket that had died by itself; that is no
                        violation (R23), unless one of them is good for 30 s and more beyond its end
longest_dead_ticket     the longest of these times
dead_tickets_served     readers that got one
tickets_ended_early     … that WeChat had ended before its time, before any complaint
======================  ===============================================================================
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

    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = Options()
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, counting up from --seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side, each with seeds of its own")
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
    parser.add_argument("--tickets", choices=["A", "B"], default="", help="the world of tickets: sandbox, ticket_world")
    parser.add_argument(
        "--rivals", type=float, default=0.0, help="share of accounts whose ticket another system fetches"
    )
    arguments = vars(parser.parse_args())
    runs, jobs = arguments.pop("runs"), arguments.pop("jobs")
    return simulate([Options(**arguments | {"seed": arguments["seed"] + n}) for n in range(runs)], jobs)


if __name__ == "__main__":
    sys.exit(main())
