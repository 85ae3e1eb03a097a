"""A deterministic, thread-safe model of ``api.weixin.qq.com`` in memory.

It promises what WeChat's documentation promises and not a second more: where sources differ (docs/design.md
W20) the default is the reading that is harder on a token server, and an option gives the other one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ..redaction import Secret
from .accounts import FakeAccount, Rules, parse_whitelist
from .answers import Refusal, Reply, json_reply
from .api import ENDPOINTS, TICKET_KINDS, Api
from .faults import Fault, FaultQueue, PlannedFault
from .history import Call, History
from .request import Request
from .tokens import Mint, Validity, Vault

CALLS_KEPT: Final = 100_000


@dataclass(frozen=True, slots=True)
class Grant:
    """A token as handed out; ``repr`` shows its serial number instead of its text."""

    token: str = field(repr=False)
    expires_in: int
    serial: int


class FakeWeChat:
    """The whole of WeChat, as far as credentials go. Every method may be called from any thread.

    ``clock`` gives the time in seconds; pass a :class:`ManualClock` to let hours pass in no time.
    ``life``: seconds a token or ticket works. ``overlap``: seconds a displaced token goes on working.
    ``window``: the last seconds of a stable token's life, when a call gets a new one (default: ``overlap``);
    with a ``life`` no longer than that, every stable call gets a new one.
    ``seed``: the same seed gives the same tokens; None gives unguessable ones.
    ``strict``: on classic only the immediately displaced token survives, a second renewal ends it at once.
    ``forced_overlap``: seconds a forced refresh leaves to the token it displaces; WeChat's docs say 0.
    ``ticket_world``: how long a ticket works, on which sources differ (W17). ``"A"``: a life from its first issue, then
    the next request gets a new one; ``"B"``: a new one at every even hour (every full life on Beijing's clock), which
    does not end the old one.
    ``history``: without it, for simulations, no call is recorded and long dead tokens are forgotten; counters
    stay exact.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        life: float = 7200,
        overlap: float = 300,
        seed: int | str | None = None,
        *,
        window: float | None = None,
        strict: bool = False,
        forced_overlap: float = 0,
        ticket_world: Literal["A", "B"] = "A",
        history: bool = True,
    ) -> None:
        self._clock = clock
        if ticket_world not in ("A", "B"):
            raise ValueError("ticket_world must be A or B")
        window = overlap if window is None else window
        self._rules = Rules(life, overlap, window, strict, forced_overlap, ticket_world)
        self._lock = threading.RLock()
        self._mint = Mint(seed)
        self._vault = Vault(keep_all=history)
        self._history = History(CALLS_KEPT if history else 0)
        self._api = Api(self._vault)
        self._faults = FaultQueue()
        self._outage: Fault | None = None
        self._outage_until = float("inf")
        self.set_life(life)

    def add_account(
        self,
        appid: str,
        secret: str,
        *,
        ip_whitelist: Iterable[str] | None = None,
        whitelist_all_calls: bool = False,
        classic_daily: int = 2000,
        stable_per_minute: int = 10_000,
        stable_daily: int = 500_000,
        forced_daily: int = 20,
        frozen: bool = False,
    ) -> None:
        """Add an account. Raises ``ValueError`` for one that exists.

        ``ip_whitelist``: addresses and networks that may call; None allows all. It guards the calls with the
        AppSecret, with ``whitelist_all_calls`` also those with a token (W13). The figures are WeChat's limits
        per day of Beijing or per minute. Raises ``ValueError`` for what is no address or network.
        """
        account = FakeAccount(
            appid,
            secret,
            rules=self._rules,
            mint=self._mint,
            vault=self._vault,
            ip_whitelist=ip_whitelist,
            whitelist_all_calls=whitelist_all_calls,
            classic_daily=classic_daily,
            stable_per_minute=stable_per_minute,
            stable_daily=stable_daily,
            forced_daily=forced_daily,
            frozen=frozen,
        )
        with self._lock:
            if appid in self._api.accounts:
                raise ValueError("the sandbox has this account already")
            self._api.accounts[appid] = account

    # -- calls, as clients make them

    def handle(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes = b"",
        remote_ip: str = "127.0.0.1",
    ) -> Reply:
        """Answer one HTTP request. ``path`` is without the query. Faults and outages apply."""
        request = Request(method, query, body, remote_ip)
        endpoint = ENDPOINTS[path][0] if path in ENDPOINTS else "unknown"
        with self._lock:
            now = self._clock()
            appid, forced = self._api.who(endpoint, request)
            fault = self._fault_for(endpoint, forced, appid, now)
            if fault is not None and not fault.is_obeyed:
                errcode = fault.errcode if fault.kind == "error" else None
                self._history.add(Call(now, appid, endpoint, forced, errcode, 0, remote_ip, fault.kind))
                return fault.reply({}, self._mint.rid(now))
            serial = 0
            try:
                payload, serial = self._api.answer(path, request, now)
            except Refusal as refusal:
                payload = refusal.payload(self._mint.rid(now))
            errcode = payload.get("errcode", 0)
            kind = fault.kind if fault else ""
            self._history.add(Call(now, appid, endpoint, forced, errcode, serial, remote_ip, kind))
            rid = self._mint.rid(now) if fault else ""
        return fault.reply(payload, rid) if fault else json_reply(payload)

    def fetch_classic(self, appid: str, secret: str, *, remote_ip: str = "127.0.0.1") -> Grant:
        """``/cgi-bin/token`` without HTTP, JSON, faults and outages. Raises :class:`Refusal`."""
        return self._fetch("classic", False, appid, secret, remote_ip)

    def fetch_stable(
        self, appid: str, secret: str, *, force_refresh: bool = False, remote_ip: str = "127.0.0.1"
    ) -> Grant:
        """``/cgi-bin/stable_token`` without HTTP, JSON, faults and outages. Raises :class:`Refusal`."""
        return self._fetch("stable", force_refresh, appid, secret, remote_ip)

    def _fetch(self, endpoint: str, forced: bool, appid: str, secret: str, remote_ip: str) -> Grant:
        with self._lock:
            now = self._clock()
            try:
                token = self._api.issue(endpoint, forced, appid, secret, remote_ip, now)
            except Refusal as refusal:
                self._history.add(Call(now, appid, endpoint, forced, refusal.errcode, 0, remote_ip))
                raise
            self._history.add(Call(now, appid, endpoint, forced, 0, token.serial, remote_ip))
            return Grant(token.text, token.expires_in(now), token.serial)

    def _fault_for(self, endpoint: str, forced: bool, appid: str, now: float) -> Fault | None:
        if self._outage is not None:
            if now < self._outage_until:
                return self._outage
            self._outage = None
        if not self._faults:
            return None
        return self._faults.take((endpoint, f"{endpoint}_forced") if forced else (endpoint,), appid)

    # -- what an operator, an attacker or bad luck can do

    def kill_token(self, appid: str, *, stuck: bool = False) -> None:
        """End every access_token of the account now: business calls with one earn 40001.

        ``stuck``: ``stable_token`` in normal mode goes on answering with the dead token until a refresh is
        forced or the last ``window`` seconds of that token's natural life begin (W5).
        """
        with self._lock:
            account, now = self._account(appid), self._clock()
            for line in (account.classic, account.stable):
                line.revoke(now)
            account.stable.stuck = stuck

    def end_ticket(self, appid: str, kind: str = "jsapi") -> None:
        """End the account's ticket before its time: the next request gets another one."""
        if kind not in TICKET_KINDS:
            raise ValueError(f"kind must be one of {', '.join(TICKET_KINDS)}")
        with self._lock:
            self._account(appid).end_ticket(TICKET_KINDS[kind], self._clock())

    def foreign_refresh(self, appid: str, *, endpoint: str = "classic") -> None:
        """Another system that knows the AppSecret fetches: ``classic``, or ``stable`` by force (R14).

        Recorded and counted as from the address ``foreign``. Raises :class:`Refusal` if no quota is left.
        """
        if endpoint not in ("classic", "stable"):
            raise ValueError("endpoint must be classic or stable")
        with self._lock:
            account, now = self._account(appid), self._clock()
            token = account.issue_classic(now) if endpoint == "classic" else account.force_stable(now)
            self._history.add(Call(now, appid, endpoint, endpoint == "stable", 0, token.serial, "foreign"))

    def reset_secret(self, appid: str, secret: str, *, kill_tokens: bool = False) -> None:
        """Replace the AppSecret; the old one is refused at once. Its effect on tokens is not known (W14)."""
        with self._lock:
            self._account(appid).secret = Secret(secret)
            if kill_tokens:
                self.kill_token(appid)

    def freeze(self, appid: str, on: bool = True) -> None:
        """Freeze or unfreeze the AppSecret: token calls earn 40243."""
        with self._lock:
            self._account(appid).frozen = on

    def set_ip_whitelist(self, appid: str, entries: Iterable[str] | None) -> None:
        """Allow these addresses and networks; None allows all. Raises ``ValueError`` for what is neither."""
        with self._lock:
            self._account(appid).whitelist = parse_whitelist(entries)

    def set_life(self, seconds: float) -> None:
        """The life of whatever is issued from now on. Raises ``ValueError`` below one second."""
        if not seconds >= 1:
            raise ValueError("a life is at least one second")
        with self._lock:
            self._rules.life = seconds

    def outage(self, on: bool = True, *, until: float | None = None, fault: Fault | None = None) -> None:
        """Let every call fail with ``fault`` (default: connections are reset unread) until told otherwise.

        ``until``: the time, on this fake's clock, at which the outage ends by itself.
        """
        with self._lock:
            self._outage = (fault or Fault("lost_before")) if on else None
            self._outage_until = float("inf") if until is None else until

    def inject(self, fault: Fault, times: int = 1, *, endpoint: str | None = None, appid: str | None = None) -> None:
        """Commit ``fault`` on the next ``times`` calls that fit. See ``ENDPOINTS`` for the names.

        Raises ``ValueError`` for a name that no call will ever have.
        """
        names = {name for name, _ in ENDPOINTS.values()} | {"stable_forced", "unknown"}
        if endpoint is not None and endpoint not in names:
            raise ValueError(f"endpoint must be one of {', '.join(sorted(names))}")
        with self._lock:
            self._faults.add(PlannedFault(fault, times, endpoint, appid))

    def clear_faults(self) -> None:
        """Forget planned faults and end an outage."""
        with self._lock:
            self._faults.clear()
            self._outage = None

    # -- what happened

    def now(self) -> float:
        """The time on this fake's clock."""
        return self._clock()

    @property
    def calls(self) -> list[Call]:
        """The recorded calls, oldest first; empty with ``history=False``."""
        with self._lock:
            return self._history.calls()

    def calls_to(self, appid: str, endpoint: str) -> int:
        """How many calls named this account and endpoint, faults and refusals included."""
        with self._lock:
            return self._history.count(appid, endpoint)

    def issued(self, appid: str, line: str | None = None) -> int:
        """How many access_tokens were issued, or how many of ``classic``, ``stable``, ``ticket_jsapi``, …"""
        with self._lock:
            issued = self._account(appid).issued
            return issued["classic"] + issued["stable"] if line is None else issued[line]

    def is_valid(self, token: str, at: float | None = None) -> bool:
        """Whether WeChat accepts, or accepted, this token or ticket at a time (default: now). Lock-free."""
        found = self._vault.find(token)
        return found is not None and found.valid_at(self._clock() if at is None else at)

    def valid_intervals(self, appid: str) -> list[Validity]:
        """When each token and ticket of the account worked, in order of issue. Needs ``history``."""
        with self._lock:
            return [Validity(t.serial, t.line, t.start, t.end) for t in self._vault.of(appid)]

    def state(self) -> dict[str, Any]:
        """A picture of everything, fit for JSON and for strangers: no secret and no token in it."""
        with self._lock:
            now = self._clock()
            rules = self._rules
            return {
                "now": now,
                "life": rules.life,
                "overlap": rules.overlap,
                "window": rules.window,
                "outage": self._outage is not None and now < self._outage_until,
                "faults": len(self._faults),
                "accounts": [
                    account.state(now) | {"calls": self._history.counts(account.appid)}
                    for account in self._api.accounts.values()
                ],
            }

    def _account(self, appid: str) -> FakeAccount:
        try:
            return self._api.accounts[appid]
        except KeyError:
            raise LookupError("the sandbox has no such account") from None
