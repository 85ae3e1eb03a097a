"""The endpoints: what a request asks for, who may have it, and the answer (docs/design.md W1 to W10, W17)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .accounts import FakeAccount, TicketKind
from .answers import Refusal
from .request import Request, credentials
from .tokens import IssuedToken, Vault

ENDPOINTS: Final[Mapping[str, tuple[str, str]]] = {
    "/cgi-bin/token": ("classic", "GET"),
    "/cgi-bin/stable_token": ("stable", "POST"),
    "/cgi-bin/ticket/getticket": ("ticket", "GET"),
    "/cgi-bin/clear_quota/v2": ("clear_quota", "POST"),
    "/cgi-bin/get_api_domain_ip": ("get_api_domain_ip", "GET"),
    "/cgi-bin/user/info": ("user_info", "GET"),
    "/cgi-bin/message/custom/send": ("custom_send", "POST"),
}
"""Path → the name used in records, counters and faults, and the method. ``stable_forced`` names the forced
ones among the ``stable`` calls; any other path is ``unknown``."""

TICKET_KINDS: Final[Mapping[str, TicketKind]] = {"jsapi": "jsapi", "wx_card": "wx_card"}
Answer = tuple[dict[str, Any], int]
"""The JSON of a success, and the serial number of the token it hands out or was asked with."""


class Api:
    """Not thread-safe by itself: :class:`FakeWeChat` holds the lock."""

    def __init__(self, vault: Vault) -> None:
        self.accounts: dict[str, FakeAccount] = {}
        self._vault = vault
        self._handlers: dict[str, Callable[[Request, float], Answer]] = {
            "classic": self._token,
            "stable": self._stable_token,
            "ticket": self._getticket,
            "clear_quota": self._clear_quota,
            "get_api_domain_ip": self._get_api_domain_ip,
            "user_info": self._user_info,
            "custom_send": self._custom_send,
        }

    def answer(self, path: str, request: Request, now: float) -> Answer:
        """Raises :class:`Refusal` for everything WeChat would refuse."""
        if path not in ENDPOINTS:
            raise Refusal(40066)
        endpoint, method = ENDPOINTS[path]
        if request.method != method:
            raise Refusal(43001 if method == "GET" else 43002)
        return self._handlers[endpoint](request, now)

    def who(self, endpoint: str, request: Request) -> tuple[str, bool]:
        """The account that seems to call, and whether it asks for a forced refresh. Judges nothing."""
        if endpoint == "classic":
            return request.query.get("appid", ""), False
        if endpoint == "stable":
            fields = request.readable_fields()
            return str(fields.get("appid", "")), fields.get("force_refresh") is True
        if endpoint == "clear_quota":
            return str(request.readable_fields().get("appid", "")), False
        token = self._vault.find(request.query.get("access_token", ""))
        return (token.appid if token else ""), False

    def issue(self, endpoint: str, forced: bool, appid: str, secret: str, remote_ip: str, now: float) -> IssuedToken:
        """The token an account gets on ``classic`` or ``stable``. Raises :class:`Refusal`."""
        account = self.accounts.get(appid)
        if account is None:
            raise Refusal(40013)
        if endpoint == "classic":
            account.authenticate(secret, remote_ip, wrong_secret=40001)
            return account.issue_classic(now)
        account.authenticate(secret, remote_ip, wrong_secret=40125)
        return account.issue_stable(now, force_refresh=forced)

    def _token(self, request: Request, now: float) -> Answer:
        token = self.issue("classic", False, *credentials(request.query), request.remote_ip, now)
        return {"access_token": token.text, "expires_in": token.expires_in(now)}, token.serial

    def _stable_token(self, request: Request, now: float) -> Answer:
        forced = request.fields.get("force_refresh", False)
        if not isinstance(forced, bool):
            raise Refusal(47001)
        token = self.issue("stable", forced, *credentials(request.fields), request.remote_ip, now)
        return {"access_token": token.text, "expires_in": token.expires_in(now)}, token.serial

    def _getticket(self, request: Request, now: float) -> Answer:
        used = self._judge(request, now)
        kind = TICKET_KINDS.get(request.query.get("type", ""))
        if kind is None:
            raise Refusal(40097)
        ticket = self.accounts[used.appid].issue_ticket(kind, now)
        # The trap of docs/design.md W17: the full life is reported every time, not what is left of it.
        return {"errcode": 0, "errmsg": "ok", "ticket": ticket.text, "expires_in": int(ticket.told)}, ticket.serial

    def _clear_quota(self, request: Request, now: float) -> Answer:
        appid, secret = request.fields.get("appid"), request.fields.get("appsecret")
        if not isinstance(appid, str) or not appid:
            raise Refusal(41002)
        if not isinstance(secret, str) or not secret:
            raise Refusal(41004)
        account = self.accounts.get(appid)
        if account is None:
            raise Refusal(40013)
        account.authenticate(secret, request.remote_ip, wrong_secret=40125)
        account.clear_quota(now)
        return {"errcode": 0, "errmsg": "ok"}, 0

    def _get_api_domain_ip(self, request: Request, now: float) -> Answer:
        used = self._judge(request, now)
        return {"ip_list": ["192.0.2.10", "192.0.2.11"]}, used.serial

    def _user_info(self, request: Request, now: float) -> Answer:
        used = self._judge(request, now)
        openid = request.query.get("openid")
        if not openid:
            raise Refusal(40003)
        return {"subscribe": 1, "openid": openid, "language": "zh_CN", "tagid_list": []}, used.serial

    def _custom_send(self, request: Request, now: float) -> Answer:
        used = self._judge(request, now)
        if not request.fields.get("touser"):
            raise Refusal(40003)
        return {"errcode": 0, "errmsg": "ok"}, used.serial

    def _judge(self, request: Request, now: float) -> IssuedToken:
        """The access_token a business call carries, or the :class:`Refusal` it earns (W10)."""
        text = request.query.get("access_token")
        if not text:
            raise Refusal(41001)
        token = self._vault.find(text)
        if token is None or token.line not in ("classic", "stable"):
            raise Refusal(40001)
        if not token.valid_at(now):
            raise Refusal(40001 if token.cut < token.expiry else 42001)
        account = self.accounts[token.appid]
        if account.whitelist_all_calls:
            account.check_ip(request.remote_ip)
        return token
