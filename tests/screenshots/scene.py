"""What is to be seen: accounts in every state, two days of history, keys in use. No secret is real."""

from __future__ import annotations

import datetime as dt

from django.contrib.auth.models import User

from wechat_token import clock
from wechat_token.client_keys import keys
from wechat_token.engine import schedule
from wechat_token.models import Account, ClientKey, KeyUsage, RefreshLog, Token

IP = "203.0.113.9"
RID = "65f1a2b3-4c5d6e7f-10203040"
LIFE = dt.timedelta(seconds=7200)

# AppID, name by language, and what is wrong
ACCOUNTS = [
    ("wx5f2e8a90c1d34b67", {"en": "Flagship store", "zh": "品牌旗舰店"}, "whitelist"),
    ("wx0b7c91e24fa85d36", {"en": "Members' club", "zh": "会员中心"}, "secret"),
    ("wx93d4e1f06a2b7c58", {"en": "Customer service", "zh": "在线客服"}, "busy"),
    ("wx27a6b5c4d3e2f108", {"en": "Campaigns", "zh": "营销活动"}, "quota"),
    ("wxc81f3e5a7b9d0264", {"en": "Store locator", "zh": "门店导航"}, "foreign"),
    ("wx4e6d8c0a2b1f3579", {"en": "Ordering", "zh": "扫码点餐"}, "good"),
    ("wx6a5b4c3d2e1f0987", {"en": "Coupons", "zh": "卡券小程序"}, "good"),
    ("wx8c7b6a5948372615", {"en": "Training", "zh": "内部培训"}, "inactive"),
]


def build(language: str) -> str:
    """Fill an empty database; returns the session key of an operator who is logged in."""
    from django.test import Client

    now = clock.now()
    for appid, names, state in ACCOUNTS:
        account = Account.objects.create(
            appid=appid, name=names[language], secret="0" * 32, is_active=state != "inactive",
            endpoint="classic" if state in ("quota", "foreign") else "stable", is_default=state == "busy",
        )  # fmt: skip
        _token(account, state, now)
        _history(account, state, now)
    _keys(language, now)
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    return client.cookies["sessionid"].value


def _token(account: Account, state: str, now: dt.datetime) -> None:
    issued = now - dt.timedelta(minutes=47, seconds=12)
    fields = {
        "value": f"SCENE_{account.appid}", "version": int(issued.timestamp() * 1000), "issued_for": account.ref,
        "issued_at": issued, "expires_at": issued + LIFE, "due_at": issued + LIFE - dt.timedelta(minutes=4),
        "usage": {"day": schedule.beijing_day(now), account.endpoint: 19}, "edition": account.edition,
    }  # fmt: skip
    broken = {"failed_at": now - dt.timedelta(minutes=3, seconds=8), "rid": RID}
    match state:
        case "whitelist":
            fields |= {
                "issued_at": now - dt.timedelta(hours=5), "expires_at": now - dt.timedelta(hours=3), "failures": 14,
                "error_class": "human", "errcode": 40164, "egress_ip": IP, "due_at": now + dt.timedelta(minutes=11),
                "error": f"{account.appid}: errcode 40164: invalid ip {IP}, not in whitelist", **broken,
            }  # fmt: skip
        case "secret":
            fields |= {
                "failures": 1, "error_class": "human", "errcode": 40125, "error": "errcode 40125: invalid appsecret",
                **broken,
            }  # fmt: skip
        case "busy":
            fields |= {"failures": 2, "error_class": "transient", "errcode": -1, "error": "errcode -1: system error"}
        case "quota":
            fields |= {
                "failures": 1, "error_class": "quota", "errcode": 45009, "expires_at": now - dt.timedelta(minutes=9),
                "error": "errcode 45009: reach max api daily quota limit", **broken,
                "usage": {"day": schedule.beijing_day(now), "classic": 1900},
            }  # fmt: skip
        case "foreign":
            fields |= {"foreign_refreshes": 3, "foreign_at": now - dt.timedelta(hours=7, minutes=21)}
        case "inactive":
            fields |= {"due_at": None}
    Token.objects.filter(account=account).update(**fields)
    if state == "whitelist":  # its ticket waits for the token
        Token.objects.create(
            account=account, kind="jsapi_ticket", waits_for=f"{account.ref} access_token", asked_at=now,
            due_at=fields["due_at"],
        )  # fmt: skip


def _history(account: Account, state: str, now: dt.datetime) -> None:
    rows = []

    def add(at: dt.datetime, outcome: str, errcode: int | None = None, reason: str = "schedule", client: str = ""):
        rows.append(
            RefreshLog(
                ref=account.ref, kind="access_token", at=at, reason=reason, client=client, endpoint=account.endpoint,
                outcome=outcome, errcode=errcode, rid=RID if errcode else "", duration_ms=48,
            )
        )  # fmt: skip

    at = now - dt.timedelta(hours=50)
    broken_since = now - dt.timedelta(hours=5) if state == "whitelist" else now - dt.timedelta(minutes=47)
    while at < broken_since:
        add(at, "renewed")
        at += dt.timedelta(seconds=6990)
    if state == "whitelist":
        at = now - dt.timedelta(hours=3, minutes=4)
        while at < now:
            add(at, "failed", 40164)
            at += dt.timedelta(minutes=14)
    else:
        add(now - dt.timedelta(minutes=47, seconds=12), "renewed")
    if state == "whitelist":
        add(now - dt.timedelta(hours=27), "refused", None, "complaint", "crm")
        add(now - dt.timedelta(hours=19), "failed", -1)
        add(now - dt.timedelta(hours=18, minutes=57), "failed", -1)
    if state == "foreign":
        for hours in (31, 18, 7.36):
            add(now - dt.timedelta(hours=hours), "renewed", None, "complaint", "order-service")
    if state in ("secret", "quota", "busy"):
        code = {"secret": 40125, "quota": 45009, "busy": -1}[state]
        add(now - dt.timedelta(minutes=3, seconds=8), "failed", code)
    RefreshLog.objects.bulk_create(rows)


def _keys(language: str, now: dt.datetime) -> None:
    names = {"en": ["CRM", "Order service", "Data platform"], "zh": ["CRM 系统", "订单服务", "数据平台"]}[language]
    accounts = list(Account.objects.order_by("pk")[:3])
    today = dt.date.fromisoformat(schedule.beijing_day(now))
    for number, name in enumerate(names):
        key, _plain = keys.make_key(
            name, accounts=accounts, may_refresh=number != 2, networks="10.0.0.0/8" if number else "",
            expires_at=now + dt.timedelta(days=20) if number == 2 else None,
        )  # fmt: skip
        for back in range(12 - 4 * number):
            for account in accounts:
                KeyUsage.objects.create(
                    key=key, appid=account.appid, day=today - dt.timedelta(days=back),
                    reads=(17_000 - 4_100 * number) // (1 + back % 4), complaints=3 if back == 1 else 0,
                )  # fmt: skip
        ClientKey.objects.filter(pk=key.pk).update(last_used_at=now - dt.timedelta(seconds=40))
