"""Where a request comes from, and how networks are written down (S3)."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.http import HttpRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_BETWEEN = re.compile(r"[\s,]+")
_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]+)\](?::\d+)?|(?P<v4>[\d.]+):\d+")
IPV6_SITE_BITS = 64  # the smallest block one IPv6 customer holds


def parse_networks(text: str) -> tuple[Network, ...]:
    """The addresses and CIDR networks in ``text``. Raises ``ValueError`` for all else, host bits included."""
    return tuple(ipaddress.ip_network(part) for part in _BETWEEN.split(text.strip()) if part)


def networks_of(text: str) -> tuple[Network, ...] | None:
    """None: no restriction. One that cannot be read, because it was written past the form, admits nobody: ()."""
    if not text.strip():
        return None
    try:
        return parse_networks(text)
    except ValueError:
        return ()


def validate_networks(text: str) -> None:
    """Raises ``ValidationError`` with an error for each part that :func:`parse_networks` cannot take."""
    errors = [
        _objection(number, part)
        for number, line in enumerate(text.splitlines(), 1)
        for part in filter(None, _BETWEEN.split(line))
        if not _is_network(part)
    ]
    if errors:
        raise ValidationError(errors)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _objection(number: int, text: str) -> ValidationError:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return ValidationError(
            _("Line %(line)d: “%(text)s” is neither an IP address nor a network such as 10.0.0.0/24."),
            params={"line": number, "text": text[:50]},
        )
    return ValidationError(
        _("Line %(line)d: %(text)s lies inside a network. Write %(network)s for all of it, or the address alone."),
        params={"line": number, "text": text, "network": str(network)},
    )


def parse_address(text: str) -> Address | None:
    """An address as headers write it, with or without a port; ``::ffff:192.0.2.1`` is an IPv4 address."""
    text = text.strip()
    if match := _WITH_PORT.fullmatch(text):
        text = match["v6"] or match["v4"]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address


def client_address(request: HttpRequest, trusted_proxies: int) -> Address | None:
    """Who called the outermost of our own proxies; None if that cannot be told (a unix socket, nonsense).

    Each proxy appends the address it was called from to ``X-Forwarded-For``; what stands left of our own
    proxies' entries was written by the client and is worth nothing. A shorter chain came past a proxy: then
    only the connection itself is believed.
    """
    peer: str = request.META.get("REMOTE_ADDR", "")
    if trusted_proxies < 1:
        return parse_address(peer)
    chain = [part for part in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if part.strip()]
    return parse_address(chain[-trusted_proxies] if len(chain) >= trusted_proxies else peer)


def neighbourhood(address: Address | None) -> str:
    """What failed attempts are counted by: an IPv4 address, or the block that one IPv6 customer holds."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, IPV6_SITE_BITS), strict=False))
    return "unknown" if address is None else str(address)
