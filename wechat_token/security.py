"""Security events: who was given, shown or refused what, and what looks like tampering (S9).

Each is one line on the logger ``wechat_token.security`` and one :data:`signals.security_event`. Tokens and client keys
appear as fingerprints (:func:`wechat_token.engine.fingerprint`), never themselves. Names and fields are documented in
``docs/secrecy.md``; what is there keeps its name.

This module stands below everything that can have something to tell, the decryption of fields included.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from . import clock, process, signals
from .redaction import one_line
from .throttle import Throttle

logger = logging.getLogger("wechat_token.security")

# Nothing wrong by itself; all else is a warning.
_ORDINARY: Final = frozenset({"key_revoked", "token_read"})
# What a stranger can cause as often as he likes, and the field that tells one cause from another.
_LIMITED: Final = {"account_refused": "key", "key_refused": "key", "login_failed": "address", "encryption_unfit": ""}
PER_MINUTE: Final = 10  # lines of one cause in each process
ALTOGETHER: Final = 100  # lines of one event

_counts: Throttle
process.keep(globals(), _counts=Throttle)

_deliver: Callable[[Callable[[], Any]], Any] = lambda work: work()  # noqa: E731  replaced by deliver_by()


def deliver_by(deliver: Callable[[Callable[[], Any]], Any]) -> None:
    """How receivers of the signal are reached: not on the thread that met the event, which they could hold up (R33)."""
    global _deliver
    _deliver = deliver


def event(name: str, /, **fields: object) -> None:
    """Log an event and tell the receivers. Empty fields are left out; nothing here raises.

    What strangers can cause is logged 10 times a minute for each cause and 100 times altogether; ``left_out`` then says
    how many came in the minute before and were not.
    """
    told = {field: _told(value) for field, value in fields.items() if value not in (None, "")}
    if name in _LIMITED:
        number, left_out = _count(name, told.get(_LIMITED[name], ""))
        if number > PER_MINUTE:
            return
        if left_out:
            told["left_out"] = str(left_out)
    line = " ".join(f"{field}={_quoted(value)}" for field, value in {"event": name, **told}.items())
    level = logging.INFO if name in _ORDINARY else logging.WARNING
    logger.log(level, "%s", line, extra={"event": name, "fields": told})
    _deliver(partial(signals.security_event.send_robust, None, name=name, fields=told))


def _count(name: str, cause: str) -> tuple[int, int]:
    """The how-manieth of this cause in its minute, and how many of the minute before were left out."""
    now = clock.monotonic()
    own, all_of_them = _counts.hit((name, cause), now), _counts.hit(name, now)
    number = own.number if all_of_them.number <= ALTOGETHER else PER_MINUTE + 1
    return number, max(own.before - PER_MINUTE, 0)


def _told(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case dt.datetime():
            return value.isoformat(timespec="seconds")
        case str():
            return one_line(value)
        case Iterable():
            return ",".join(sorted(map(one_line, value)))
    return one_line(value)


_PLAIN: Final = re.compile(r"[^\s\"=\\]+")


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'
