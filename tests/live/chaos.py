"""A whole site under one fault after another, every read judged afterwards."""

from __future__ import annotations

import random
import time
from collections import Counter
from importlib.util import find_spec
from typing import Final

from . import verdict
from .crew import Crew
from .faults import CALAMITIES, Calamity, Stage
from .renewal import ideal_calls
from .site import SECRET, Site, live_site
from .verdict import Verdict

APPIDS: Final = {
    **{f"wx00000000stable{n}": "stable" for n in range(1, 5)},
    **{f"wx0000000classic{n}": "classic" for n in range(1, 5)},
}
DEADLINE, MARGIN = 2.5, 2.5  # seconds; together the lease
# Seconds until every process has read once: one that starts without a database has nothing to go on with.
WARM_UP = 5.0


def settings(overlap: float) -> dict[str, float]:
    """The product's settings at the scale of short lives; what is not named here stays as it is."""
    return {
        "OVERLAP": overlap,
        "CACHE_SECONDS": overlap / 5,
        "CALLER_GRACE": 3,
        "REQUEST_DEADLINE": DEADLINE,
        "LEASE_MARGIN": MARGIN,
        "BEAT_INTERVAL": 1,
    }


def run(
    *, database: str, broker: str, seconds: float, seed: int, life: float = 90, isolation: str = "",
    pool: str = "prefork", readers: int = 3,
) -> Verdict:  # fmt: skip
    """The same seed makes the same faults in the same order; what they meet is up to the machine."""
    overlap = life / 3
    with live_site(
        database, redis=True, broker=broker, life=life, overlap=overlap, settings=settings(overlap), seed=seed,
        linked=True, isolation=isolation,
    ) as site:  # fmt: skip
        _populate(site)
        web = find_spec("gunicorn") is not None
        crew = Crew(site, list(APPIDS), pool=pool, readers=readers, web=web)
        crew.start_all()
        time.sleep(WARM_UP)
        stage = Stage(site, crew, APPIDS, random.Random(seed), life, DEADLINE + MARGIN)
        began = time.time()
        try:
            happened = _haunt(stage, _possible(site, web=web), began + seconds)
            time.sleep(6)  # the last repair
        finally:
            fallen = crew.fallen()
            crew.stop()
        if fallen:
            print(f"ended by themselves: {', '.join(fallen)}")
        found = verdict.judge(
            verdict.load(crew.histories()), site.fake, stage.early_ends, seed=seed, frozen=crew.pauses
        )
        found.calls = sum(site.fake.calls_to(appid, endpoint) for appid, endpoint in APPIDS.items())
        found.ideal = stage.provoked + sum(
            ideal_calls(endpoint, life, time.time() - began) for endpoint in APPIDS.values()
        )
        _explain(found, began)
        print(f"{sum(happened.values())} faults of {len(happened)} kinds")
        return found


def _populate(site: Site) -> None:
    """Accounts with a first token each, and a client key that may read them all."""
    for appid in APPIDS:
        site.fake.add_account(appid, SECRET)
    site.shell(
        "from wechat_token import get_access_token; from wechat_token.models import Account\n"
        f"for appid, endpoint in {APPIDS!r}.items():\n"
        f"    Account.objects.create(appid=appid, secret={SECRET!r}, endpoint=endpoint); get_access_token(appid)\n"
    )
    allowed = [argument for appid in APPIDS for argument in ("--account", appid)]
    key = site.run("manage.py", "wechat_token", "add-key", "reader", *allowed)
    site.env["WECHAT_TOKEN_LIVE_KEY"] = key.strip()


def _possible(site: Site, *, web: bool) -> list[Calamity]:
    have = {"", *site.links} | ({"web"} if web else set()) | ({"sessions"} if "database" in site.links else set())
    return [calamity for calamity in CALAMITIES if calamity.needs in have]


def _haunt(stage: Stage, possible: list[Calamity], until: float) -> Counter[str]:
    """One fault after another, every kind before any comes again."""
    happened: Counter[str] = Counter()
    waiting: list[Calamity] = []
    began = time.time()
    while time.time() < until:
        waiting = waiting or stage.rng.sample(possible, len(possible))
        calamity = waiting.pop()
        print(f"{time.time() - began:7.1f} s  {calamity.name}", flush=True)
        calamity.happen(stage)
        happened[calamity.name] += 1
        stage.linger(0.5, 2)
    return happened


def _explain(found: Verdict, began: float) -> None:
    """The first of what must not be, with the time at which to look into the list of faults."""
    for what, reads in (("dead token", found.dead), ("error", found.errors)):
        for read in reads[:20]:
            print(
                f"{read.asked - began:7.1f} … {read.at - began:.1f} s  {what}  {read.reader} {read.appid} {read.error}"
            )
