"""Tickets: the truth about them, and the invariants of credentials that depend on others (R20 to R23, R28).

A dead ticket is judged by the seconds for which the site would hand it out, read off the rows as they are written, and
by what readers really get.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from wechat_token import clock
from wechat_token.conf import get_settings
from wechat_token.engine import schedule
from wechat_token.models import ACCESS_TOKEN, Token
from wechat_token.platforms import OFFICIAL_ACCOUNT, source_for
from wechat_token.redaction import Secret
from wechat_token.sandbox.tokens import IssuedToken

from .processes import EPOCH

if TYPE_CHECKING:
    from .kernel import Task
    from .processes import Process
    from .rows import Row
    from .world import World

Key = tuple[str, str]  # AppID, kind

TYPES = {"jsapi_ticket": "jsapi", "wx_card_ticket": "wx_card"}
KINDS = {source_for(OFFICIAL_ACCOUNT, kind).endpoint(cast(Token, None), forced=False): kind for kind in TYPES}
DAY = 86_400.0
LEASE = 15.0
VOUCHED = 30.0  # seconds for which a ticket may be handed out after its natural death
LONGEST_WAIT = 0.3
IN_USE = 24 * 3600.0 + 3600.0  # after the latest request, and the hour by which that is noted
LONGEST_SILENCE = 1_300.0
RIVAL_KEEPS = 7_000.0  # seconds for which another system caches the ticket
QUIET_AFTER = 7_200.0  # seconds after which nobody asks for cards any more


@dataclass(slots=True, eq=False)
class Request:
    task: Task
    claimed_at: float


class Tickets:
    def __init__(self, world: World) -> None:
        self.world = world
        self.dead_seconds: dict[str, float] = dict.fromkeys(TYPES, 0.0)
        self.longest_dead = 0.0  # seconds from a ticket's natural death until it was last good for a reader
        self.calls: dict[str, int] = dict.fromkeys(TYPES, 0)
        self.served = 0
        self.dead_served = 0
        self.ended_early = 0  # dead ones handed out that WeChat had ended before their time
        self.issued: dict[str, IssuedToken] = {}  # by text
        self.rows: dict[Key, Row] = {}
        self.stored: dict[Key, str] = {}  # the text in the row
        self._good: dict[Key, tuple[str, float, float]] = {}  # text, since when and until when it is handed out
        self._asked: dict[Key, float] = {}
        self._version_of: dict[str, int] = {}
        self._requests: dict[Key, list[Request]] = defaultdict(list)
        self._holder: dict[int, Task] = {}  # by token id: who has the lease
        self._sent_by: dict[Task, int] = {}
        self._lost: dict[Key, int] = {}  # versions that nobody can read

    # -- who asks ----------------------------------------------------------------------------------

    def kinds(self, appid: str) -> list[str]:
        """What readers of this account want: pages all the time, cards, for one account in three, at first."""
        if not self.world.options.tickets:
            return []
        wants_cards = self.world.kernel.now < QUIET_AFTER and self.world.appids.index(appid) % 3 == 0
        return list(TYPES) if wants_cards else ["jsapi_ticket"]

    def start_rivals(self, share: float) -> None:
        """Another system that fetches the ticket and keeps it for most of its life."""
        for appid in self.world.appids:
            if self.world.rng.random() < share:
                self.world.kernel.after(self.world.rng.uniform(0.0, RIVAL_KEEPS), partial(self._rival, appid))

    def _rival(self, appid: str) -> None:
        fake = self.world.fake
        fake._api.accounts[appid].issue_ticket("jsapi", fake.now())
        self.look(appid)
        self.world.note(appid, "another system fetches the ticket")
        self.world.kernel.after(RIVAL_KEEPS + self.world.rng.uniform(0.0, 5.0), partial(self._rival, appid))

    # -- what WeChat issued ------------------------------------------------------------------------

    def look(self, appid: str) -> None:
        """Take in what a request, of ours or of somebody else's, has brought forth."""
        account = self.world.fake._api.accounts.get(appid)
        for ticket in account._tickets.values() if account is not None else ():
            if ticket.text not in self.issued:
                self.issued[ticket.text] = ticket
                kind = f"{ticket.line.removeprefix('ticket_')}_ticket"
                self.world.note(appid, "WeChat issues %s %d", kind, ticket.serial)
                rng = self.world.rng
                for delay in (rng.uniform(0.0, 3.0), self._natural_end(ticket) - self._now + rng.uniform(-2.0, 35.0)):
                    self.world.kernel.after(delay, partial(self.world.actors.read_ticket_somewhere, appid, kind))

    @property
    def _now(self) -> float:
        return self.world.kernel.now

    def _natural_end(self, ticket: IssuedToken) -> float:
        return ticket.expiry - EPOCH.timestamp()

    def _end(self, ticket: IssuedToken) -> float:
        return ticket.end - EPOCH.timestamp()

    # -- the rows ----------------------------------------------------------------------------------

    def reload(self, rows: list[Row]) -> None:
        self.rows = {(row.appid, row.kind): row for row in rows if row.kind != ACCESS_TOKEN}
        for key in {*self.rows, *self._good}:
            self._settle(key)
        for row in self.rows.values():
            self._check_due(row)

    def row_written(self, before: Row | None, row: Row, fields: dict[str, object]) -> None:
        key = row.appid, row.kind
        self.rows[key] = row
        if fields.get("lease_until") is not None and self.world.kernel.task is not None:
            self._holder[row.id] = self.world.kernel.task
        elif not row.lease_owner:
            self._holder.pop(row.id, None)
        value = fields.get("value")
        if isinstance(value, Secret):
            self.stored[key] = value.reveal()
            self._version_of[value.reveal()] = row.version
        if fields.get("waits_for") and before is not None and row.failures > before.failures:
            self._violated(row.appid, f"the {row.kind} waits, and that counts as its failure")
        self._settle(key)
        self._check_due(row)

    def _settle(self, key: Key) -> None:
        """Count the seconds for which a dead ticket was good for readers, and what is good for them from now on."""
        text, since, until = self._good.pop(key, ("", 0.0, 0.0))
        ticket = self.issued.get(text)
        if ticket is not None:
            self.dead_seconds[key[1]] += max(min(until, self._now) - max(since, self._natural_end(ticket)), 0.0)
            self.longest_dead = max(self.longest_dead, min(until, self._now) - self._natural_end(ticket))
        row, text = self.rows.get(key), self.stored.get(key, "")
        if row is None or not text or not row.is_active or self._lost.get(key) == row.version:
            return
        end = schedule.usable_until(cast(Token, row), get_settings().overlap)
        if end is None:
            return
        until = (end - EPOCH).total_seconds()
        self._good[key] = text, self._now, until
        ticket = self.issued.get(text)
        if ticket is not None and until > self._natural_end(ticket) + VOUCHED + self._slack():
            beyond = until - self._natural_end(ticket)
            self._violated(key[0], f"a {key[1]} counts as good for {beyond:.1f} s beyond its end")

    def settle(self) -> None:
        """At the end of the run."""
        for key in list(self._good):
            self._settle(key)

    def _slack(self) -> float:
        return self.world.widest_skew + 0.1

    def _check_due(self, row: Row) -> None:
        asked_at = self._asked.get((row.appid, row.kind))
        if row.is_active and row.due_at is None and asked_at is not None:
            asleep_for = self._now - (row.asked_at - EPOCH).total_seconds() if row.asked_at is not None else 0.0
            if asleep_for < 24 * 3600.0 - self._slack() and row.edition == row.account_edition:
                self._violated(row.appid, f"the {row.kind} is asleep, and was asked for {asleep_for:.0f} s ago")

    def forget_account(self, appid: str) -> None:
        for key in [key for key in {*self.stored, *self._good} if key[0] == appid]:
            self._settle(key)
            for memory in (self.stored, self._good, self.rows, self._lost):
                memory.pop(key, None)  # type: ignore[attr-defined]

    def values_lost(self, appid: str) -> None:
        for key, row in self.rows.items():
            if key[0] == appid and row.version:
                self._lost[key] = row.version
                self._settle(key)

    # -- requests ----------------------------------------------------------------------------------

    def request_leaves(self, task: Task, appid: str, what: str) -> None:
        kind = KINDS[what]
        key, now = (appid, kind), self._now
        self.calls[kind] += 1
        self.world.note(appid, "%s sends %s", task.process.name, what)
        for other in self._requests[key] if task.claimed_at else ():
            edited = self.world.witness.edited_at[appid] >= other.claimed_at
            if now < other.claimed_at + LEASE - self.world.widest_skew and other.task is not task and not edited:
                self._violated(appid, f"{task.process.name} asks for a {kind} while another one holds its lease")
        self._requests[key] = [r for r in self._requests[key] if now < r.claimed_at + LEASE]
        self._requests[key].append(Request(task, task.claimed_at))
        self._sent_by[task] = self._sent_by.get(task, 0) + 1
        if self._sent_by[task] > 2:
            self._violated(appid, f"a third request for a {kind} in one refresh")
        asked_at = self._asked.get(key, now)
        if now - asked_at > IN_USE + self._slack() and not self.world.calm:
            self._violated(appid, f"asks for a {kind} that nobody has wanted for {now - asked_at:.0f} s")

    def request_ends(self, task: Task, appid: str, what: str) -> None:
        requests = self._requests[appid, KINDS[what]]
        requests[:] = [request for request in requests if request.task is not task]

    def token_request_leaves(self, task: Task, appid: str) -> None:
        """R20: whoever had it started, for its own sake, holds no lease meanwhile."""
        for kind in TYPES:
            row = self.rows.get((appid, kind))
            holder = self._holder.get(row.id) if row is not None and row.lease_owner else None
            if holder is not None and holder is task.starter and not holder.dead:
                self._violated(appid, f"the lease of the {kind} is held while its token is fetched")

    # -- readers -----------------------------------------------------------------------------------

    def asks(self, key: Key) -> None:
        self._asked[key] = self._now

    def usable(self, key: Key, process: Process) -> bool:
        row = self.rows.get(key)
        if row is None or not row.is_active or not process.has_key or self._lost.get(key) == row.version:
            return False
        return schedule.is_usable(cast(Token, row), clock.now(), get_settings().overlap)

    def gets(self, task: Task, key: Key, text: str, since: float, known: int) -> bool:
        """A reader got ``text``. Returns whether WeChat accepts it."""
        self.served += 1
        (appid, kind), now, process = key, self._now, task.process
        ticket, version = self.issued.get(text), self._version_of.get(text, 0)
        if ticket is None or ticket.appid != appid or ticket.line != f"ticket_{TYPES[kind]}":
            self._violated(appid, f"handed out as {kind} what WeChat never issued as such")
            return False
        if version < known and self.world.witness.edited_at[appid] < process.served_tickets[key][1]:
            self._violated(appid, f"{process.name} hands out {kind} version {version} after {known}")
        if version >= process.served_tickets.get(key, (0, 0.0))[0]:
            process.served_tickets[key] = version, now
        at = min(since, self._end(ticket) - 1e-6) if task.paused and since < self._end(ticket) else now
        if at < self._end(ticket):
            return True
        if self._end(ticket) < self._natural_end(ticket):
            self.ended_early += 1
            return False
        self.dead_served += 1
        age = now - self._natural_end(ticket)
        self.world.note(appid, "%s %d is handed out %.1f s after its end", kind, ticket.serial, age)
        if age > VOUCHED + self._slack():
            self._violated(appid, f"handed out a {kind} that had been dead for {age:.1f} s")
        return False

    def waited(self, task: Task, key: Key) -> None:
        if task.blocked > LONGEST_WAIT and not task.paused and not self.world.disturbed():
            self._violated(key[0], f"a reader waited {task.blocked:.1f} s although there was a usable {key[1]}")

    def unavailable(self, task: Task, key: Key, why: Exception) -> None:
        """An error is right where the token cannot be had either, or something went wrong a while ago."""
        world, (appid, kind) = self.world, key
        world.witness.figures.unavailable += 1
        rows = [world.witness.by_appid.get(appid), self.rows.get(key)]
        excused = (
            any(row is not None and (not row.is_active or row.error_class not in ("", "transient")) for row in rows)
            or rows[0] is None
            or not task.process.has_key
            or task.paused
            or self._now - world.witness.born_at.get(appid, 0.0) < 30.0
            or self._now - world.last_trouble(appid) < LONGEST_SILENCE
        )
        if not excused:
            self._violated(appid, f"no {kind} although nothing was wrong for long: {why}")

    def _violated(self, appid: str, what: str) -> None:
        self.world.witness.violated(appid, what)
