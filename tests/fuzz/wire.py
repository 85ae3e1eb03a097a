"""Requests as bytes, each made of a seed and a number alone, so that it can be made again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from . import nasty

METHODS: Final = (
    b"GET", b"GET", b"GET", b"POST", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"get",
    b"CONNECT", b"PROPFIND", b"G\xc3\x89T",
)  # fmt: skip
VERSIONS: Final = (b"HTTP/1.1",) * 160 + (b"HTTP/1.0",) * 8 + (b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"HTTP", b"")
# Of every header that gunicorn, Django or this package reads.
HEADERS: Final = (
    "Authorization", "Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Host",
    "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Ssl", "X-Script-Name", "SCRIPT_NAME",
    "PATH_INFO", "REMOTE_ADDR", "Forwarded", "Proxy", "Cookie", "Accept", "Accept-Language", "Accept-Encoding",
    "Accept-Charset", "Connection", "Keep-Alive", "Upgrade", "Expect", "Range", "If-None-Match", "If-Modified-Since",
    "Origin", "Referer", "User-Agent", "X-CSRFToken", "X-HTTP-Method-Override", "Trailer", "TE", "Via",
    "X-Requested-With", "Max-Forwards", "Date", "",
)  # fmt: skip
TYPES: Final = (
    "application/json", "application/json; charset=utf-16", "application/json;charset=\x00", "text/plain",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "multipart/form-data", "application/xml",
)  # fmt: skip
SINGLE: Final = ("Authorization", "Content-Length", "Content-Type", "Host", "Expect", "")
SPECIAL: Final = {
    "Content-Type": TYPES,
    "Cookie": ("sessionid=x", "sessionid=" + "a" * 4000, "csrftoken=\x00", "messages=x", "a=1; " * 300),
    "Accept-Language": ("zh-hans", "zh-Hans-" + "x-" * 200, "de;q=9e999", "*;q=0", "en," * 900),
    "Transfer-Encoding": ("chunked", "identity"),
    "X-Forwarded-For": ("10.1.2.3", "10.1.2.3, ::1", "1.1.1.1," * 500, "[::1]:80", "::ffff:1.2.3.4", "1.2.3.4%0a"),
}


@dataclass(frozen=True, slots=True)
class Target:
    """What the requests may know. The holder's ``key`` opens ``appid`` and no other of ``others``."""

    appid: str
    others: tuple[str, ...]
    key: str = field(repr=False)
    stale: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """``has_key``: the holder's key is in it, wherever, so that its token may be in the answer."""

    number: str
    wire: bytes = field(repr=False)
    has_key: bool

    @property
    def line(self) -> str:
        return repr(self.wire.partition(b"\r\n")[0][:120])


def request(seed: int, lane: int, number: int, target: Target) -> Request:
    dice = random.Random(f"{seed}/{lane}/{number}")
    maker = _Maker(dice, target)
    wire = dice.choice(CALLS)(maker)
    if dice.random() < 0.04:
        wire = nasty.damaged(dice, wire)
    return Request(f"{lane}/{number}", wire, target.key.encode() in wire)


