"""The decisions about complaints (R8, R33), pure as all of :mod:`schedule`: who may make one, and what it costs."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from .schedule import Fields, seconds

if TYPE_CHECKING:
    from ..models import Token

VERDICT_SECONDS: Final = 2.0  # how long "WeChat accepts this token" answers further complaints
UNDECIDED_SECONDS: Final = 5.0  # how long WeChat is left alone when it did not tell
REPEATED_SECONDS: Final = 60.0  # the same where a repeated value came back: WeChat still hands it out
# A complaint costs one probe call, and one that proves true costs its sender nothing (R33). A false one is charged to
# the client that made it, whose allowance refills by one in 20 minutes: complaining without pause it causes at most
# 82 calls a day, and nobody else notices.
COMPLAINT_BURST: Final = 10.0
COMPLAINT_REFILL: Final = 1 / 1200
CLIENTS_REMEMBERED: Final = 50  # with a charge on their allowance; the longest quiet are forgiven first
REFUSED_IS_NEWS: Final = 600.0  # seconds for which a refused complaint is part of the token's state
REFUSED_GAP: Final = 60.0  # between writes of the time of the latest refusal


def complaint_allowance(token: Token, client: str, now: dt.datetime) -> float:
    """How many false complaints this client may still make now."""
    charged = _charges(token).get(client)
    if charged is None:
        return COMPLAINT_BURST
    left, since = charged
    return min(COMPLAINT_BURST, left + max(now.timestamp() - since, 0.0) * COMPLAINT_REFILL)


def next_complaint_at(token: Token, client: str, now: dt.datetime) -> dt.datetime:
    missing = max(1.0 - complaint_allowance(token, client, now), 0.0)
    return now + seconds(missing / COMPLAINT_REFILL)


def is_judged(token: Token, now: dt.datetime, *, repeats: bool = False) -> bool:
    """Whether WeChat was asked about the stored token just now and did not refuse it: no need to ask again.

    ``repeats``: whether its issuer repeats it (R23).
    """
    longest = REPEATED_SECONDS if repeats else UNDECIDED_SECONDS
    return (
        token.probe_after is not None
        and token.rejected_version != token.version
        and now < token.probe_after <= now + seconds(2 * longest)  # hosts' clocks differ a little
    )


def accepted(token: Token, client: str, now: dt.datetime) -> Fields:
    """WeChat accepts the token complained about: the complaint was false, and its sender pays (R33)."""
    charges = {name: charge for name, charge in _charges(token).items() if complaint_allowance(token, name, now) < 9.5}
    charges[client] = [complaint_allowance(token, client, now) - 1, now.timestamp()]
    latest = sorted(charges, key=lambda name: charges[name][1])[-CLIENTS_REMEMBERED:]
    return {
        "complaints": {name: charges[name] for name in latest},
        "probe_after": now + seconds(VERDICT_SECONDS),
    }


def repeated(token: Token, client: str, now: dt.datetime) -> Fields:
    """Asked because of a complaint, the issuer gave the same value again (R23). No probe could tell more, so this is
    the answer for a while, and the complaint is charged as a false one: it cost a call.
    """
    return accepted(token, client, now) | {"probe_after": now + seconds(REPEATED_SECONDS)}


def undecided(now: dt.datetime) -> Fields:
    """WeChat did not tell: that changes nothing (R29), but it is not asked again at once."""
    return {"probe_after": now + seconds(UNDECIDED_SECONDS)}


def refused(token: Token, now: dt.datetime) -> Fields:
    """A client's allowance is used up; what to write so that operators hear of it, nothing if they have."""
    at = token.complaints_refused_at
    return {} if at is not None and at <= now < at + seconds(REFUSED_GAP) else {"complaints_refused_at": now}


def refuses_complaints(token: Token, now: dt.datetime) -> bool:
    """Whether somebody's complaints about this token were refused lately."""
    at = token.complaints_refused_at
    return at is not None and now - at < seconds(REFUSED_IS_NEWS)


def _charges(token: Token) -> dict[str, list[float]]:
    """``complaints`` as far as it makes sense: somebody may have edited the row."""
    kept = token.complaints if isinstance(token.complaints, dict) else {}
    return {
        name: charge
        for name, charge in kept.items()
        if isinstance(charge, list) and len(charge) == 2 and all(isinstance(part, int | float) for part in charge)
    }
