"""The way to WeChat: latency, lost and late messages, timeouts. What arrives is answered by the sandbox's
:class:`FakeWeChat` and read by the real parsers of ``transport`` and ``platforms.official_account``.
"""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from wechat_token.conf import get_settings
from wechat_token.exceptions import AnswerError, TransportError
from wechat_token.platforms import transport
from wechat_token.redaction import Secret
from wechat_token.sandbox import Fault, Reply

if TYPE_CHECKING:
    from .kernel import Task
    from .witness import Flight
    from .world import World

# Seconds after which no request is still on its way: what schedule.SETTLE allows, by the clock of any host.
LONGEST_WAY = 29.0
SPOILED = (
    "empty", "html", "truncated", "garbage", "life_nan", "life_negative", "life_missing", "life_huge",
    "value_null", "value_empty", "value_number", "value_control",
)  # fmt: skip
UNDECIDED = (*(Fault("error", errcode=code) for code in (-1, 40164, 45009, 45011, 48001)), Fault("html"))
NO_WAY = 1e9


@dataclass(slots=True)
class Way:
    """What becomes of one request. Seconds from its sending; ``NO_WAY``: never."""

    arrives: float
    answered: float
    spoil: Fault | None = None
    refused: bool = False
    reset: bool = False  # the connection breaks at ``answered`` instead of bringing the answer
    trouble: str = ""


@dataclass(slots=True)
class Outage:
    """WeChat, or the way there, is out of order for everybody."""

    until: float
    style: str


