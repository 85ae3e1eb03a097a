"""A whole site under one fault after another, every read judged afterwards."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Final

from . import verdict
from .asking import WAIT
from .clients import Clients
from .crew import Crew
from .faults import CALAMITIES, Calamity, Stage
from .figures import summarize
from .ground import GROUND_CALAMITIES
from .renewal import ideal_calls
from .service import Service
from .site import SECRET, Site, live_site
from .verdict import Read, Trouble, Verdict

APPIDS: Final = {
    **{f"wx00000000stable{n}": "stable" for n in range(1, 5)},
    **{f"wx0000000classic{n}": "classic" for n in range(1, 5)},
}
LIED: Final = {"wx0000000000lied01": "stable", "wx0000000000lied02": "classic"}  # complained about without end
HANGING: Final = "wx00000000hanging1"
DEADLINE, MARGIN = 2.5, 2.5  # seconds; together the lease
# Seconds until every process has read once: one that starts without a database has nothing to go on with.
WARM_UP = 5.0
HANGS_AGAIN: Final = 5.0  # seconds between two calls to the endpoint that hangs, whatever the backoff says
RECOVERY: Final = 3.0  # seconds after an outage until nobody suffers from it


def settings(overlap: float) -> dict[str, float]:
    """The product's settings at the scale of short lives; what is not named here stays as it is."""
    return {
        "OVERLAP": overlap,
        "CACHE_SECONDS": overlap / 5,
        "CALLER_GRACE": 3,
        "REQUEST_DEADLINE": DEADLINE,
        "LEASE_MARGIN": MARGIN,
        "WAIT_TIMEOUT": WAIT,
        "BEAT_INTERVAL": 1,
    }


def run(
    *, database: str, broker: str, seconds: float, seed: int, life: float = 90, isolation: str = "",
    pool: str = "prefork", readers: int = 3, ground_only: bool = False,
) -> Verdict:  # fmt: skip
    """The same seed makes the same faults in the same order; what they meet is up to the machine."""
    overlap = life / 3
    with ExitStack() as stack:
        common = settings(overlap)
        site = stack.enter_context(live_site(
            database, redis=True, broker=broker, life=life, overlap=overlap, settings=common, seed=seed, linked=True,
            isolation=isolation,
        ))  # fmt: skip
        keys = _populate(site)
        crew, everybody = Crew(site), [*APPIDS, *LIED]
        crew.add_celery(pool)
        crew.add_readers(everybody, readers)
        stage = Stage(site, crew, APPIDS, random.Random(seed), life, DEADLINE + MARGIN)
        able = {"", *site.links} | ({"sessions"} if "database" in site.links else set())
        clients = None
        if find_spec("gunicorn") is not None:
            url = crew.add_web(everybody)
            clients = Clients(site.fake, url, keys, list(LIED), HANGING, stage.early_ends)
            able.add("web")
        if "sessions" in able:  # a database with sessions has locks of rows, pools and replicas, too
            _add_callers(crew, isolation, common)
            able.add("callers")
        if {"sessions", "web"} <= able:
            env = stack.enter_context(site.replica()) | _with_settings(common)
            url = crew.add_web(everybody, "web-replica", "http-replica", workers=1, env=env)
            stage.behind_replica = Service(url, keys["all"])
            able.add("replica")
        crew.start_all()
        time.sleep(WARM_UP)
        began = time.time()
        faults = [fault for fault in (GROUND_CALAMITIES if ground_only else CALAMITIES) if fault.needs in able]
        try:
            with ExitStack() as meanwhile:
                meanwhile.enter_context(site.database.due_again(HANGING, HANGS_AGAIN))
                if clients:
                    meanwhile.enter_context(clients)
                happened, troubles = _haunt(stage, faults, began + seconds)
                time.sleep(6)  # the last repair
        finally:
            fallen = crew.fallen()
            crew.stop()
        reads = verdict.load(crew.histories()) + stage.reads + (clients.reads if clients else [])
        found = verdict.judge(
            sorted(reads, key=lambda read: read.at), site.fake, stage.early_ends, seed=seed, frozen=crew.pauses,
            troubles=troubles, complaints=clients.complaints if clients else [],
        )  # fmt: skip
        found.fallen = fallen
        found.broken += stage.broken
        found.calls = sum(site.fake.calls_to(appid, endpoint) for appid, endpoint in APPIDS.items())
        found.ideal = stage.provoked + sum(
            ideal_calls(endpoint, life, time.time() - began) for endpoint in APPIDS.values()
        )
        _explain(found, began)
        _tell_apart(reads)
        if clients:
            print(f"{clients.lies} lies, {clients.believed} heard out; {site.fake.hung} calls that WeChat let hang")
        print(f"{sum(happened.values())} faults of {len(happened)} kinds")
        return found


