"""Mini apps of Douyin (抖音小程序): the main credential of one, as an example of a platform of one's own.

``POST /api/apps/v2/token`` cuts the life of the former token to five minutes. Its errors have names of their own
(``err_no``), and the credential lies one level down.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from wechat_token.exceptions import ErrorClass
from wechat_token.platforms import (
    AccountLike,
    Call,
    CredentialSource,
    Issued,
    Material,
    Meaning,
    Platform,
    Way,
    issued,
)
from wechat_token.redaction import Secret

WAY = Way(base_url="https://developer.toutiao.com")

SECRET_WRONG = Meaning(
    ErrorClass.HUMAN,
    "The AppSecret is wrong.",
    "Copy it from developer.open-douyin.com → 控制台 → 开发管理 → 开发设置, and enter it in this account.",
)
CODES = {
    -1: Meaning(ErrorClass.TRANSIENT, "Douyin is busy.", "Nothing to do: it is retried automatically."),
    40015: Meaning(
        ErrorClass.HUMAN, "Douyin does not know this AppID.", "Compare it with the console, letter by letter."
    ),
    40017: SECRET_WRONG,
}


class MiniAppToken(CredentialSource):
    kind: ClassVar[str] = "access_token"
    codes: ClassVar[Mapping[int, Meaning]] = CODES
    dead_codes: ClassVar[frozenset[int]] = frozenset({28001003, 28001008})

    def prepare(self, account: AccountLike, material: Material, *, forced: bool) -> Call:
        WAY.ready()
        return partial(self._fetch, account.appid, account.ref, Secret(account.secret.reveal()))

    def daily_limit(self, account: AccountLike, *, forced: bool) -> int:
        return account.daily_limit or 2000

    def displaces(self, account: AccountLike, *, forced: bool) -> bool:
        return True

    def _fetch(self, appid: str, ref: str, secret: Secret) -> Issued:
        asked = {"appid": appid, "secret": secret, "grant_type": "client_credential"}
        answer = WAY.call("POST", "/api/apps/v2/token", json=asked)
        data = answer.body.get("data")
        body = {
            **(data if isinstance(data, dict) else {}),
            "errcode": answer.body.get("err_no"),
            "errmsg": answer.body.get("err_tips"),
        }
        return issued(self.read(answer, ref, name="access_token", hide=secret, body=body))


PLATFORM = Platform(name="douyin", label="抖音小程序", sources=(MiniAppToken(),), way=WAY)
