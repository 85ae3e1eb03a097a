"""Keeps client keys out of access logs: ``GET cgi-bin/token`` has one in its URL, as WeChat's own call has (S2).

For what Python servers write through :mod:`logging`. What stands in front of them (nginx, uWSGI, a load balancer)
writes its own; ``docs/secrecy.md`` has the lines that make it leave the query out.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from ..client_keys.keys import CHECKSUM_LENGTH, MARK, RANDOM_LENGTH, SHOWN_LENGTH
from ..redaction import MASK

LOGGERS: Final = ("django.server", "gunicorn.access", "uvicorn.access", "hypercorn.access")

_KEY = re.compile(
    rf"({MARK}[0-9A-Za-z]{{{SHOWN_LENGTH}}})[0-9A-Za-z]{{{RANDOM_LENGTH + CHECKSUM_LENGTH - SHOWN_LENGTH}}}"
)
# Whatever was sent in its place: an SDK that was not given its key yet still sends the AppSecret.
_OUR_CALL = re.compile(r"cgi-bin/token\b|\bgrant_type=client_credential\b")
_PARAMETER = re.compile(r"(\bsecret=)[^&\s\"']*")


def masked(line: str) -> str:
    """``line`` without a key, but for the first characters, by which the admin names it."""
    line = _KEY.sub(rf"\1{MASK}", line)
    if _OUR_CALL.search(line):
        line = _PARAMETER.sub(_mask_parameter, line)
    return line


def _mask_parameter(found: re.Match[str]) -> str:
    return found[0] if found[0].endswith(MASK) else found[1] + MASK


class KeyFilter(logging.Filter):
    """Masks keys in the arguments of a record, which formatters of access logs read one by one."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = _masked_value(record.msg)
        if isinstance(record.args, dict):  # gunicorn's atoms: a dict of its own making, kept as it is
            for name, value in list(record.args.items()):
                record.args[name] = _masked_value(value)
        elif isinstance(record.args, tuple):
            record.args = tuple(map(_masked_value, record.args))
        return True


def _masked_value(value: object) -> object:
    return masked(value) if isinstance(value, str) else value


_filter = KeyFilter()


def connect() -> None:
    """A site's own logging configuration leaves filters of loggers alone."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_filter)
