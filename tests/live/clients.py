"""Clients of the HTTP service that run in the driver: one that lies, one that is honest, many that ask in vain."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from .asking import WAIT
from .service import Answer, Service
from .upstream import Upstream
from .verdict import Complaint, EarlyEnd, Read

KILL_EVERY: Final = 20.0  # seconds between two tokens that WeChat ends before their time
HEARD_WITHIN: Final = 1.5  # seconds after the first answer to a complaint; a read may have begun just before
UNHEARD: Final = (OSError, http.client.HTTPException)  # a server that was killed, before or in the middle of its answer
IN_VAIN: Final = 12  # clients at a time for an account whose endpoint hangs


@dataclass(slots=True)
class Clients:
    """``lied``: accounts that are complained about; ``hanging``: the one whose endpoint hangs; runs within."""

    fake: Upstream
    url: str
    keys: dict[str, str]  # by client: liar, honest, vain
    lied: list[str]
    hanging: str
    early_ends: list[EarlyEnd]
    reads: list[Read] = field(default_factory=list)
    complaints: list[Complaint] = field(default_factory=list)
    lies: int = 0
    believed: int = 0  # lies answered with 200, as long as the site hears them out
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        jobs = [self._lie, self._be_honest, *[self._ask_in_vain] * IN_VAIN]
        self._threads = [threading.Thread(target=job, daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(timeout=60)  # every request ends before that

    def _lie(self) -> None:
        """Complain about a token that works, about one of long ago and about none, as often as the site allows."""
        service = Service(self.url, self.keys["liar"])
        first: dict[str, str] = {}
        for number in itertools.count():
            if self._over.wait(0.2):
                return
            appid = self.lied[number % len(self.lied)]
            token = self._read(service, appid, "liar")
            if not token:
                continue
            stale = [token, token, token, first.setdefault(appid, token), "no-token-at-all"][number // 2 % 5]
            try:
                answer = service.complain(appid, stale)
            except UNHEARD:
                continue
            self.lies += 1
            self.believed += answer.status == 200
            self._over.wait(min(answer.retry_after, 2.0))

    def _be_honest(self) -> None:
        """Use tokens; WeChat ends one every so often; complain about what it refuses until a good one is at hand."""
        service = Service(self.url, self.keys["honest"])
        turn, next_kill = itertools.cycle(self.lied), time.monotonic() + KILL_EVERY / 4
        while not self._over.wait(0.3):
            appid = next(turn)
            token = self._read(service, appid, "honest")
            if token and self.fake.is_valid(token) and time.monotonic() >= next_kill:
                next_kill = time.monotonic() + KILL_EVERY
                began = time.time()
                self.fake.kill_token(appid)
                self._complain_until_served(service, appid, token)
                self.early_ends.append(EarlyEnd(appid, began, time.time() + HEARD_WITHIN))

    def _complain_until_served(self, service: Service, appid: str, stale: str) -> None:
        began, answers = time.time(), list[str]()
        longest = 0.0
        while not self._over.is_set():
            asked = time.time()
            try:
                answer = service.complain(appid, stale)
                said = f"{answer.status} {answer.code}".strip()
            except UNHEARD as exc:  # its server was killed; that is no answer
                answer, said = Answer(0, {}), type(exc).__name__
            longest = max(longest, time.time() - asked)
            answers.append(said)
            if answer.status == 200:
                if self.fake.is_valid(answer.token):
                    break
                answers[-1] = "200 the dead token"
                stale = answer.token
            self._over.wait(max(min(answer.retry_after, 5.0), 0.3))
        self.complaints.append(Complaint(appid, began, time.time(), longest, answers, is_over=not self._over.is_set()))

    def _ask_in_vain(self) -> None:
        service = Service(self.url, self.keys["vain"])
        while not self._over.is_set():
            answer = self._asked(service, self.hanging, "vain", kind="hanging")
            self._over.wait(min(max(answer.retry_after if answer else 1.0, 0.5), 2.0))  # less patient than told

    def _read(self, service: Service, appid: str, reader: str) -> str:
        answer = self._asked(service, appid, reader)
        return answer.token if answer and answer.status == 200 else ""

    def _asked(self, service: Service, appid: str, reader: str, kind: str = "") -> Answer | None:
        asked, answer, token, error = time.time(), None, "", ""
        try:
            answer = service.read(appid)
            token = answer.token
        except (*UNHEARD, RuntimeError) as exc:
            error = f"{type(exc).__name__}: {exc}"
        self.reads.append(Read(reader, appid, asked, time.time(), token=token, error=error, limit=WAIT, kind=kind))
        return answer
