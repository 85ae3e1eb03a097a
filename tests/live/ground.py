"""Faults of the ground under the protocol: rows and tables that others hold, probes that say nothing, exits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Final

from wechat_token.sandbox import Fault

from .asking import OWN_LOCK, SLACK, WAIT
from .faults import CALAMITIES, Calamity, Stage, calamity
from .verdict import Read

BEFORE: Final = len(CALAMITIES)

# -- locks -----------------------------------------------------------------------------------------


@calamity("sessions")
def row_held_by_a_console(stage: Stage) -> None:
    """Longer than a caller waits for a lock, shorter than the token in hand lives."""
    appid = stage.any_account()
    stage.site.database.make_due(appid)
    stage.provoked += 1
    with stage.site.database.row_held(appid):
        stage.linger(3, 6)


@calamity("sessions")
def row_held_while_a_call_is_under_way(stage: Stage) -> None:
    """The answer finds the row locked; what WeChat has issued is not lost."""
    with stage.call_under_way() as appid, stage.site.database.row_held(appid):
        stage.linger(3, 5)


@calamity("sessions")
def table_held_as_by_a_migration(stage: Stage) -> None:
    with stage.site.database.table_held():
        stage.linger(2, 4)


# -- probes that say nothing -----------------------------------------------------------------------

UNDECIDED: Final = {
    "busy": Fault("error", errcode=-1),
    "quota of the day": Fault("error", errcode=45009),
    "quota of the minute": Fault("error", errcode=45011),
    "not on the whitelist": Fault("error", errcode=40164),
    "not authorized": Fault("error", errcode=48001),
    "reset": Fault("lost_before"),
    "a page": Fault("html"),
}
STATE: Final = (
    "import json; from wechat_token import get_access_token; from wechat_token.models import Token\n"
    "token = get_access_token({appid!r}); row = Token.objects.get(account__appid={appid!r})\n"
    "print(json.dumps([token, row.rejected_version == row.version, row.foreign_refreshes]))"
)


def _undecided(fault: Fault) -> Callable[[Stage], None]:
    """R29: a live token is complained about, and the probe cannot tell."""

    def happen(stage: Stage) -> None:
        appid, fake = stage.any_account(), stage.site.fake
        forced = fake.calls_to(appid, "stable_forced")
        token, _, foreign = _state(stage, appid)
        fake.inject(fault, times=1000, endpoint="get_api_domain_ip", appid=appid)
        try:
            stage.complain(appid, token, 3)
        finally:
            fake.clear_faults()
        _, rejected, foreign_now = _state(stage, appid)
        where = f"by an undecided probe ({appid}, {fault.kind} {fault.errcode if fault.kind == 'error' else ''})"
        if rejected:
            stage.broken.append(f"marked rejected {where}")
        if foreign_now != foreign:
            stage.broken.append(f"counted as a foreign refresh {where}")
        if fake.calls_to(appid, "stable_forced") != forced:
            stage.broken.append(f"forced {where}")

    return happen


def _state(stage: Stage, appid: str) -> tuple[str, bool, int]:
    token, rejected, foreign = json.loads(stage.site.shell(STATE.format(appid=appid)))
    return token, rejected, foreign


CALAMITIES.extend(Calamity(f"undecided probe: {name}", _undecided(fault)) for name, fault in UNDECIDED.items())


# -- exits -----------------------------------------------------------------------------------------


@calamity("callers")
def callers_leave_during_a_call(stage: Stage) -> None:
    """An orderly exit waits for nobody but an answer that is not yet stored."""
    for name in ("transactions-1", "requests"):
        with stage.call_under_way():
            took = stage.crew.leave(name)
        stage.crew.start(name)
        if took > OWN_LOCK + SLACK:
            stage.broken.append(f"{name} took {took:.1f} s to leave")


@calamity("web")
def web_server_leaves(stage: Stage) -> None:
    """gunicorn lets the requests under way end."""
    took = stage.crew.leave("web")
    stage.crew.start("web")
    if took > WAIT + SLACK:
        stage.broken.append(f"the web server took {took:.1f} s to leave")
    stage.linger(4, 6)


# -- the replica -----------------------------------------------------------------------------------


@calamity("replica")
def account_born_behind_a_replica(stage: Stage) -> None:
    """The replica has not heard of it; the site that reads there serves it all the same."""
    appid = f"wxborn{time.time_ns():x}"
    stage.site.add_account(appid, stage.rng.choice(["stable", "classic"]))
    asked, token, error = time.time(), "", ""
    assert stage.behind_replica is not None
    try:
        token = stage.behind_replica.read(appid).token
    except (OSError, RuntimeError) as exc:
        error = f"{type(exc).__name__}: {exc}"
    stage.reads.append(Read("driver", appid, asked, time.time(), token=token, error=error, limit=WAIT, kind="cold"))
    stage.site.shell(f"from wechat_token.models import Account; Account.objects.filter(appid={appid!r}).delete()")


GROUND_CALAMITIES: Final = tuple(CALAMITIES[BEFORE:])
