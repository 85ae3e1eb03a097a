"""Official Accounts (公众号) and Mini Programs: their ``access_token`` (docs/design.md W1 to W8), and the tickets that
pages in WeChat are signed with (W17).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Final

from django.utils.translation import gettext_lazy as _

from ..exceptions import AnswerError, ErrorClass
from ..redaction import Secret
from . import transport
from .base import (
    ACCESS_TOKEN,
    AccountLike,
    Call,
    Clearing,
    CredentialSource,
    ForcedRefreshRule,
    Issued,
    Material,
    Need,
    Platform,
    Renewal,
    Way,
    issued,
)
from .errcodes import DEAD_TOKEN_CODES, FETCHING, TICKETS, Meaning, read_errcode

# WeChat's entries (docs/design.md W15). A token is sent there, to API_BASE_URL, and nowhere else.
WAY: Final = Way(
    hosts=frozenset(
        {
            "api.weixin.qq.com",
            "api2.weixin.qq.com",
            "sh.api.weixin.qq.com",
            "sz.api.weixin.qq.com",
            "hk.api.weixin.qq.com",
        }
    )
)

CLASSIC: Final = "classic"
STABLE: Final = "stable"
STABLE_FORCED: Final = "stable_forced"

DAILY_LIMITS: Final = {CLASSIC: 2_000, STABLE: 500_000, STABLE_FORCED: 20}  # docs/design.md W7, W8

# Early enough to ride out twenty minutes of outage (R6). A classic renewal always brings a new token, at the
# cost of one of the day's 2000 calls.
CLASSIC_EARLIEST: Final = 1_200.0
# Earlier than this before the end, the stable endpoint returns the token we already hold (docs/design.md W5).
STABLE_WINDOW: Final = 300.0

# No figure is published; accounts were seen blocked after 10,000. What the birth rule spends is far below (R23).
TICKET_DAILY_LIMIT: Final = 10_000

TOKEN: Final = Need(ACCESS_TOKEN)


class OfficialAccountAccessToken(CredentialSource):
    """``endpoint`` ``stable`` is POST /cgi-bin/stable_token; ``classic`` is GET /cgi-bin/token."""

    kind: ClassVar[str] = ACCESS_TOKEN
    codes: ClassVar[Mapping[int, Meaning]] = FETCHING
    clears_quota: ClassVar[bool] = True
    dead_codes: ClassVar[frozenset[int]] = DEAD_TOKEN_CODES

    def prepare(self, account: AccountLike, material: Material, *, forced: bool) -> Call:
        WAY.ready()
        # Read here, where nothing is at stake yet: the key it was encrypted with may be missing on this host.
        return partial(self._fetch, account.appid, account.endpoint, Secret(account.secret.reveal()), forced=forced)

    def is_accepted(self, account: AccountLike, value: Secret) -> bool | None:
        # WeChat's entry addresses: the cheapest harmless call that needs a token (docs/design.md W16).
        answer = WAY.call("GET", "/cgi-bin/get_api_domain_ip", params={"access_token": value})
        code = read_errcode(answer.body)
        if code in self.dead_codes:
            return False
        if code == 0 or (code is None and isinstance(answer.body.get("ip_list"), list)):
            return True
        return None  # busy, out of quota, a whitelist: says nothing about the token

    def prepare_clearing(self, account: AccountLike) -> Clearing:
        WAY.ready()
        return partial(self._clear_quota, account.appid, Secret(account.secret.reveal()))

    def endpoint(self, account: AccountLike, *, forced: bool) -> str:
        if account.endpoint == CLASSIC:
            return CLASSIC
        return STABLE_FORCED if forced else STABLE

    def daily_limit(self, account: AccountLike, *, forced: bool) -> int:
        name = self.endpoint(account, forced=forced)
        if name == CLASSIC and account.daily_limit is not None and account.daily_limit > 0:
            return account.daily_limit  # 200 for a test account (测试号), more for a large one: docs/design.md W8
        return DAILY_LIMITS[name]

    def displaces(self, account: AccountLike, *, forced: bool) -> bool:
        return account.endpoint == CLASSIC or forced

    def renewal(self, account: AccountLike, life: float) -> Renewal:
        if account.endpoint == CLASSIC:
            earliest = min(CLASSIC_EARLIEST, life / 6)
            return Renewal(earliest=earliest, latest=0.8 * earliest)
        window = min(STABLE_WINDOW, life / 3)
        return Renewal(earliest=0.8 * window, latest=0.4 * window)

    def forced_refresh(self, account: AccountLike) -> ForcedRefreshRule | None:
        if account.endpoint == CLASSIC:
            return None
        return ForcedRefreshRule(per_day=DAILY_LIMITS[STABLE_FORCED], min_gap=30.0)

    def _fetch(self, appid: str, endpoint: str, secret: Secret, *, forced: bool) -> Issued:
        # Nothing in this frame, which tracebacks show, is a plain token or secret (S2).
        answer = _request(appid, endpoint, secret, forced=forced)
        return issued(self.read(answer, appid, name="access_token", hide=secret))

    def _clear_quota(self, appid: str, secret: Secret) -> None:
        """The call that needs no token, which may be what is lacking (docs/design.md W16). The secret goes into the
        body, where WeChat's own page allows either: a query string ends up in logs (S2).
        """
        answer = WAY.call("POST", "/cgi-bin/clear_quota/v2", json={"appid": appid, "appsecret": secret})
        code = read_errcode(answer.body)
        if code is None:
            raise AnswerError(f"{appid}: an answer without an errcode", error_class=ErrorClass.TRANSIENT)
        if code:
            raise self.refusal(code, answer.body.get("errmsg"), appid, hide=secret)


def _request(appid: str, endpoint: str, secret: Secret, *, forced: bool) -> transport.Answer:
    named: dict[str, str | Secret] = {"grant_type": "client_credential", "appid": appid, "secret": secret}
    if endpoint == CLASSIC:
        return WAY.call("GET", "/cgi-bin/token", params=named)
    return WAY.call("POST", "/cgi-bin/stable_token", json={**named, "force_refresh": forced})


class Ticket(CredentialSource):
    """A ticket of GET /cgi-bin/ticket/getticket. WeChat has no call that tells whether it still accepts one."""

    needs: ClassVar[tuple[Need, ...]] = (TOKEN,)
    repeats: ClassVar[bool] = True
    lazy: ClassVar[bool] = True
    codes: ClassVar[Mapping[int, Meaning]] = TICKETS
    type: ClassVar[str]

    def prepare(self, account: AccountLike, material: Material, *, forced: bool) -> Call:
        WAY.ready()
        return partial(self._fetch, account.ref, material[TOKEN])

    def blame(self, errcode: int) -> Need | None:
        return TOKEN if errcode in DEAD_TOKEN_CODES else None

    def endpoint(self, account: AccountLike, *, forced: bool) -> str:
        return f"ticket_{self.type}"

    def daily_limit(self, account: AccountLike, *, forced: bool) -> int:
        return TICKET_DAILY_LIMIT

    def _fetch(self, ref: str, token: Secret) -> Issued:
        answer = WAY.call("GET", "/cgi-bin/ticket/getticket", params={"access_token": token, "type": self.type})
        return issued(self.read(answer, ref, name="ticket", hide=token))


class JSAPITicket(Ticket):
    kind: ClassVar[str] = "jsapi_ticket"
    type: ClassVar[str] = "jsapi"


class CardTicket(Ticket):
    kind: ClassVar[str] = "wx_card_ticket"
    type: ClassVar[str] = "wx_card"


PLATFORM: Final = Platform(
    name="official_account",
    label=_("Official Account or Mini Program"),
    sources=(OfficialAccountAccessToken(), JSAPITicket(), CardTicket()),
    way=WAY,
)
