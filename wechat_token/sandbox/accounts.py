"""One account at the fake WeChat: secret, whitelist, quotas, and how tokens and tickets are issued."""

from __future__ import annotations

import datetime as dt
import ipaddress
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from ..redaction import Secret
from .answers import Refusal
from .tokens import IssuedToken, Mint, TokenLine, Vault

BEIJING_OFFSET: Final = 8 * 3600
DAY: Final = 86_400
MINUTE: Final = 60
CLEARINGS_A_MONTH: Final = 10  # docs/design.md W16

TicketKind = Literal["jsapi", "wx_card"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True)
class Rules:
    """How long things live, in seconds (docs/design.md W3 to W7, W17). Shared by all accounts."""

    life: float
    overlap: float
    window: float  # the last part of a stable token's life, in which a call gets a new one
    strict: bool  # classic: a second renewal ends the token before the previous one at once
    forced_overlap: float  # what a forced refresh leaves to the token it displaces
    ticket_world: Literal["A", "B"] = "A"
    forced_gap: float = 30.0


class Quota:
    """A number of calls allowed in each calendar day of Beijing, or in each minute."""

    def __init__(self, limit: int, *, period: int) -> None:
        self.limit = limit
        self._period = period
        self._window = -1
        self._used = 0

    def clear(self) -> None:
        self._window, self._used = -1, 0

    def used(self, now: float) -> int:
        return self._used if self._index(now) == self._window else 0

    def take(self, now: float) -> bool:
        """Count one call. False, and nothing counted, if none is left in this window."""
        index = self._index(now)
        if index != self._window:
            self._window, self._used = index, 0
        if self._used >= self.limit:
            return False
        self._used += 1
        return True

    def _index(self, now: float) -> int:
        # Minutes start at the same moments in every time zone that matters here, days do not.
        return int(now + BEIJING_OFFSET) // self._period


