"""What a refresh is asked for and what becomes of it: the words that :mod:`refresh` and those who wait for it share."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass, field
from typing import NamedTuple

from ..exceptions import UpstreamError
from ..models import Token
from ..redaction import Secret
from .served import Entry


class Status(enum.Enum):
    RENEWED = "renewed"  # a new token is stored
    UNCHANGED = "unchanged"  # WeChat returned the token we hold; its times are stored
    CURRENT = "current"  # no call: not due, or the complaint named a token that is no longer current
    ACCEPTED = "accepted"  # complaint refused: WeChat still accepts the token
    UNDECIDED = "undecided"  # WeChat did not tell whether it accepts the token: nothing was changed (R29)
    BUSY = "busy"  # somebody else is at it
    LIMITED = "limited"  # no call: a guard holds it back
    WAITING = "waiting"  # no call: what it needs cannot be had (R22)
    FAILED = "failed"
    SUPERSEDED = "superseded"  # our answer came too late to be stored


class Held(NamedTuple):
    """A need that cannot be had now. ``root``: the credential that is waited for in the end, by ref and kind;
    ``outcome``: what became of its refresh, if that is known; else ``doing`` says what it is at.
    """

    root: str
    outcome: Outcome | None = None
    doing: str = ""

    @property
    def until(self) -> dt.datetime | None:
        """When the need is tried again, if that is known."""
        if self.outcome is None:
            return None
        return self.outcome.until or self.outcome.token.due_at


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a refresh did, the row afterwards, and what can be served of it. ``until``: when to ask again, if known.
    ``held``: the need it waits for.
    """

    status: Status
    token: Token
    entry: Entry | None = None
    until: dt.datetime | None = None
    error: UpstreamError | None = None
    held: Held | None = None


@dataclass(frozen=True, slots=True)
class Complaint:
    """``stale``: the token that was refused (R8). Two about the same token are one.

    ``client``: who complains, for the record; ``payer``: whose allowance it is charged to if it is false (R33).
    """

    stale: Secret
    client: str = field(compare=False, default="")
    payer: str = field(compare=False, default="")


def may_try_again(outcome: Outcome, about: object) -> bool:
    """Whether a reader without a token should start a flight of its own: the one it joined was about something else,
    another process was at it, or what it found is no longer good.
    """
    if outcome.status is Status.LIMITED:
        return about is not None
    was_good = outcome.status is Status.CURRENT and outcome.entry is not None
    return was_good or outcome.status in (Status.BUSY, Status.SUPERSEDED)


def name_of(token: Token) -> str:
    """How a credential is named where another one waits for it (``Token.waits_for``)."""
    return f"{token.account.ref} {token.kind}"
