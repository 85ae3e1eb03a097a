"""Who is asking: a client key, presented where it belongs and from where it may be used (S3).

All that is wrong with a key looks alike from outside, so that somebody who found one learns nothing about it.
The log says more. Failed attempts are counted per address; valid keys behind the same address are never held
up by them.
"""

from __future__ import annotations

import enum
import logging
import re
from typing import Final, NamedTuple

from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from .. import clock, process, security
from ..client_keys import keyring, keys, usage
from ..client_keys.keyring import Grant
from ..client_keys.networks import Address, client_address, neighbourhood
from ..client_keys.usage import Asked
from ..conf import get_settings
from ..engine import holder
from ..redaction import Secret
from ..throttle import Throttle
from .refusals import INVALID_KEY, INVALID_TOKEN, TOO_MANY_FAILURES, Problem, Refusal

logger = logging.getLogger("wechat_token.access")


class Way(enum.Enum):
    """How a key is presented: the REST calls have it in a header, WeChat's dialect in the URL or the body."""

    HEADER = enum.auto()
    URL = enum.auto()
    BODY = enum.auto()


class Asker(NamedTuple):
    """A valid key, and from where and how it was presented."""

    grant: Grant
    address: Address | None
    way: Way

    def tally(self, appid: str, asked: Asked) -> None:
        """Count a request, under the account if it is one of this key's."""
        if self.way is Way.URL:
            asked = asked._replace(by_url=1)
        elif self.way is Way.BODY:
            asked = asked._replace(by_body=1)
        usage.count(self.grant.key_id, appid, asked)


NO_KEY: Final = Secret("")
READ, COMPLAINED, REFUSED = Asked(reads=1), Asked(complaints=1), Asked(refusals=1)

GUESSES: Final = 10  # times the failures of an address that are told 429, after which no token of its is looked up
_TOKEN: Final = re.compile(r"[\x21-\x7e]{16,2048}")

_failures: Throttle
process.keep(globals(), _failures=Throttle)


@sensitive_variables()
def bearer(request: HttpRequest) -> Secret:
    """The key of the ``Authorization`` header, the only place for it in the REST dialect."""
    scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    return Secret(credentials.strip()) if scheme.lower() == "bearer" else NO_KEY


def authenticate(request: HttpRequest, presented: Secret, way: Way = Way.HEADER) -> Asker:
    """Who presents this key. Raises ``Refusal``: 401, or 429 for an address that keeps failing."""
    address = client_address(request, get_settings().trusted_proxies)
    grant = keyring.find(presented.reveal())
    if grant is None:
        raise _failed(address, _described(presented), guess=bool(presented))
    asker = Asker(grant, address, way)
    if not grant.admits(address):
        asker.tally("", REFUSED)
        security.event(
            "key_refused", key=grant.prefix, name=grant.name, address=address, key_fingerprint=grant.fingerprint
        )
        raise _failed(address, f"{grant.prefix}… ({grant.name}), outside its networks")
    return asker


@sensitive_variables()
def token_holder(request: HttpRequest, token: Secret) -> str:
    """The ref of the account whose access_token was presented. Raises ``Refusal`` as :func:`authenticate`: a token that
    is dead, unknown or of an inactive account is refused alike, and trying them out is throttled.
    """
    address = client_address(request, get_settings().trusted_proxies)
    failures = _failures.seen((neighbourhood(address), True), clock.monotonic())
    # A key is found in memory, a token costs the database a look: not for somebody who goes on and on.
    worth_a_look = _TOKEN.fullmatch(token.reveal()) and failures < GUESSES * get_settings().failures_per_minute
    ref = holder(token) if worth_a_look else None
    if ref is None:
        raise _failed(address, "(a token)", guess=bool(token), problem=INVALID_TOKEN)
    return ref


def _failed(address: Address | None, what: str, *, guess: bool = True, problem: Problem = INVALID_KEY) -> Refusal:
    """A request without any key is no guess: it is logged like one, but never costs the address a 429."""
    count = _failures.hit((neighbourhood(address), guess), clock.monotonic())
    if count.number == 1:  # once a minute, however many there are
        logger.warning(
            "Refused client key %s from %s. Attempts from there in the minute before: %d.",
            what, address or "an unknown address", count.before,
        )  # fmt: skip
    if guess and count.number > get_settings().failures_per_minute:
        return Refusal(TOO_MANY_FAILURES, count.seconds_left)
    return Refusal(problem)


@sensitive_variables()
def _described(presented: Secret) -> str:
    """A key for the log. What is no key may be anything, an AppSecret for example, and is not shown."""
    text = presented.reveal()
    if not text:
        return "(none)"
    return f"{keys.shown(text)}…" if keys.is_well_formed(text) else "(malformed)"
