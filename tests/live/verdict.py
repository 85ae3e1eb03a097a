"""Judging a run: the history of every read against what the fake WeChat knew at that time."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wechat_token.sandbox import FakeWeChat
from wechat_token.sandbox.tokens import Mint

from .asking import SLACK, WAIT

DISPLACING: Final = ("classic", "stable_forced")
REPAIR_WITHIN: Final = 30.0

STARVED: Final = 2.0  # seconds; 99 of 100 reads over HTTP take less, whatever another account's endpoint does

SERVER_OF: Final = {
    "http": "web", "http-replica": "web-replica", "driver": "web-replica", "liar": "web", "honest": "web",
    "vain": "web",
}  # fmt: skip

# What a client of the HTTP service sees while its server is killed: no answer, so no promise.
NO_ANSWER: Final = (
    "ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected", "BrokenPipeError", "IncompleteRead",
)  # fmt: skip
# A caller whose own transaction holds what the refresh needs (the row, or the account a new row refers to) is told so.
OWN_LOCK: Final = ("token", "bare")


@dataclass(frozen=True, slots=True)
class Read:
    """One question of one reader. Times by the wall clock, which fake and readers share.

    ``limit``: seconds it may take. ``kind``: '' or ``good`` where there is a good token, ``cold`` where there is none,
    ``complaint`` where there is a dead one that is complained about, ``hanging`` where WeChat never answers.
    ``holds``: what the caller's own transaction does or has done.
    """

    reader: str
    appid: str
    asked: float
    at: float
    token: str = ""
    error: str = ""
    limit: float = WAIT
    kind: str = ""
    holds: str = ""

    @property
    def kind_of_error(self) -> str:
        return self.error.partition(":")[0]

    @property
    def crew(self) -> str:
        return self.reader.partition(".")[0]

    @property
    def took(self) -> float:
        return self.at - self.asked


@dataclass(frozen=True, slots=True)
class EarlyEnd:
    """WeChat ended an account's token: from when on, and until when everybody had heard of the first complaint."""

    appid: str
    begin: float
    end: float

    def covers(self, read: Read) -> bool:
        return self.appid == read.appid and self.begin <= read.at and read.asked <= self.end


@dataclass(frozen=True, slots=True)
class Pause:
    """From when to when a process stood still; while the web server does, so do its clients."""

    process: str
    begin: float
    end: float

    def covers(self, read: Read) -> bool:
        concerned = self.process in (read.crew, SERVER_OF.get(read.crew))
        return concerned and self.begin <= read.at and read.asked <= self.end


@dataclass(frozen=True, slots=True)
class Trouble:
    """While the database or WeChat is away, who needs a fetch gets none: from when on, and until when.

    ``newcomers``: processes that had been started shortly before and may have had nothing yet to go on with.
    """

    begin: float
    end: float
    newcomers: frozenset[str] = frozenset()

    def meets(self, begin: float, end: float) -> bool:
        return self.begin <= end and begin <= self.end


@dataclass(frozen=True, slots=True)
class Complaint:
    """A true one, from when the token was dead until a good one was at hand; all that was said meanwhile."""

    appid: str
    begin: float
    end: float
    longest: float  # seconds one answer took
    answers: Sequence[str]
    is_over: bool = True  # not cut off by the end of the run

    @property
    def refusals(self) -> list[str]:
        return [answer for answer in self.answers if answer[:3] in ("401", "403", "404", "429", "500")]


