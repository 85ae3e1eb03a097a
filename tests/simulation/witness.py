"""The invariants. Told of every step by the I/O layers, it knows what WeChat knows and what the tables say."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from wechat_token import clock
from wechat_token.conf import get_settings
from wechat_token.engine import schedule
from wechat_token.exceptions import AnswerError
from wechat_token.models import ACCESS_TOKEN, Token
from wechat_token.platforms import transport
from wechat_token.platforms.errcodes import DEAD_TOKEN_CODES
from wechat_token.redaction import Secret

from .figures import Figures
from .processes import EPOCH
from .rows import Row, read_row, read_rows

if TYPE_CHECKING:
    from .kernel import Task
    from .processes import Process
    from .upstream import Fact
    from .world import World

LEASE = 15.0  # REQUEST_DEADLINE + LEASE_MARGIN, said here again: the promise is checked, not the setting
REPAIR_WITHIN = 30.0
DAY = 86_400.0
OVERLAP = 300.0
CLASSIC_A_DAY = 1900
FORCED_A_DAY, FORCED_GAP = 20, 30.0
ACCEPTED_A_DAY = 10 + 72 + 1  # probes that find a complaint false, for each client that complains
ACCEPTED_GAP, UNDECIDED_GAP = 2.0, 5.0  # seconds for which a verdict is believed
NEWS = 1.5  # seconds until every process knows of a renewal or a rejection: MEMORY_SECONDS and a lookup
NEWS_AT_LAST = 65.0  # … where the cache failed or a process stood still: CACHE_SECONDS and a lookup
LONGEST_WAIT = 0.3  # seconds a reader may wait for others although the table has a usable token
WAIT_TIMEOUT = 15.0
SLACK = 3.0  # seconds for what a caller does itself before and after it waits
LONGEST_SILENCE = 1_300.0  # the slow probe of 900 s with its jitter, and some
DISPLACING = ("classic", "stable_forced")
LONGEST_DUE = dt.timedelta(hours=27, minutes=10)


@dataclass(slots=True, eq=False)
class Flight:
    """A token request under way, as the process that sent it sees it."""

    task: Task
    appid: str
    what: str
    sent: float
    claimed_at: float
    revision: int
    over: bool = False

    @property
    def is_claimed(self) -> bool:
        """A request that can displace nothing may leave unclaimed, where the row is locked."""
        return self.claimed_at > 0.0 or self.what != "stable"


class Witness:
    def __init__(self, world: World) -> None:
        self.world = world
        self.figures = Figures()
        self.rows: dict[int, Row] = {}
        self.by_appid: dict[str, Row] = {}
        self.stored: dict[str, str] = {}  # AppID → the token text in the row
        self.edited_at: dict[str, float] = defaultdict(lambda: -1e9)
        self.born_at: dict[str, float] = {}
        self._flights: dict[str, list[Flight]] = defaultdict(list)
        self._lost_at: dict[str, float] = {}
        self._calls: dict[tuple[str, str, int], int] = defaultdict(int)
        self._forced_at: dict[str, float] = {}
        self._dead_until: dict[str, float] = {}
        self._highest: dict[str, int] = defaultdict(int)  # by AppID: the greatest version a row has ever had
        self._version_of: dict[str, int] = {}  # by token text
        self._lost_values: dict[str, int] = {}  # by AppID: the version that nobody can read
        self._meddled_at: dict[str, float] = defaultdict(lambda: -1e9)
        self._clients: dict[tuple[str, int], set[str]] = defaultdict(set)  # who complained that day
        self._no_probe_before: dict[str, tuple[float, str]] = {}
        self._span: dict[str, tuple[float, float, int]] = {}  # first and latest token request, and how many

    # -- the rows ----------------------------------------------------------------------------------

    def reload(self) -> None:
        """After a change that did not come through ``rows.write``: people, DDL, deletions."""
        self.rows = {row.id: row for row in read_rows()}
        self.by_appid = {row.appid: row for row in self.rows.values() if row.kind == ACCESS_TOKEN}
        self.world.tickets.reload(list(self.rows.values()))
        self.world.beats_reconsider()

    def row_written(self, token_id: int, fields: dict[str, object]) -> None:
        world, row = self.world, read_row(token_id)
        if row is None:
            return
        before = self.rows.get(token_id)
        self.rows[token_id] = row
        now = world.kernel.now
        if "lease_until" in fields and fields["lease_until"] is not None and world.kernel.task is not None:
            world.kernel.task.claimed_at = now
        if before is not None and (row.version < before.version or row.revision <= before.revision):
            self.violated(row.appid, "the version or revision of a row went back")
        if row.kind != ACCESS_TOKEN:
            world.note(row.appid, "row of the %s: %s", row.kind, Told(fields))
            world.tickets.row_written(before, row, fields)
            world.beats_hear(row)
            return
        self.by_appid[row.appid] = row
        value = fields.get("value")
        if isinstance(value, Secret):
            if value.reveal() != self.stored.get(row.appid):  # else WeChat had it for somebody who could not read it
                self._known_dead(row.appid)
            self._stored(row, value.reveal())
        elif fields.get("rejected_version"):
            self._check_refused(row.appid, fields)
            self._known_dead(row.appid)
        world.note(row.appid, "row: %s", Told(fields))
        if row.is_active and (row.due_at is None or row.due_at > world.time() + LONGEST_DUE):
            self.violated(row.appid, f"an active row that will never be due: {row.due_at}")
        self._check_repair_is_due(row)
        world.beats_hear(row)

    def _stored(self, row: Row, text: str) -> None:
        self.stored[row.appid] = text
        # A host whose clock is behind may count from an earlier millisecond, where a backup made it forget the rest.
        if row.version + 1000 * self.world.widest_skew <= self._highest[row.appid]:
            self.violated(row.appid, f"version {row.version} after {self._highest[row.appid]}")
        self._highest[row.appid] = max(self._highest[row.appid], row.version)
        self._version_of[text] = row.version

    def _check_refused(self, appid: str, fields: dict[str, object]) -> None:
        """WeChat was seen to refuse the token (R29), and whose doing that was (R14)."""
        fact = self.world.truth.facts.get(self.stored.get(appid, ""))
        if fact is None:
            return
        if self.world.kernel.now < fact.end:
            self.violated(appid, f"{fact} is marked as refused, and WeChat accepts it")
        elif fact.cause == "own" and fact.restored_at is None and "foreign_refreshes" in fields:
            self.violated(appid, f"{fact} was displaced by ourselves, and another system is blamed")

    def meddled(self, appid: str) -> None:
        """Somebody wrote the row past the package."""
        self._meddled_at[appid] = self.world.kernel.now
        self.reload()

    def value_lost(self, appid: str) -> None:
        self.meddled(appid)
        if appid in self.by_appid:
            self._lost_values[appid] = self.by_appid[appid].version
        self.world.tickets.values_lost(appid)

    def restored(self, appid: str, text: str) -> None:
        """The row is what it was when ``text`` was its token."""
        self.meddled(appid)
        self.stored[appid] = text
        self._lost_values.pop(appid, None)
        fact = self.world.truth.facts.get(text)
        if fact is not None:
            fact.restored_at, fact.known_dead_at = self.world.kernel.now, None

    def _known_dead(self, appid: str) -> None:
        fact = self.world.truth.facts.get(self.stored.get(appid, ""))
        if fact is not None and fact.known_dead_at is None:
            fact.known_dead_at = self.world.kernel.now

    def _check_repair_is_due(self, row: Row) -> None:
        """After any issue of ours that displaces: the newest token is stored, or a repair is due within 30 s."""
        world = self.world
        line = "classic" if row.endpoint == "classic" else "stable"
        newest = world.truth.newest.get((row.appid, line))
        if (
            newest is None
            or not row.is_active
            or newest.request not in DISPLACING
            or newest.token.text == self.stored.get(row.appid)
            or row.error_class not in ("", "transient")
        ):
            return
        limit = world.time() + dt.timedelta(seconds=REPAIR_WITHIN + world.widest_skew)
        if row.due_at is None or row.due_at > limit:
            self.violated(row.appid, f"{newest} is not stored, and no repair is due before {row.due_at}")

    # -- requests ----------------------------------------------------------------------------------

    def request_leaves(self, task: Task, appid: str, what: str) -> Flight:
        world, now = self.world, self.world.kernel.now
        row = self.by_appid.get(appid)
        flight = Flight(task, appid, what, now, task.claimed_at, row.revision if row else 0)
        world.note(appid, "%s sends %s", task.process.name, what)
        self._count(appid, what, now)
        if what == "probe":
            self._check_probe(appid, now)
            return flight
        world.tickets.token_request_leaves(task, appid)
        first, _latest, count = self._span.get(appid, (now, now, 0))
        self._span[appid] = (first, now, count + 1)
        if what == "stable_forced":
            self._check_forced(appid, now)
        for other in self._flights[appid] if flight.is_claimed else ():
            lease_ends = other.claimed_at + LEASE - world.widest_skew
            if other.is_claimed and now < lease_ends and self.edited_at[appid] < other.claimed_at:
                self.violated(appid, f"{task.process.name} sends while {other.task.process.name} holds the lease")
        self._flights[appid] = [f for f in self._flights[appid] if now < f.claimed_at + LEASE]
        self._flights[appid].append(flight)
        if appid in self._lost_at:
            lost_at = self._lost_at.pop(appid)
            excused = world.quiet_since(appid) > lost_at - 1.0
            self.figures.repaired(now - lost_at, excused)
            if not excused and now - lost_at > REPAIR_WITHIN + 1.0 + world.widest_skew:
                self.violated(appid, f"repaired only {now - lost_at:.1f} s after the answer was lost")
        return flight

    def request_processed(self, appid: str) -> None:
        row = self.by_appid.get(appid)
        if row is not None and self.edited_at[appid] < self.world.kernel.now - LEASE:
            self._check_repair_is_due(row)

    def request_ends(self, flight: Flight, *, lost: bool, sent: bool = True) -> None:
        flight.over = True
        if not sent:
            self._calls[flight.appid, flight.what, int(flight.sent // DAY)] -= 1
            if flight.what == "stable_forced":
                self._forced_at[flight.appid] = -1e9
        if flight in self._flights[flight.appid]:
            self._flights[flight.appid].remove(flight)
        if lost and flight.what != "stable":
            self._lost(flight)

    def process_died(self, process: Process) -> None:
        for flights in self._flights.values():
            for flight in flights:
                if flight.task.process is process and not flight.over and flight.what != "stable":
                    self._lost(flight)

    def _lost(self, flight: Flight) -> None:
        now = self.world.kernel.now
        self._lost_at.setdefault(flight.appid, now)
        self.world.note(flight.appid, "answer to %s of %s is lost", flight.what, flight.task.process.name)
        self.world.kernel.after(60.0, lambda: self._check_trace(flight))

    def _check_trace(self, flight: Flight) -> None:
        """Every failure ends in a visible state: the row was written since, or falls due."""
        row, world = self.by_appid.get(flight.appid), self.world
        if row is None or not row.is_active or row.revision > flight.revision:
            return
        if world.quiet_since(flight.appid) < world.kernel.now - 70.0:
            self.violated(flight.appid, "a lost request left no trace in its row")

    def _count(self, appid: str, what: str, now: float) -> None:
        self.figures.calls[what] += 1
        day = int(now // DAY)  # the simulation begins at midnight in Beijing
        self._calls[appid, what, day] += 1
        limits = {"classic": CLASSIC_A_DAY, "stable_forced": FORCED_A_DAY, "accepted": self._accepted_a_day(appid)}
        limit = limits.get(what)
        # Hosts whose clocks differ do not agree on when a day begins.
        slack = 0 if not self.world.widest_skew else 2
        if self._meddled_at[appid] >= day * DAY:
            return  # what was counted may have been lost
        if limit is not None and self._calls[appid, what, day] > limit + slack:
            self.violated(appid, f"more than {limit} {what} calls in a day")

    def _accepted_a_day(self, appid: str) -> int:
        clients = self._clients[appid, int(self.world.kernel.now // DAY)]
        # A verdict that could not be written down is nobody's charge.
        return ACCEPTED_A_DAY * max(len(clients), 1) + int(5 * self.world.options.faults)

    def probe_answered(self, task: Task, appid: str, answer: transport.Answer | AnswerError) -> None:
        now, body = self.world.kernel.now, {} if isinstance(answer, AnswerError) else answer.body
        if task.paused:
            return  # it may have lost its lease, and nobody learns of the verdict
        if "ip_list" in body:
            self._count(appid, "accepted", now)
            self._no_probe_before[appid] = now + ACCEPTED_GAP, "accepted"
        elif body.get("errcode") not in DEAD_TOKEN_CODES:
            self._no_probe_before[appid] = now + UNDECIDED_GAP, "undecided"

    def _check_probe(self, appid: str, now: float) -> None:
        before, verdict = self._no_probe_before.pop(appid, (0.0, ""))
        meddled_at = max(self._meddled_at[appid], self.edited_at[appid])
        if now < before - self.world.widest_skew - 0.1 and meddled_at < before - UNDECIDED_GAP:
            self.violated(appid, f"a probe, {before - now:.1f} s too soon after one that was {verdict}")

    def _check_forced(self, appid: str, now: float) -> None:
        fact = self.world.truth.facts.get(self.stored.get(appid, ""))
        if fact is not None and now < fact.end:
            self.violated(appid, f"a forced refresh, although WeChat accepts {fact}")
        last = self._forced_at.get(appid)
        if last is not None and now - last < FORCED_GAP - self.world.widest_skew - 0.5:
            self.violated(appid, f"forced refreshes {now - last:.1f} s apart")
        self._forced_at[appid] = now

    def pace(self) -> float:
        """Token requests per account and day, from each account's first to its latest: free of edges."""
        spans = self._span.values()
        seconds = sum(latest - first for first, latest, _ in spans)
        return 86_400.0 * sum(count - 1 for *_, count in spans) / seconds if seconds else 0.0

    def forget_account(self, appid: str) -> None:
        """Its rows are gone, and what was counted in them."""
        self.world.tickets.forget_account(appid)
        self._lost_values.pop(appid, None)
        self.stored.pop(appid, None)
        self._lost_at.pop(appid, None)
        self._forced_at.pop(appid, None)
        for key in [key for key in self._calls if key[0] == appid]:
            del self._calls[key]

    # -- readers -----------------------------------------------------------------------------------

    def usable(self, appid: str, process: Process) -> bool:
        """Whether the table has a token that a reader in this process should count as good now."""
        row = self.by_appid.get(appid)
        if row is None or not row.is_active or not process.has_key or self._lost_values.get(appid) == row.version:
            return False
        return schedule.is_usable(cast(Token, row), clock.now(), get_settings().overlap)

    def newest_served(self, process: Process, appid: str) -> tuple[int, float]:
        return process.served.get(appid, (0, -1e9))

    def goes_on(self, process: Process, appid: str, text: str, known: tuple[int, float]) -> None:
        """What a process hands out never goes back (R32), unless somebody edited the account since."""
        version, now = self._version_of.get(text, 0), self.world.kernel.now
        newest, at = known
        if version and version < newest and self.edited_at[appid] < at:
            self.violated(appid, f"{process.name} hands out version {version} after {newest}")
        if version >= self.newest_served(process, appid)[0]:
            process.served[appid] = version, now

    def answered(self, task: Task, appid: str, since: float) -> None:
        """A call of a reader or complainer has returned (R30)."""
        seconds = self.world.kernel.now - since
        if seconds > WAIT_TIMEOUT + SLACK and not task.paused and not task.dead:
            self.violated(appid, f"a caller waited for {seconds:.1f} s")

    def complains(self, appid: str, client: str) -> None:
        self.figures.complaints += 1
        self._clients[appid, int(self.world.kernel.now // DAY)].add(client)

    def refused_unjustly(self, appid: str, why: Exception) -> None:
        """A client that only ever complains about dead tokens was told that it complains too much (R33)."""
        row = self.by_appid.get(appid)
        if row is not None and row.error_class != "quota" and self._meddled_at[appid] < self.world.kernel.now - 3600.0:
            self.violated(appid, f"a true complaint was refused: {why}")

    def served(self, task: Task, appid: str, text: str, since: float) -> bool:
        """A reader got ``text``. Returns whether WeChat accepts it."""
        world, now = self.world, self.world.kernel.now
        self.figures.served += 1
        fact = world.truth.facts.get(text)
        if fact is None or fact.appid != appid:
            self.violated(appid, "served what WeChat never issued to this account")
            return False
        # A reader that was frozen on its way out is judged by what was true when it asked.
        at = min(since, fact.end - 1e-6) if task.paused and since < fact.end else now
        if at < fact.end:
            return True
        self._served_dead(appid, fact, now)
        return False

    def _served_dead(self, appid: str, fact: Fact, now: float) -> None:
        world, age = self.world, now - fact.end
        world.note(appid, "%s is served %.1f s after its end (%s)", fact, age, fact.cause)
        known = now - fact.known_dead_at if fact.known_dead_at is not None else None
        if fact.restored_at is not None and (known is None or known <= NEWS_AT_LAST):
            self.figures.restored += 1
            return
        if fact.cause == "foreign":
            self.figures.behind_our_back += 1
            if known is None or known <= NEWS:
                return
            self.figures.slow_news += 1
            if world.blind_since() is not None or (known <= NEWS_AT_LAST and self._news_held_up(now - known)):
                return
        elif age <= world.widest_skew or (known is not None and known <= NEWS):
            self.figures.within_skew += 1
            return
        elif fact.cause == "own" and (blind := world.blind_since()) is not None and now - blind > OVERLAP - 90:
            self.figures.blind += 1  # neither cache nor database could tell this process of the renewal
            return
        self.figures.dead += 1
        begin = max(fact.end, self._dead_until.get(appid, 0.0))
        self.figures.dead_seconds += max(now - begin, 0.0)
        self._dead_until[appid] = now
        self.violated(appid, f"served {fact}, dead for {age:.1f} s ({fact.cause})")

    def _news_held_up(self, since: float) -> bool:
        """Whether something kept a process from telling the others at ``since``, or one of them from hearing."""
        world = self.world
        return max(world.quiet_since(), world.cache_trouble_at) > since - NEWS_AT_LAST

    def waited(self, task: Task, appid: str) -> None:
        """A read that began and ended with a usable token in the table."""
        if task.blocked > LONGEST_WAIT and not task.paused and not self.world.disturbed():
            self.figures.waits += 1
            self.violated(appid, f"a reader waited {task.blocked:.1f} s although there was a usable token")

    def unavailable(self, task: Task, appid: str, why: Exception) -> None:
        world, now = self.world, self.world.kernel.now
        self.figures.unavailable += 1
        row = self.by_appid.get(appid)
        excused = (
            row is None
            or not row.is_active
            or not task.process.has_key
            or task.paused  # its other threads stood still with it
            or row.error_class not in ("", "transient")
            or now - self.born_at.get(appid, 0.0) < 30.0
            or now - world.last_trouble(appid) < LONGEST_SILENCE
        )
        if not excused:
            self.violated(appid, f"no token although nothing was wrong for long: {why}")

    def violated(self, appid: str, what: str) -> None:
        self.figures.violations += 1
        self.world.violation(appid, what)


class Told:
    """Written fields as the history shows them: no values, short times. Formatted only when somebody reads it."""

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, object]) -> None:
        self._fields = {k: v for k, v in fields.items() if k not in ("usage", "error", "rid", "egress_ip", "value")}

    def __str__(self) -> str:
        return ", ".join(f"{name}={_short(value)}" for name, value in self._fields.items())


def _short(value: object) -> str:
    if isinstance(value, dt.datetime):
        return f"{(value - EPOCH).total_seconds():.1f}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)[:12]
