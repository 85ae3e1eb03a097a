"""The truth: every token WeChat issued, when each died, and by whose hand."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING

from wechat_token.sandbox import FakeWeChat
from wechat_token.sandbox.tokens import IssuedToken, TokenLine

if TYPE_CHECKING:
    from .world import World

KEPT = 60  # tokens remembered per account; nobody serves one this old


class Fact:
    """One token. ``cause``: why it ends when it ends: ``natural``, ``own`` (we displaced it) or ``foreign``.

    ``request``: the name of the request of ours that brought it, '' if it was somebody else's.
    """

    __slots__ = ("appid", "cause", "end", "known_dead_at", "request", "restored_at", "token")

    def __init__(self, token: IssuedToken, epoch: float, request: str) -> None:
        self.appid = token.appid
        self.token = token
        self.request = request
        self.cause = "natural"
        self.end = token.expiry - epoch
        self.known_dead_at: float | None = None  # since when our own row says that WeChat refuses it
        self.restored_at: float | None = None  # when a backup brought it back into the row

    def __repr__(self) -> str:
        return f"{self.token.line} token {self.token.serial}"


class Truth:
    def __init__(self, world: World, fake: FakeWeChat, epoch: float) -> None:
        self.world = world
        self.fake = fake
        self.epoch = epoch
        self.facts: dict[str, Fact] = {}
        self._recent: dict[str, deque[Fact]] = {}
        self.newest: dict[tuple[str, str], Fact] = {}  # by (AppID, line)
        self.issues = 0

    def lines(self, appid: str) -> tuple[TokenLine, TokenLine]:
        account = self.fake._api.accounts[appid]
        return account.classic, account.stable

    def look(self, appid: str, request: str = "") -> None:
        """Take in what a request of ours, or somebody else ('') has changed."""
        if appid not in self.fake._api.accounts:
            return
        recent = self._recent.setdefault(appid, deque())
        for fact in recent:
            end = fact.token.end - self.epoch
            if end < fact.end:
                fact.end, fact.cause = end, "own" if request else "foreign"
        for line in self.lines(appid):
            token = line.current
            if token is not None and token.text not in self.facts:
                fact = self.facts[token.text] = Fact(token, self.epoch, request)
                recent.append(fact)
                self.newest[appid, token.line] = fact
                self.issues += bool(request)
                self.world.note(appid, "WeChat issues %s to %s", fact, request or "somebody else")
                if request:
                    self.world.issued(appid)
        while len(recent) > KEPT:
            self.facts.pop(recent.popleft().token.text, None)

    def is_valid(self, text: str, at: float) -> bool:
        fact = self.facts.get(text)
        return fact is not None and fact.token.start - self.epoch <= at < fact.end

    def appid_of(self, query: dict[str, str], body: bytes) -> str:
        """Whose request this is: by the AppID in it, or by the token."""
        if body:
            return str(json.loads(body)["appid"])
        if "appid" in query:
            return query["appid"]
        fact = self.facts.get(query.get("access_token", ""))
        if fact is not None:
            return fact.appid
        found = self.fake._vault.find(query.get("access_token", ""))
        return found.appid if found is not None else ""