class _Maker:
    def __init__(self, dice: random.Random, target: Target) -> None:
        self.dice = dice
        self.target = target
        # Half of the requests are an outsider's; a mistyped key is one of many wrong ones.
        self.key = (
            target.key
            if dice.random() < 0.5
            else dice.choice(("", target.key[:-1], target.key[::-1], nasty.text(dice)))
        )

    def ref(self) -> bytes:
        chosen = self.dice.random()
        if chosen < 0.5:
            return self.target.appid.encode()
        if chosen < 0.65:
            return self.dice.choice(self.target.others).encode()
        return nasty.octets(self.dice, nasty.text(self.dice)).replace(b" ", b"%20") or b"%20"

    def mostly(self, usual: Any, share: float = 0.8) -> Any:
        return usual if self.dice.random() < share else nasty.value(self.dice)

    def send(self, method: bytes, path: bytes, *headers: tuple[str, str], body: bytes | None = None) -> bytes:
        dice = self.dice
        if dice.random() < 0.15:
            method = dice.choice(METHODS)
        lines: list[tuple[bytes, bytes]] = [(b"Host", b"127.0.0.1")]
        lines += [(name.encode(), value.encode("utf-8", "surrogatepass")) for name, value in headers]
        if self.key and dice.random() < 0.7:
            scheme = dice.choice(("Bearer ", "Bearer ", "Bearer ", "bearer ", "Bearer  ", "Basic ", "Token ", ""))
            lines.append((b"Authorization", (scheme + self.key).encode("utf-8", "surrogatepass")))
        for _ in range(dice.choice((0, 0, 0, 0, 1, 1, 2, 3, 30 if dice.random() < 0.2 else 1))):
            lines.append(self.header())
        if body is not None:
            chunked = dice.random() < 0.1
            if chunked:
                lines.append((b"Transfer-Encoding", b"chunked"))
                body = (
                    b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part)
                    + b"0\r\n\r\n"
                )
            if not chunked or dice.random() < 0.1:
                lines.append(
                    (b"Content-Length", b"%d" % (len(body) + dice.choice((0,) * 12 + (1, -1, 10**9, -(10**9)))))
                )
        dice.shuffle(lines)
        lines.append((b"Connection", b"close"))
        head = b"%s %s %s\r\n" % (method, path, dice.choice(VERSIONS))
        return head + b"".join(name + b": " + value + b"\r\n" for name, value in lines) + b"\r\n" + (body or b"")

    def header(self) -> tuple[bytes, bytes]:
        dice = self.dice
        name = dice.choice(HEADERS)
        if name in SINGLE and dice.random() < 0.8:  # a second one is refused before anybody reads it
            name = "X-Forwarded-For"
        if name in SPECIAL and dice.random() < 0.6:
            value = dice.choice(SPECIAL[name])
        elif name == "X-Forwarded-For":  # the throttle counts by address: let there be many
            value = ".".join(str(dice.randrange(256)) for _ in range(4))
        else:
            value = nasty.text(dice)
        # A line break in a value is a header more: that is what ``damaged`` is for.
        return name.encode(), nasty.octets(dice, value).replace(b"\r", b"").replace(b"\n", b"")

    def query(self, fields: dict[str, str]) -> bytes:
        dice = self.dice
        pairs = [
            (name.encode(), nasty.octets(dice, text) if dice.random() < 0.9 else nasty.octets(dice, nasty.text(dice)))
            for name, text in fields.items()
            if dice.random() < 0.93
        ]
        if dice.random() < 0.2:
            pairs += [dice.choice(pairs or [(b"a", b"b")])] * dice.choice((1, 1, 2000 if dice.random() < 0.1 else 1))
        if dice.random() < 0.2:
            pairs.append((nasty.octets(dice, nasty.text(dice)), nasty.octets(dice, nasty.text(dice))))
        dice.shuffle(pairs)
        unfit = bytes.maketrans(b" \r\n", b"+++")
        return dice.choice((b"&", b"&", b"&", b";")).join(name + b"=" + value for name, value in pairs).translate(unfit)


def read(made: _Maker) -> bytes:
    return made.send(b"GET", b"/wechat/accounts/%s/access_token" % made.ref())


def refresh(made: _Maker) -> bytes:
    body = nasty.body(made.dice, {"stale_token": made.mostly(made.target.stale)})
    return made.send(
        b"POST",
        b"/wechat/accounts/%s/access_token/refresh" % made.ref(),
        ("Content-Type", made.dice.choice(TYPES[:1] * 8 + TYPES)),
        body=body,
    )


def classic(made: _Maker) -> bytes:
    appid = made.target.appid if made.dice.random() < 0.7 else nasty.text(made.dice)
    query = made.query({"grant_type": "client_credential", "appid": appid, "secret": made.key})
    return made.send(b"GET", b"/wechat/cgi-bin/token?" + query)


def stable(made: _Maker) -> bytes:
    fields = {
        "grant_type": made.mostly("client_credential", 0.9),
        "appid": made.mostly(made.target.appid),
        "secret": made.mostly(made.key),
    }
    fields["force_refresh"] = made.mostly(made.dice.random() < 0.3)
    return made.send(b"POST", b"/wechat/cgi-bin/stable_token", body=nasty.body(made.dice, fields))


def health(made: _Maker) -> bytes:
    return made.send(b"GET", b"/wechat/health" + made.dice.choice((b"", b"?" + made.query({"a": "b"}))))


def description(made: _Maker) -> bytes:
    return made.send(b"GET", b"/wechat/openapi.json")


def elsewhere(made: _Maker) -> bytes:
    path = nasty.octets(made.dice, nasty.text(made.dice)).translate(bytes.maketrans(b" \r\n", b"+++"))
    return made.send(made.dice.choice(METHODS), made.dice.choice((b"/wechat/", b"//", b"/wechat//", b"/")) + path)


def login(made: _Maker) -> bytes:
    fields = {"username": nasty.text(made.dice), "password": nasty.text(made.dice), "next": nasty.text(made.dice)}
    form = ("Content-Type", "application/x-www-form-urlencoded")
    return made.send(b"POST", b"/admin/login/?" + made.query({"next": "/"}), form, body=made.query(fields))


CALLS: Final[tuple[Callable[[_Maker], bytes], ...]] = (
    read, read, read, refresh, refresh, refresh, classic, classic, classic, stable, stable, stable, health,
    description, elsewhere, login,
)  # fmt: skip
