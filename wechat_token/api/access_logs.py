"""Keeps keys and tokens out of access logs: ``GET cgi-bin/token`` has a client key in its URL, ``getticket`` a token,
as WeChat's own calls have (S2).

For what Python servers write through :mod:`logging`. What stands in front of them (nginx, uWSGI, a load balancer)
writes its own; ``docs/secrecy.md`` has the lines that make it leave the query out.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from ..client_keys.keys import CHECKSUM_LENGTH, MARK, RANDOM_LENGTH, SHOWN_LENGTH
from ..redaction import MASK

# Beside the access logs those where servers complain of requests they cannot read, quoting them.
LOGGERS: Final = (
    "django.server", "gunicorn.access", "gunicorn.error", "uvicorn.access", "uvicorn.error", "hypercorn.access",
    "hypercorn.error",
)  # fmt: skip


def _spelled(text: str) -> str:
    """A pattern for ``text`` with any of its characters percent-encoded, which Django reads alike."""
    return "".join(rf"(?:{re.escape(char)}|{_encoded(f'{ord(char):02x}')})" for char in text)


def _encoded(digits: str) -> str:
    return rf"%(?:25)*{digits}"  # a proxy may encode what is encoded


_DIGIT: Final = rf"(?:[0-9a-z]|{_encoded('[3-7][0-9a-f]')})"
# Servers write header names in capitals, and cut lines short: what is most of a key is as good as one.
_KEY = re.compile(
    rf"({_spelled(MARK)}{_DIGIT}{{{SHOWN_LENGTH}}}){_DIGIT}{{8,{RANDOM_LENGTH + CHECKSUM_LENGTH - SHOWN_LENGTH}}}",
    re.IGNORECASE,
)
# Whatever was sent in its place: an SDK that was not given its key yet still sends the AppSecret.
_OUR_CALL = re.compile(
    rf"{_spelled('cgi-bin/token')}\b|{_spelled('cgi-bin/ticket/getticket')}\b|\b"
    rf"{_spelled('grant_type')}={_spelled('client_credential')}\b",
    re.IGNORECASE,
)
_PARAMETER = re.compile(
    rf"((?<![0-9A-Za-z_])(?:{_spelled('secret')}|{_spelled('access_token')})=)[^&\s\"']*", re.IGNORECASE
)
# spares nearly every line the rest
_SUSPECT = re.compile(rf"%|{MARK}|secret=|access_token=|authorization", re.IGNORECASE)
_HEADER = re.compile(r"\bauthorization\b", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(\bbearer[\s:]+)[^\s\"']+", re.IGNORECASE)


def masked(line: str) -> str:
    """``line`` without a key, but for the first characters, by which the admin names it."""
    if not _SUSPECT.search(line):
        return line
    line = _KEY.sub(rf"\1{MASK}", line)
    if _OUR_CALL.search(line):
        line = _PARAMETER.sub(_mask_value, line)
    if _HEADER.search(line):
        line = _CREDENTIALS.sub(_mask_value, line)
    return line


def _mask_value(found: re.Match[str]) -> str:
    return found[0] if found[0].endswith(MASK) else found[1] + MASK


class KeyFilter(logging.Filter):
    """Masks keys in the arguments of a record, which formatters of access logs read one by one, and in its error."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = _masked_value(record.msg)
        if isinstance(record.args, dict):  # gunicorn's atoms: a dict of its own making, kept as it is
            for name, value in list(record.args.items()):
                record.args[name] = _masked_value(value)
        elif isinstance(record.args, tuple):
            record.args = tuple(map(_masked_value, record.args))
        if record.exc_info:
            text = logging.Formatter().formatException(record.exc_info)
            if masked(text) != text:  # without the error itself, which other handlers would format anew
                record.exc_text, record.exc_info = masked(text), None
        return True


def _masked_value(value: object) -> object:
    """The value itself if there is nothing to mask: a number, an error that quotes no key."""
    text = str(value)
    shown = masked(text)
    return value if shown == text else shown


_filter = KeyFilter()


def connect() -> None:
    """A site's own logging configuration leaves filters of loggers alone."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_filter)
