"""WeChat's two signatures (docs/design.md W21, W22), pure functions of what goes into them, and which URLs can be."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from django.utils.translation import gettext as _

from ..exceptions import URLNotSignable
from ..redaction import Secret

LONGEST_URL: Final = 8192  # characters; no browser in WeChat has been seen to open a longer one

# Blanks and control characters: no browser has them in an address, so it was not a browser this one came from.
_UNSEEN: Final = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")
_WEB: Final = re.compile(r"https?://[^/?#]")

# The authority of a page's URL, as browsers write it: lower case, no name before "@", no port, nothing encoded. What
# comes next must end it for every reader: a backslash is a slash to browsers and part of a name to others.
_PAGE: Final = re.compile(r"(https?)://([a-z0-9.-]+)(?=[/?#]|\Z)")
_ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+)")


def page_url(url: str) -> str:
    """``url`` as WeChat signs it: cut at ``#``, otherwise as it is; nothing is decoded, encoded, sorted or lower-cased.

    Raises ``URLNotSignable`` for what no page in WeChat can have as its address.
    """
    cut = url.partition("#")[0]
    if not _WEB.match(cut):
        raise URLNotSignable(_("The URL of a page begins with http:// or https:// and a host."))
    if len(cut) > LONGEST_URL:
        raise URLNotSignable(_("The URL is longer than %d characters.") % LONGEST_URL)
    if _UNSEEN.search(cut):
        raise URLNotSignable(_("The URL has a blank inside, as no browser writes it. Take it from location.href."))
    return cut


def host_of(url: str) -> str:
    """The host of a page's URL; '' for whatever a browser would not write in this way, a port included."""
    found = _PAGE.match(url)
    return found[2] if found else ""


def host_of_origin(origin: str) -> str:
    """The host of an ``Origin`` header; '' for ``null``, other schemes and ports."""
    found = _ORIGIN.fullmatch(origin)
    return found[1] if found else ""


def sign_page(ticket: Secret, url: str, nonce: str, timestamp: int) -> str:
    """The signature of ``wx.config``. ``url``: as :func:`page_url` leaves it; ``timestamp``: seconds since 1970."""
    end = f"&noncestr={nonce}&timestamp={timestamp}&url={url}"
    # WeChat's choice of hash; no question of security on a host whose OpenSSL forbids it for that.
    return hashlib.sha1(f"jsapi_ticket={ticket.reveal()}{end}".encode(), usedforsecurity=False).hexdigest()


def sign_values(ticket: Secret, *values: str) -> str:
    """The signature of a card (卡券): the values alone, without names, sorted as strings; empty ones do not count."""
    # In one expression: tracebacks show locals (S2).
    return hashlib.sha1(
        "".join(sorted(filter(None, (ticket.reveal(), *values)))).encode(), usedforsecurity=False
    ).hexdigest()
