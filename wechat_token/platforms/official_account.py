"""The ``access_token`` of an Official Account (公众号) or Mini Program (docs/design.md W1 to W8)."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, ClassVar, Final

from ..exceptions import AnswerError, APIError, ErrorClass, UpstreamError
from ..redaction import Secret, clean_errmsg, find_rid, without
from . import transport
from .base import AccountLike, Call, Clearing, CredentialSource, ForcedRefreshRule, Issued, Renewal
from .errcodes import DEAD_TOKEN_CODES, find_egress_ip, lookup, read_errcode

CLASSIC: Final = "classic"
STABLE: Final = "stable"
STABLE_FORCED: Final = "stable_forced"

DAILY_LIMITS: Final = {CLASSIC: 2_000, STABLE: 500_000, STABLE_FORCED: 20}  # docs/design.md W7, W8

# Early enough to ride out twenty minutes of outage (R6). A classic renewal always brings a new token, at the
# cost of one of the day's 2000 calls.
CLASSIC_EARLIEST: Final = 1_200.0
# Earlier than this before the end, the stable endpoint returns the token we already hold (docs/design.md W5).
STABLE_WINDOW: Final = 300.0

LONGEST_LIFE: Final = 30 * 24 * 3600  # WeChat documents "up to 7200" (W3); beyond a month a figure is an error
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}")


class OfficialAccountAccessToken(CredentialSource):
    """``endpoint`` ``stable`` is POST /cgi-bin/stable_token; ``classic`` is GET /cgi-bin/token."""

    kind: ClassVar[str] = "access_token"

    def prepare(self, account: AccountLike, *, forced: bool) -> Call:
        transport.ready()
        # Read here, where nothing is at stake yet: the key it was encrypted with may be missing on this host.
        return partial(_fetch, account.appid, account.endpoint, Secret(account.secret.reveal()), forced=forced)

    def is_accepted(self, account: AccountLike, value: Secret) -> bool | None:
        # WeChat's entry addresses: the cheapest harmless call that needs a token (docs/design.md W16).
        answer = transport.call("GET", "/cgi-bin/get_api_domain_ip", params={"access_token": value})
        code = read_errcode(answer.body)
        if code in DEAD_TOKEN_CODES:
            return False
        if code == 0 or (code is None and isinstance(answer.body.get("ip_list"), list)):
            return True
        return None  # busy, out of quota, a whitelist: says nothing about the token

    def prepare_clearing(self, account: AccountLike) -> Clearing:
        transport.ready()
        return partial(_clear_quota, account.appid, Secret(account.secret.reveal()))

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


def _fetch(appid: str, endpoint: str, secret: Secret, *, forced: bool) -> Issued:
    # Nothing in this frame, which tracebacks show, is a plain token or secret (S2).
    outcome = _parse(_request(appid, endpoint, secret, forced=forced), appid, secret)
    if isinstance(outcome, Issued):
        return outcome
    raise outcome


def _request(appid: str, endpoint: str, secret: Secret, *, forced: bool) -> transport.Answer:
    named: dict[str, str | Secret] = {"grant_type": "client_credential", "appid": appid, "secret": secret}
    if endpoint == CLASSIC:
        return transport.call("GET", "/cgi-bin/token", params=named)
    return transport.call("POST", "/cgi-bin/stable_token", json={**named, "force_refresh": forced})


def _parse(answer: transport.Answer, appid: str, secret: Secret) -> Issued | UpstreamError:
    """A token by R11, or the error to raise. A success has no ``errcode``: the token is looked for first."""
    token, life = answer.body.get("access_token"), answer.body.get("expires_in")
    if (
        isinstance(token, str)
        and _TOKEN.fullmatch(token)
        and type(life) is int  # a bool is an int as well
        and 0 < life <= LONGEST_LIFE
    ):
        return Issued(Secret(token), life, skew=answer.skew)
    code = read_errcode(answer.body)
    if not code:
        return AnswerError(
            f"{appid}: an answer with neither a usable token and life nor an errcode",
            error_class=ErrorClass.TRANSIENT,
            may_have_issued=True,
        )
    return _refusal(code, answer.body.get("errmsg"), appid, secret)


def _clear_quota(appid: str, secret: Secret) -> None:
    """The call that needs no token, which may be what is lacking (docs/design.md W16). The secret goes into the body,
    where WeChat's own page allows either: a query string ends up in logs (S2).
    """
    answer = transport.call("POST", "/cgi-bin/clear_quota/v2", json={"appid": appid, "appsecret": secret})
    code = read_errcode(answer.body)
    if code == 0:
        return
    if code is None:
        raise AnswerError(f"{appid}: an answer without an errcode", error_class=ErrorClass.TRANSIENT)
    raise _refusal(code, answer.body.get("errmsg"), appid, secret)


def _refusal(code: int, errmsg: Any, appid: str, secret: Secret) -> APIError:
    text = without(errmsg, secret) if isinstance(errmsg, str) else ""
    meaning = lookup(code)
    return APIError(
        f"{appid}: errcode {code}: {clean_errmsg(text)}",
        error_class=meaning.error_class,
        errcode=code,
        rid=find_rid(text),
        retry_after=meaning.retry_after,
        egress_ip=find_egress_ip(text),
    )
