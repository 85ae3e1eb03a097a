"""One service away, first hanging and then refused: reads go on, and how fast, in one and the same process (R13)."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from .figures import Durations, summarize
from .site import Site, live_site

APPID: Final = "wx0000000000outage"
LINKS: Final = {"redis": "cache", "database": "database", "broker": "broker"}
RATE, THREADS = 100.0, 4  # reads a second in each thread
P99 = 0.001  # seconds: a warm read whatever is down


@dataclass(frozen=True, slots=True)
class Phase:
    name: str
    reads: Durations
    dead: int
    errors: int
    longest_save: float  # seconds; what an operator waits for when he saves an account

    @property
    def is_kept(self) -> bool:
        return self.dead == 0 and self.errors == 0 and self.reads.p99 < P99


class Reader:
    """One measuring process, told what to do line by line."""

    def __init__(self, site: Site) -> None:
        self._site = site
        with (site.folder / "bench.err").open("w") as log:
            self._child = site.start(
                "-m", "tests.live.bench", APPID, str(RATE), str(THREADS),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip

    def ask(self, line: str) -> dict[str, Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{line}\n")
        self._child.stdin.flush()
        answer: dict[str, Any] = json.loads(self._child.stdout.readline())
        return answer

    def phase(self, name: str, seconds: float, *, save: bool) -> Phase:
        began = time.time()
        found = self.ask(str(seconds))
        fake = self._site.fake
        return Phase(
            name,
            summarize(found["durations"]),
            sum(not (fake.is_valid(token, began) or fake.is_valid(token)) for token in found["tokens"]),
            len(found["errors"]),
            max(self.ask("save")["durations"]) if save else 0.0,
        )


def run(*, what: str, database: str, seconds: float) -> list[Phase]:
    """``what``: ``redis`` (as cache), ``database`` or ``broker``. Healthy, hanging, refused, healthy again."""
    # The database is asked every two seconds instead of once a minute, so that its outage is met many times over.
    settings = {"CACHE_SECONDS": 2} if what == "database" else {}
    with live_site(database, redis=True, broker="redis", settings=settings, linked=True) as site:
        site.add_account(APPID, "classic")
        reader = Reader(site)
        link = site.links[LINKS[what]]
        save = what == "broker"
        phases = [reader.phase("healthy", seconds, save=save)]
        link.hang()
        back = threading.Timer(seconds, link.up)  # whoever waits for a database that hangs, waits until it is back
        back.start()
        phases.append(reader.phase("hanging", seconds, save=save))
        back.join()
        link.down()
        phases.append(reader.phase("refused", seconds, save=save))
        link.up()
        phases.append(reader.phase("healthy again", seconds, save=save))
        return phases


def ratio(phases: list[Phase]) -> float:
    """The worst 99th percentile beside the healthy one."""
    return max(phase.reads.p99 for phase in phases) / phases[0].reads.p99