class MonthlyQuota(Quota):
    """A number of calls allowed in each calendar month of Beijing."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit, period=DAY)

    def _index(self, now: float) -> int:
        day = dt.datetime.fromtimestamp(now + BEIJING_OFFSET, dt.UTC)
        return day.year * 12 + day.month


def parse_whitelist(entries: Iterable[str] | None) -> tuple[Network, ...] | None:
    """Addresses and networks; None allows every address. Raises ``ValueError`` for what is neither."""
    if entries is None:
        return None
    return tuple(ipaddress.ip_network(entry) for entry in entries)


class FakeAccount:
    """State of one account. Not thread-safe by itself: :class:`FakeWeChat` holds the lock."""

    def __init__(
        self,
        appid: str,
        secret: str,
        *,
        rules: Rules,
        mint: Mint,
        vault: Vault,
        ip_whitelist: Iterable[str] | None,
        whitelist_all_calls: bool,
        classic_daily: int,
        stable_per_minute: int,
        stable_daily: int,
        forced_daily: int,
        frozen: bool,
    ) -> None:
        self.appid = appid
        self.secret = Secret(secret)
        self.whitelist = parse_whitelist(ip_whitelist)
        self.whitelist_all_calls = whitelist_all_calls
        self.frozen = frozen
        self.classic_quota = Quota(classic_daily, period=DAY)
        self.stable_minute_quota = Quota(stable_per_minute, period=MINUTE)
        self.stable_quota = Quota(stable_daily, period=DAY)
        self.forced_quota = Quota(forced_daily, period=DAY)
        self.clearing_quota = MonthlyQuota(CLEARINGS_A_MONTH)
        self.classic = TokenLine()
        self.stable = TokenLine()
        self._tickets: dict[TicketKind, IssuedToken] = {}
        self._last_forced = -math.inf
        self.issued: Counter[str] = Counter()
        self._rules = rules
        self._mint = mint
        self._vault = vault

    def __repr__(self) -> str:
        return f"<FakeAccount {self.appid}>"

    # -- who may call

    def authenticate(self, secret: str, remote_ip: str, *, wrong_secret: int) -> None:
        """Raise the :class:`Refusal` WeChat would give. ``wrong_secret`` is the endpoint's code for that."""
        if self.secret != Secret(secret):
            raise Refusal(wrong_secret, "invalid appsecret")
        if self.frozen:
            raise Refusal(40243)
        self.check_ip(remote_ip)

    def check_ip(self, remote_ip: str) -> None:
        if self.whitelist is None:
            return
        address = ipaddress.ip_address(remote_ip)
        if not any(address in network for network in self.whitelist):
            v6 = address if address.version == 6 else f"::ffff:{address}"
            raise Refusal(40164, f"invalid ip {address} ipv6 {v6}, not in whitelist")

    # -- what is issued

    def issue_classic(self, now: float) -> IssuedToken:
        """Always a new token (W1). 45009 when the day's calls are used up."""
        if not self.classic_quota.take(now):
            raise Refusal(45009)
        return self._new_token(
            "classic", self.classic, now, overlap=self._rules.overlap, only_previous=self._rules.strict
        )

    def issue_stable(self, now: float, *, force_refresh: bool) -> IssuedToken:
        """The current token, or a new one inside the last ``window`` seconds or when forced (W5, W7)."""
        if not self.stable_minute_quota.take(now):
            raise Refusal(45011)
        if not self.stable_quota.take(now):
            raise Refusal(45009)
        offered = self.stable.offered(now)
        too_early = now - self._last_forced < self._rules.forced_gap
        if force_refresh and not too_early:
            return self.force_stable(now)
        if offered is not None and (force_refresh or offered.expiry - now > self._rules.window):
            return offered
        return self._new_token("stable", self.stable, now, overlap=self._rules.overlap, only_previous=False)

    def force_stable(self, now: float) -> IssuedToken:
        if not self.forced_quota.take(now):
            raise Refusal(45009)
        self._last_forced = now
        return self._new_token("stable", self.stable, now, overlap=self._rules.forced_overlap, only_previous=True)

    def clear_quota(self, now: float) -> None:
        """Set the day's counters to zero (W16). Of forced refreshes no source says so: their ration stays spent."""
        if not self.clearing_quota.take(now):
            raise Refusal(48006)
        self.classic_quota.clear()
        self.stable_quota.clear()

    def issue_ticket(self, kind: TicketKind, now: float) -> IssuedToken:
        """The same ticket again and again (W17). In world A until it expires, a life after its first issue; in world B
        until the next full life on Beijing's clock, at every even hour, and it works half a life beyond that.
        """
        ticket = self._tickets.get(kind)
        life = self._rules.life
        if self._rules.ticket_world == "A":
            mark, works_until = -math.inf, now + life
        else:
            mark = math.floor((now + BEIJING_OFFSET) / life) * life - BEIJING_OFFSET
            works_until = mark + 1.5 * life
        if ticket is None or not ticket.valid_at(now) or ticket.start < mark:
            ticket = self._register(self._mint.ticket, f"ticket_{kind}", now, expiry=works_until)
            self._tickets[kind] = ticket
        return ticket

    def end_ticket(self, kind: TicketKind, now: float) -> None:
        ticket = self._tickets.pop(kind, None)
        if ticket is not None:
            ticket.cut_at(now)

    def state(self, now: float) -> dict[str, Any]:
        """What may be shown: counts, and which token is current for how long, never its text."""

        def describe(line: TokenLine) -> dict[str, Any] | None:
            if (token := line.current) is None:
                return None
            return {"serial": token.serial, "ends_in": round(max(0.0, token.end - now), 1)}

        return {
            "appid": self.appid,
            "frozen": self.frozen,
            "classic": describe(self.classic),
            "stable": describe(self.stable),
            "issued": dict(self.issued),
            "used_today": {
                "classic": self.classic_quota.used(now),
                "stable": self.stable_quota.used(now),
                "stable_forced": self.forced_quota.used(now),
            },
        }

    def _new_token(self, name: str, line: TokenLine, now: float, *, overlap: float, only_previous: bool) -> IssuedToken:
        token = self._register(self._mint.token, name, now)
        line.succeed(token, overlap=overlap, only_previous=only_previous)
        return token

    def _register(
        self, make: Callable[[str, str, int], str], line: str, now: float, *, expiry: float | None = None
    ) -> IssuedToken:  # fmt: skip
        serial = sum(self.issued.values()) + 1
        self.issued[line] += 1
        text = make(self.appid, line, serial)
        expiry = now + self._rules.life if expiry is None else expiry
        token = IssuedToken(text, self.appid, line, serial, start=now, expiry=expiry, told=self._rules.life)
        self._vault.add(token)
        return token