@dataclass(slots=True)
class Verdict:
    reads: int = 0
    dead: list[Read] = field(default_factory=list)
    behind_our_back: int = 0  # dead, but WeChat had ended them early and nobody had complained yet
    errors: list[Read] = field(default_factory=list)
    hangs: list[Read] = field(default_factory=list)  # longer than the caller's limit and the slack
    no_answer: int = 0
    slow: list[Read] = field(default_factory=list)  # although there was a good token
    told: Counter[str] = field(default_factory=Counter)  # errors that are right, by what they are about
    complaints: list[Complaint] = field(default_factory=list)
    refused: list[Complaint] = field(default_factory=list)
    unanswered: list[Complaint] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # further promises, in words
    calls: int = 0
    ideal: float = 0.0
    longest_gap: float = 0.0  # without a token served for some account, while all readers were awake
    longest_read: float = 0.0  # by a reader that was not frozen meanwhile
    longest_repair: float = 0.0
    fallen: list[str] = field(default_factory=list)  # processes that ended by themselves

    @property
    def is_kept(self) -> bool:
        broken = self.dead or self.errors or self.hangs or self.refused or self.unanswered or self.broken or self.fallen
        return bool(self.reads) and not broken and self.longest_repair <= REPAIR_WITHIN

    def __str__(self) -> str:
        kinds = Counter(read.kind_of_error for read in self.errors)
        errors = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "0"
        apart = ""
        if self.behind_our_back:
            apart += f", {self.behind_our_back} served after WeChat ended them early and before the first complaint"
        if self.fallen:
            apart += f", ended by themselves: {', '.join(self.fallen)}"
        if self.no_answer:
            apart += f", {self.no_answer} HTTP reads met a killed server"
        for what, count in self.told.items():
            apart += f", {count} told {what}"
        if self.complaints:
            slowest = max(complaint.end - complaint.begin for complaint in self.complaints)
            apart += (
                f"; {len(self.complaints)} honest complaints, {len(self.refused)} refused, {len(self.unanswered)} "
                f"unanswered, slowest {slowest:.1f} s"
            )
        for what in self.broken:
            apart += f"; {what}"
        return (
            f"{self.reads} reads, {len(self.dead)} dead tokens served, {len(self.hangs)} hangs, "
            f"errors: {errors}{apart}; {self.calls} upstream calls, ideal {self.ideal:.1f}; "
            f"longest without a token {self.longest_gap:.2f} s, longest read {self.longest_read:.2f} s, "
            f"longest repair {self.longest_repair:.1f} s; promises {'kept' if self.is_kept else 'BROKEN'}"
        )


def load(files: Iterable[Path]) -> list[Read]:
    """The reads in these files, in order of their answers. A last line cut off by SIGKILL is dropped."""
    reads = []
    for file in files:
        for line in file.read_text().splitlines(keepends=True):
            if line.endswith("}\n") and line.startswith("{"):
                reads.append(Read(file.stem, **json.loads(line)))
    return sorted(reads, key=lambda read: read.at)


def judge(
    reads: list[Read], fake: FakeWeChat, early_ends: Iterable[EarlyEnd], *, seed: int | str,
    frozen: Iterable[Pause] = (), troubles: Iterable[Trouble] = (), complaints: Iterable[Complaint] = (),
) -> Verdict:  # fmt: skip
    """``reads`` in order of their answers. ``seed``: the fake's."""
    verdict = Verdict(reads=len(reads))
    for read in reads:
        if _is_hang(read, frozen, troubles):
            verdict.hangs.append(read)
        elif read.token:
            # A token must have worked when it was handed out: at some moment between question and answer.
            if fake.is_valid(read.token, read.asked) or fake.is_valid(read.token, read.at):
                continue
            if any(end.covers(read) for end in early_ends):
                verdict.behind_our_back += 1
            elif read.kind == "complaint" and any(trouble.meets(read.asked, read.at) for trouble in troubles):
                verdict.told["to keep what they had, while WeChat did not tell"] += 1  # R29
            else:
                verdict.dead.append(read)
        elif read.kind_of_error in NO_ANSWER:
            verdict.no_answer += 1
        elif why := _why_it_is_right(read, frozen, troubles):
            verdict.told[why] += 1
        else:
            verdict.errors.append(read)
    ordinary = [read for read in reads if not read.kind]
    verdict.longest_gap = max(_gaps(ordinary, frozen), default=0.0)
    verdict.longest_read = max((read.took for read in ordinary if _is_awake(read, frozen)), default=0.0)
    verdict.longest_repair = max(_repairs(reads, fake, seed, {read.appid for read in ordinary}), default=0.0)
    verdict.slow = [read for read in reads if read.kind in ("", "good") and read.took > STARVED]
    verdict.slow = [read for read in verdict.slow if not any(pause.covers(read) for pause in frozen)]
    over_http = [read.took for read in ordinary if SERVER_OF.get(read.crew) and _is_awake(read, frozen)]
    if over_http and (most := sorted(over_http)[int(0.99 * len(over_http))]) > STARVED:
        verdict.broken.append(f"one in a hundred reads over HTTP takes {most:.1f} s or longer")
    _judge_complaints(verdict, list(complaints), frozen, troubles)
    return verdict


