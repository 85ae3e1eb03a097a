"""Judging a run: the history of every read against what the fake WeChat knew at that time."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wechat_token.sandbox import FakeWeChat
from wechat_token.sandbox.tokens import Mint

DISPLACING: Final = ("classic", "stable_forced")
REPAIR_WITHIN: Final = 30.0

SERVER_OF: Final = {"http": "web"}

# What a client of the HTTP service sees while its server is killed: no answer, so no promise.
NO_ANSWER: Final = ("ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected", "BrokenPipeError")


@dataclass(frozen=True, slots=True)
class Read:
    """One question of one reader. Times by the wall clock, which fake and readers share."""

    reader: str
    appid: str
    asked: float
    at: float
    token: str = ""
    error: str = ""

    @property
    def kind_of_error(self) -> str:
        return self.error.partition(":")[0]


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
        reader = read.reader.partition(".")[0]
        return self.process in (reader, SERVER_OF.get(reader)) and self.begin <= read.at and read.asked <= self.end


@dataclass(slots=True)
class Verdict:
    reads: int = 0
    dead: list[Read] = field(default_factory=list)
    behind_our_back: int = 0  # dead, but WeChat had ended them early and nobody had complained yet
    errors: list[Read] = field(default_factory=list)
    no_answer: int = 0
    calls: int = 0
    ideal: float = 0.0
    longest_gap: float = 0.0  # without a token served for some account, while all readers were awake
    longest_read: float = 0.0  # by a reader that was not frozen meanwhile
    longest_repair: float = 0.0
    fallen: list[str] = field(default_factory=list)  # processes that ended by themselves

    @property
    def is_kept(self) -> bool:
        broken = self.dead or self.errors or self.fallen or self.longest_repair > REPAIR_WITHIN
        return bool(self.reads) and not broken

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
        return (
            f"{self.reads} reads, {len(self.dead)} dead tokens served, errors: {errors}{apart}; "
            f"{self.calls} upstream calls, ideal {self.ideal:.1f}; longest without a token {self.longest_gap:.2f} s, "
            f"longest read {self.longest_read:.2f} s, longest repair {self.longest_repair:.1f} s; "
            f"promises {'kept' if self.is_kept else 'BROKEN'}"
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
    frozen: Iterable[Pause] = (),
) -> Verdict:  # fmt: skip
    """``reads`` in order of their answers. ``seed``: the fake's."""
    verdict = Verdict(reads=len(reads))
    for read in reads:
        if read.token:
            # A token must have worked when it was handed out: at some moment between question and answer.
            if fake.is_valid(read.token, read.asked) or fake.is_valid(read.token, read.at):
                continue
            if any(end.covers(read) for end in early_ends):
                verdict.behind_our_back += 1
            else:
                verdict.dead.append(read)
        elif read.kind_of_error in NO_ANSWER:
            verdict.no_answer += 1
        else:
            verdict.errors.append(read)
    verdict.longest_gap = max(_gaps(reads, frozen), default=0.0)
    verdict.longest_read = max((read.at - read.asked for read in reads if _is_awake(read, frozen)), default=0.0)
    verdict.longest_repair = max(_repairs(reads, fake, seed), default=0.0)
    return verdict


def _is_awake(read: Read, frozen: Iterable[Pause]) -> bool:
    return bool(read.token) and not any(pause.covers(read) for pause in frozen)


def _gaps(reads: list[Read], frozen: Iterable[Pause]) -> Iterable[float]:
    """For every account, the times between tokens served to anybody, unless somebody who reads stood still."""
    last: dict[str, float] = {}
    for read in reads:
        if read.token:
            before = last.get(read.appid, read.at)
            if not any(pause.begin <= read.at and before <= pause.end for pause in frozen):
                yield read.at - before
            last[read.appid] = read.at


def _repairs(reads: list[Read], fake: FakeWeChat, seed: int | str) -> Iterable[float]:
    """How long after an issue that nobody ever got to see the next token of that account was issued (R2).

    Such a token displaced the one in use: its answer was lost, or whoever asked for it was killed or frozen.
    """
    mint, served = Mint(seed), {read.token for read in reads}
    issues = defaultdict(list)
    for call in fake.calls:
        name = "stable_forced" if call.forced else call.endpoint
        if call.errcode == 0 and name in DISPLACING:
            issues[call.appid].append(call)
    for appid, calls in issues.items():
        for call, successor in itertools.pairwise(calls):
            if mint.token(appid, call.endpoint, call.serial) not in served:
                yield successor.t - call.t
