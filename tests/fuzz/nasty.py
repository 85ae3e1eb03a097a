"""Values and bytes that programs stumble over."""

from __future__ import annotations

import json
import random
from typing import Any, Final
from urllib.parse import quote

TEXTS: Final = (
    "", " ", "0", "-1", "null", "true", "[]", "{}", "\x00", "a\x00b", "\n", "\r\nX-Injected: 1", "\x1b[31mred\x1b[0m",
    "\t", "\x7f", "\x85", "\u2028", "\u202etxt.exe", "\ufeff", "\u200b", "\ud800", "\udfff", "e\u0301", "é", "微信",
    "😀" * 200, "ﬀ", "İ", "\u0000" * 100, "A" * 300, "A" * 5000, "../../etc/passwd", "..%2f..%2f", "%00", "%0a", "%1b",
    "%", "%zz", "%25", "%s%n%x", "{0.__class__}", "{{7*7}}", "${jndi:ldap://127.0.0.1:9/a}", "' OR 1=1 --",
    '" OR ""="', "; SELECT 1", "<script>alert(1)</script>", "javascript:alert(1)", "__proto__", "constructor", "wxt_",
    "wxt_" + "0" * 38, "wxt_" + "é" * 38, "1e999", "NaN", "Infinity", "9" * 400, "-0", "0x41", "1_000", "١٢٣",
    "2026-02-30T25:61:61Z",
)  # fmt: skip

VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 0.5, 1e308, float("nan"), float("inf"), [], {}, [[]],
    [None], {"a": {}}, ["x"] * 100, {"": ""}, {"__proto__": {"x": 1}},
)  # fmt: skip

BODIES: Final = (
    b"", b" ", b"{", b"[", b'"', b"{}", b"[]", b"null", b"1", b"NaN", b'{"a":}', b"{'a':1}", b"\xff\xfe",
    b"\xef\xbb\xbf{}", b"\x00" * 64, b"[" * 8000, b'{"a":' * 3000, b"9" * 16_000, b"x" * 16_384, b"x" * 16_385,
    b"x" * 70_000, b"\x1f\x8b\x08\x00" + b"\x00" * 40,
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', b"a=1&b=2",
    b"--x\r\n\r\n--x--\r\n",
)  # fmt: skip


def text(dice: random.Random) -> str:
    """One of the list, or characters of any plane."""
    if dice.random() < 0.6:
        return dice.choice(TEXTS)
    planes = (0x80, 0x80, 0x250, 0xFFFF, 0x10FFFF)
    return "".join(chr(dice.randrange(dice.choice(planes))) for _ in range(dice.randrange(60)))


def octets(dice: random.Random, value: str) -> bytes:
    """As some program or other would write it on the wire."""
    how = dice.random()
    if how < 0.1:
        return value.encode("utf-8", "surrogatepass")
    if how < 0.15:
        return value.encode("latin-1", "replace")
    return quote(value, safe="" if how < 0.6 else "/", errors="surrogatepass").encode()


def value(dice: random.Random) -> Any:
    return dice.choice(VALUES) if dice.random() < 0.5 else text(dice)


def damaged(dice: random.Random, data: bytes) -> bytes:
    """With some bytes changed, doubled, inserted or cut off."""
    out = bytearray(data)
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(out) + 1)
        match dice.randrange(4):
            case 0:
                out[at:at] = bytes([dice.randrange(256)])
            case 1:
                del out[at : at + dice.randrange(1, 9)]
            case 2:
                out[at : at + 1] = bytes([dice.randrange(256)])
            case _:
                out[at:at] = out[max(0, at - dice.randrange(1, 40)) : at]
    return bytes(out)


def body(dice: random.Random, fields: dict[str, Any]) -> bytes:
    """A JSON object of ``fields``, with some of them replaced, left out, doubled; or none at all."""
    if dice.random() < 0.2:
        return dice.choice(BODIES)
    mine = {name: value(dice) if dice.random() < 0.25 else one for name, one in fields.items() if dice.random() < 0.9}
    if dice.random() < 0.2:
        mine[text(dice)] = value(dice)
    written = json.dumps(mine, ensure_ascii=dice.random() < 0.8).encode("utf-8", "surrogatepass")
    if dice.random() < 0.1 and mine:
        name = dice.choice(list(mine))
        written = written[:-1] + b", " + json.dumps({name: value(dice)})[1:].encode()
    return damaged(dice, written) if dice.random() < 0.15 else written