def _is_awake(read: Read, frozen: Iterable[Pause]) -> bool:
    return bool(read.token) and not any(pause.covers(read) for pause in frozen)


def _is_hang(read: Read, frozen: Iterable[Pause], troubles: Iterable[Trouble]) -> bool:
    if read.took <= read.limit + SLACK or any(pause.covers(read) for pause in frozen):
        return False
    # Two seconds are for a lock alone: while the database is away, the caller's own connection hangs as well.
    away = read.limit < WAIT and any(trouble.meets(read.asked, read.at) for trouble in troubles)
    return not away or read.took > WAIT + SLACK


def _why_it_is_right(read: Read, frozen: Iterable[Pause], troubles: Iterable[Trouble]) -> str:
    """What an error rightly says, '' if it should not have been one."""
    unavailable = read.kind_of_error in ("TokenUnavailable", "StoreUnavailable")
    if read.kind == "hanging" and (unavailable or "503: token_unavailable" in read.error):
        return "of an endpoint that hangs"
    if read.holds in OWN_LOCK and unavailable:
        return "of their own lock"
    if read.holds == "beside" and unavailable and "lock" in read.error:
        return "of a neighbour's lock"
    if read.holds == "unborn" and read.kind_of_error == "AccountNotFound":
        return "of their own uncommitted account"
    if read.kind in ("cold", "complaint") and read.took >= read.limit and any(pause.covers(read) for pause in frozen):
        return "that their time was up, after they had stood still"
    met = [trouble for trouble in troubles if trouble.meets(read.asked, read.at)]
    if met and read.kind in ("cold", "complaint", "hanging"):
        return "of an outage, without any token"
    if "503: service_unavailable" in read.error and any(SERVER_OF.get(read.crew) in it.newcomers for it in met):
        return "of an outage by a server that had just been started"
    return ""


def _judge_complaints(
    verdict: Verdict, complaints: list[Complaint], frozen: Iterable[Pause], troubles: Iterable[Trouble]
) -> None:
    """No honest complaint is refused for others' lies, and each brings a token; faults of the time are allowed for."""
    server = [(pause.begin, pause.end) for pause in frozen if pause.process in ("web", "everybody")]
    faults = server + [(trouble.begin, trouble.end) for trouble in troubles]
    verdict.complaints = complaints
    verdict.refused = [complaint for complaint in complaints if complaint.refusals]
    for complaint in complaints:
        lost = _seconds_of(faults, complaint.begin, complaint.end)
        took = complaint.end - complaint.begin - lost
        if complaint.longest > WAIT + SLACK + lost or took > REPAIR_WITHIN or (not complaint.is_over and took > WAIT):
            verdict.unanswered.append(complaint)


def _seconds_of(spans: list[tuple[float, float]], begin: float, end: float) -> float:
    """How much of the time from ``begin`` to ``end`` lies in any of the spans, which may overlap."""
    covered, reached = 0.0, begin
    for start, stop in sorted(spans):
        start, stop = max(start, reached), min(stop, end)
        if stop > start:
            covered += stop - start
            reached = stop
    return covered


def _gaps(reads: list[Read], frozen: Iterable[Pause]) -> Iterable[float]:
    """For every account, the times between tokens served to anybody, unless somebody who reads stood still."""
    last: dict[str, float] = {}
    for read in reads:
        if read.token:
            before = last.get(read.appid, read.at)
            if not any(pause.begin <= read.at and before <= pause.end for pause in frozen):
                yield read.at - before
            last[read.appid] = read.at


def _repairs(reads: list[Read], fake: FakeWeChat, seed: int | str, appids: set[str]) -> Iterable[float]:
    """How long after an issue that nobody ever got to see the next token of that account was issued (R2).

    ``appids``: those that are read all the time. What a killed caller leaves of its own is renewed and read by nobody.

    Such a token displaced the one in use: its answer was lost, or whoever asked for it was killed or frozen.
    """
    mint, served = Mint(seed), {read.token for read in reads}
    issues = defaultdict(list)
    for call in fake.calls:
        name = "stable_forced" if call.forced else call.endpoint
        if call.errcode == 0 and name in DISPLACING and call.appid in appids:
            issues[call.appid].append(call)
    for appid, calls in issues.items():
        for call, successor in itertools.pairwise(calls):
            if mint.token(appid, call.endpoint, call.serial) not in served:
                yield successor.t - call.t