class Network:
    def __init__(self, world: World) -> None:
        self.world = world
        self.outage: Outage | None = None
        self.hung_until: dict[str, float] = {}  # by AppID

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | Secret] | None = None,
        json: Mapping[str, str | bool | Secret] | None = None,
        **options: object,
    ) -> transport.Answer:
        """Stands in for :func:`wechat_token.platforms.transport.call`."""
        world, kernel = self.world, self.world.kernel
        task = kernel.alive()
        query, body = _revealed(params), b""
        if json is not None:
            body = jsonlib.dumps(_revealed(json)).encode()
        limit, begun = get_settings().request_deadline, kernel.now
        world.step("http", 0.0)
        if kernel.now - begun >= limit:  # the transport looks at its deadline just before the first byte
            raise TransportError("simulated: the deadline has passed (nothing was sent)", may_have_issued=False)
        for thread in (task, task.starter):
            if thread is not None:
                thread.fetched += 1
        what = _name(path, query, json)
        appid = world.truth.appid_of(query, body)
        way = self._way(appid, what)
        if what.startswith("ticket"):
            world.tickets.request_leaves(task, appid, what)
            flight = None
        else:
            flight = world.witness.request_leaves(task, appid, what)
        if way.trouble:
            world.trouble(appid, f"{what}: {way.trouble}")
        if way.refused:
            kernel.sleep(way.answered)
            self._ends(flight, task, appid, what, lost=False, sent=False)
            raise TransportError("simulated: connection refused (nothing was sent)", may_have_issued=False)
        box: list[Reply] = []
        if way.arrives < NO_WAY:
            kernel.after(way.arrives, lambda: box.append(self._arrive(method, path, query, body, appid, what, way)))
        kernel.wait(min(way.answered, begun + limit - kernel.now))
        world.step("http answer", 0.0)
        if way.reset or way.answered > limit or not box:
            self._ends(flight, task, appid, what, lost=way.arrives < NO_WAY)
            raise TransportError("simulated: no complete answer (the request had been sent)", may_have_issued=True)
        answer = _read(box[0])
        if what == "probe":
            world.witness.probe_answered(task, appid, answer)
        self._ends(flight, task, appid, what, lost=isinstance(answer, AnswerError))
        if isinstance(answer, AnswerError):
            raise answer
        return answer

    def _ends(
        self, flight: Flight | None, task: Task, appid: str, what: str, *, lost: bool, sent: bool = True
    ) -> None:  # fmt: skip
        if flight is None:
            self.world.tickets.request_ends(task, appid, what)
        else:
            self.world.witness.request_ends(flight, lost=lost and what != "probe", sent=sent)

    def _arrive(
        self, method: str, path: str, query: dict[str, str], body: bytes, appid: str, what: str, way: Way
    ) -> Reply:
        fake, world = self.world.fake, self.world
        if way.spoil is not None:
            fake.inject(way.spoil)
        reply = fake.handle(method, path, query, body)
        if what.startswith("ticket"):
            world.tickets.look(appid)
        elif what != "probe":
            world.truth.look(appid, what)
            world.witness.request_processed(appid)
        return reply

    def _way(self, appid: str, what: str) -> Way:
        """Where this request goes, by the outage of the moment and by luck."""
        world, rng, swarm = self.world, self.world.rng, self.world.swarm
        there = 0.02 + rng.expovariate(1 / 0.03)
        back = there + 0.02 + rng.expovariate(1 / 0.05)
        if self.outage is not None:
            if world.kernel.now < self.outage.until:
                return self._in_outage(self.outage.style, there, back)
            self.outage = None
        if world.kernel.now < self.hung_until.get(appid, 0.0):
            return Way(there if rng.random() < 0.5 else NO_WAY, NO_WAY, trouble="hangs")
        if what.startswith("ticket") and swarm.blamed and rng.random() < swarm.blamed:
            return Way(there, back, Fault("error", errcode=40001), trouble="blames the token")
        if what == "probe" and swarm.undecided and rng.random() < swarm.undecided:
            return Way(there, back, rng.choice(UNDECIDED), reset=rng.random() < 0.2, trouble="does not tell")
        luck = rng.random()
        for name in ("refused", "lost_before", "lost_after", "late", "stalled", "spoiled", "failing"):
            luck -= getattr(swarm, name)
            if luck < 0:
                return self._in_outage(name, there, back)
        return Way(there, back)

    def _in_outage(self, style: str, there: float, back: float) -> Way:
        rng, limit = self.world.rng, get_settings().request_deadline
        match style:
            case "refused":
                return Way(NO_WAY, there, refused=True, trouble=style)
            case "lost_before":
                return Way(NO_WAY, back if rng.random() < 0.5 else NO_WAY, reset=True, trouble=style)
            case "lost_after":
                return Way(there, back if rng.random() < 0.5 else NO_WAY, reset=True, trouble=style)
            case "late":
                return Way(rng.uniform(limit, LONGEST_WAY - self.world.widest_skew), NO_WAY, trouble=style)
            case "stalled":
                return Way(rng.uniform(0, limit), NO_WAY, trouble=style)
            case "spoiled":
                return Way(there, back, Fault(rng.choice(SPOILED)), trouble=style)
            case _:
                fault = rng.choice(
                    [
                        Fault("error", errcode=-1), Fault("error", errcode=-1), Fault("error", errcode=45011),
                        Fault("status", status=502), Fault("status", status=503, obeyed=True), Fault("redirect"),
                        Fault("status", status=404),
                    ]
                )  # fmt: skip
                return Way(there, back, fault, trouble=f"{style} {fault.kind}")


def _revealed(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {k: v.reveal() if isinstance(v, Secret) else v for k, v in (values or {}).items()}


def _name(path: str, query: Mapping[str, str], json: Mapping[str, Any] | None) -> str:
    if path == "/cgi-bin/ticket/getticket":
        return f"ticket_{query['type']}"
    if path == "/cgi-bin/token":
        return "classic"
    if path == "/cgi-bin/stable_token":
        return "stable_forced" if json is not None and json.get("force_refresh") else "stable"
    return "probe"


def _read(reply: Reply) -> transport.Answer | AnswerError:
    response: Any = SimpleNamespace(status_code=reply.status, headers=reply.headers)
    body = transport._judge(response, reply.body, get_settings().max_answer_bytes, any_status=False)
    return body if isinstance(body, AnswerError) else transport.Answer(body)


OUTAGES = ("refused", "lost_before", "lost_after", "stalled", "spoiled", "failing")