def _populate(site: Site) -> dict[str, str]:
    """Accounts with a first token each, but for the one whose endpoint hangs; and client keys, by who has them."""
    site.fake.hanging = frozenset([HANGING])
    accounts = APPIDS | LIED | {HANGING: "stable"}
    for appid in accounts:
        site.fake.add_account(appid, SECRET)
    site.shell(
        "from wechat_token import get_access_token; from wechat_token.models import Account\n"
        f"for appid, endpoint in {accounts!r}.items():\n"
        f"    Account.objects.create(appid=appid, secret={SECRET!r}, endpoint=endpoint)\n"
        f"    if appid != {HANGING!r}: get_access_token(appid)\n"
    )
    scopes: dict[str, list[str]] = {
        "reader": [word for appid in APPIDS | LIED for word in ("--account", appid)],
        "vain": ["--account", HANGING],
        "all": ["--all-accounts"],
    }
    scopes["liar"] = scopes["honest"] = ["--may-refresh", *(w for appid in LIED for w in ("--account", appid))]
    keys = site.shell(
        "from django.core.management import call_command\n"
        f"for name, scope in {scopes!r}.items(): call_command('wechat_token', 'add-key', name, *scope)\n"
    ).split()
    found = dict(zip(scopes, keys, strict=True))
    site.env["WECHAT_TOKEN_LIVE_KEY"] = found["reader"]
    return found


def _add_callers(crew: Crew, isolation: str, common: dict[str, float]) -> None:
    """Callers in transactions, one process with statements' snapshots and one with transactions'; and requests."""
    listed = ",".join(APPIDS)
    for number, level in enumerate((isolation, "repeatable read"), 1):
        env = {"WECHAT_TOKEN_LIVE_ISOLATION": level} | _with_settings(common)
        crew.add(f"transactions-{number}", "-m", "tests.live.callers", "transactions", listed, "2", reads=True, env=env)
    env = {"WECHAT_TOKEN_LIVE_POOL": "4"} | _with_settings(common)
    crew.add("requests", "-m", "tests.live.callers", "requests", listed, "8", HANGING, reads=True, env=env)


def _with_settings(common: dict[str, float]) -> dict[str, str]:
    """The environment of processes that ask the database every second, so that what is odd about it shows."""
    return {"WECHAT_TOKEN_LIVE_SETTINGS": json.dumps(common | {"CACHE_SECONDS": 0})}


def _haunt(stage: Stage, possible: list[Calamity], until: float) -> tuple[Counter[str], list[Trouble]]:
    """One fault after another, every kind before any comes again; when database or WeChat were away."""
    happened: Counter[str] = Counter()
    troubles: list[Trouble] = []
    waiting: list[Calamity] = []
    began = time.time()
    while time.time() < until:
        waiting = waiting or stage.rng.sample(possible, len(possible))
        calamity = waiting.pop()
        begin, newcomers = time.time(), stage.crew.newcomers()
        print(f"{begin - began:7.1f} s  {calamity.name}", flush=True)
        try:
            calamity.happen(stage)
        except Exception as exc:  # what does not come to its end in time is part of the verdict
            stage.broken.append(f"{calamity.name}: {type(exc).__name__} {str(exc)[:300]}")
        if calamity.is_outage:
            troubles.append(Trouble(begin, time.time() + RECOVERY, newcomers))
        happened[calamity.name] += 1
        stage.linger(0.5, 2)
    return happened, troubles


def _explain(found: Verdict, began: float) -> None:
    """The first of what must not be, with the time at which to look into the list of faults."""
    for what, reads in (("dead token", found.dead), ("hang", found.hangs), ("error", found.errors)):
        for read in reads[:20]:
            print(
                f"{read.asked - began:7.1f} … {read.at - began:.1f} s  {what}  {read.reader} {read.kind} {read.holds} "
                f"{read.appid} {read.error}"
            )
    for read in sorted(found.slow, key=lambda read: -read.took)[:10]:
        print(f"{read.asked - began:7.1f} … {read.at - began:.1f} s  slow  {read.reader} {read.kind} {read.appid}")
    for complaint in found.complaints:
        bad = [what for what in ("refused", "unanswered") if complaint in getattr(found, what)]
        print(
            f"{complaint.begin - began:7.1f} … {complaint.end - began:.1f} s  honest complaint  {complaint.appid} "
            f"{dict(Counter(complaint.answers))}, longest answer {complaint.longest:.1f} s {' '.join(bad)}"
        )


def _tell_apart(reads: Iterable[Read]) -> None:
    """What each sort of caller got, and how fast."""
    sorts: dict[tuple[str, str, str], list[Read]] = {}
    for read in reads:
        sorts.setdefault((read.crew, read.kind, read.holds), []).append(read)
    for (crew, kind, holds), their in sorted(sorts.items()):
        took = summarize([read.took for read in their])
        errors = Counter(read.kind_of_error for read in their if read.error)
        print(
            f"    {crew:15} {kind:8} {holds:8} {took.count:6} reads, p50 {took.p50:.3f} s, p99 {took.p99:.2f} s, "
            f"longest {took.longest:.2f} s  {dict(errors) or ''}"
        )
