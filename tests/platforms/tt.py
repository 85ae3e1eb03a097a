"""A platform whose accounts share AppIDs: ``tt1:7``, ``tt1:8``. A card is had with a pass, a pass with the secret."""

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
    Need,
    Platform,
    Way,
    issued,
)
from wechat_token.redaction import Secret

WAY = Way(base_url="https://api.tt.example")
PASS = Need("pass")
PASS_REFUSED = 31
CODES = {PASS_REFUSED: Meaning(ErrorClass.TRANSIENT, "The pass was refused.", "Nothing to do.")}


class Source(CredentialSource):
    codes: ClassVar[Mapping[int, Meaning]] = CODES

    def daily_limit(self, account: AccountLike, *, forced: bool) -> int:
        return 2000


class Pass(Source):
    kind: ClassVar[str] = "pass"

    def prepare(self, account: AccountLike, material: Material, *, forced: bool) -> Call:
        return partial(self._fetch, account.ref, Secret(account.secret.reveal()))

    def _fetch(self, ref: str, secret: Secret) -> Issued:
        answer = WAY.call("POST", "/pass", json={"who": ref, "secret": secret})
        return issued(self.read(answer, ref, name="pass", hide=secret))


class DoorCard(Source):
    kind: ClassVar[str] = "access_token"
    needs: ClassVar[tuple[Need, ...]] = (PASS,)
    parameter: ClassVar[str] = "card"
    dead_codes: ClassVar[frozenset[int]] = frozenset({32})

    def prepare(self, account: AccountLike, material: Material, *, forced: bool) -> Call:
        return partial(self._fetch, account.ref, material[PASS])

    def blame(self, errcode: int) -> Need | None:
        return PASS if errcode == PASS_REFUSED else None

    def _fetch(self, ref: str, held: Secret) -> Issued:
        answer = WAY.call("POST", "/card", json={"pass": held})
        return issued(self.read(answer, ref, name="card", hide=held))


def seat(account: AccountLike) -> str:
    """What was given, such as ``tt1:7``, if it is the AppID's; else the AppID."""
    return account.ref if account.ref.startswith(f"{account.appid}:") else account.appid


PLATFORM = Platform(name="tt", label="TT", sources=(Pass(), DoorCard()), way=WAY, make_ref=seat)
