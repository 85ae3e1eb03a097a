"""JS domains (JS接口安全域名): the hosts whose pages WeChat lets use the JS-SDK, as operators enter them."""

from __future__ import annotations

import re
from typing import Final

import idna
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"(?=.{{4,253}}\Z){_LABEL}(?:\.{_LABEL})*\.(?!\d+\Z){_LABEL}")


def normalised(text: str) -> str:
    """One host a line, as browsers write it: lower case, in Punycode. Raises ``ValidationError`` with the line."""
    hosts: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if entry:
            host = _host(entry)
            if not host:
                raise ValidationError(_objection(number, entry))
            hosts.append(host)
    return "\n".join(dict.fromkeys(hosts))


def parse(text: str) -> frozenset[str]:
    """The hosts of a stored list. A line that is none, written past the form, admits nobody."""
    return frozenset(filter(None, (_host(line.strip()) for line in text.splitlines())))


def _host(entry: str) -> str:
    try:
        host = idna.encode(entry, uts46=True).decode() if not entry.isascii() else entry.lower()
    except idna.IDNAError:
        return ""
    return host if _HOST.fullmatch(host) else ""


def _objection(number: int, entry: str) -> str:
    where = {"number": number, "entry": entry[:100]}
    if "://" in entry or "/" in entry:
        return _("Line %(number)d: %(entry)s. The host alone: without https:// and without a path.") % where
    if "*" in entry:
        return _("Line %(number)d: %(entry)s. WeChat knows no wildcards: enter each host.") % where
    if ":" in entry:
        return _("Line %(number)d: %(entry)s. WeChat takes no ports: the page has to be at 80 or 443.") % where
    return _("Line %(number)d: %(entry)s is not the name of a host, such as shop.example.com.") % where
