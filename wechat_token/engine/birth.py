"""The life of a value that its issuer repeats (R23, W17): how long to believe it, and when to ask again. Pure.

Such an issuer answers with the same value until that one's time is over, and tells the full life each time. So an
answer proves that the value lives *now*, nothing more. What is known beside that:

* It was not born before the issuer last answered with another one (``born_after``), so it lives until
  ``born_after`` + its life at least: for so long it is good.
* It was born when we first got it at the latest, so by that time + its life it is dead, if its life is what was told.
  Between these two moments it may die at any time: it is good for moments after each answer, and never beyond that
  end. Near the end the answers are asked for in quick succession, because whoever asks first after it makes the
  issuer bring forth the next one.
* Beyond that end it lives longer than was told, by rules of the issuer's own. It goes on being good for moments after
  each answer, for half a minute at first and for five minutes later.

An issuer that tells what is left says less each time: that is believed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from .schedule import Fields, calls_today, next_beijing_midnight, seconds

if TYPE_CHECKING:
    from ..models import Token

CLOSELY: Final = 30.0  # seconds for which an answer is believed while the value may die at any time
QUICKLY: Final = 0.5  # the same just after the end of what was told
CLOSELY_FOR: Final = 600.0  # seconds beyond that end
SLOWLY: Final = 300.0  # from then on
AHEAD: Final = 5.0  # seconds before the end of a belief at which the issuer is asked again: a tick of beat
CALLS_A_DAY: Final = 320  # for a value that never changes, or for two in turn
SHARE_IN_DOUBT: Final = 0.5  # of the daily limit, for one that may die at any time
SPREAD_LAST: Final = 32  # of these, once no more than so many are left


class Belief(NamedTuple):
    """``good_until``: until when the value counts as good; ``due_at``: when to ask again."""

    good_until: dt.datetime
    due_at: dt.datetime


def answered(
    token: Token, *, same: bool, digest: str, life: int, now: dt.datetime, endpoint: str, chance: float,
    daily_limit: int, is_ours: bool = True,
) -> Fields:  # fmt: skip
    """What to write about the answer to the request of ``token.sent_at``.

    ``same``: it has the value that the row holds. ``digest``: of the value in the answer, see :func:`digest_of`.
    ``life``: what the answer tells, in seconds. ``endpoint``: the name under which the calls are counted.
    ``is_ours``: whether the row holds a value that can be read and was issued to this account. Else the answers that it
    remembers may have been another account's, or with this very value.
    """
    sent_at, comes_back = token.sent_at or now, False
    fields: Fields = {"answered_at": sent_at}
    if same and token.life:
        first_at, told, born_after = token.issued_at or sent_at, token.life, token.born_after
    else:
        # One that comes back has been there before: what was answered in between tells nothing about its birth.
        comes_back = digest == token.former_digest
        knows = is_ours and not comes_back
        first_at, told, born_after = sent_at, life, token.answered_at if knows else None
        fields |= {"life": life, "born_after": born_after}
    if life < told:
        certain_until = ends_at = sent_at + seconds(life)  # a rest, not a life
    else:
        certain_until = sent_at if born_after is None else min(born_after, sent_at) + seconds(told)
        ends_at = first_at + seconds(told)
    in_doubt = not comes_back and sent_at < ends_at + seconds(CLOSELY_FOR)
    spare = max(CALLS_A_DAY, int(daily_limit * SHARE_IN_DOUBT)) if in_doubt else CALLS_A_DAY
    left = spare - calls_today(token, endpoint, now)
    belief = believed(sent_at, certain_until, ends_at, pause=pause(left, now), chance=chance)
    good_until = min(belief.good_until, sent_at + seconds(life))
    return fields | {"expires_at": good_until, "due_at": max(min(belief.due_at, good_until), now)}


def believed(
    sent_at: dt.datetime, certain_until: dt.datetime, ends_at: dt.datetime, *, pause: float, chance: float
) -> Belief:
    """How long an answer to a request of ``sent_at`` counts.

    ``certain_until``, ``ends_at``: the earliest and the latest moment of the value's death, as far as its life is what
    was told. ``pause``: seconds for which no call is to spare.
    """
    if sent_at < certain_until - seconds(3 * AHEAD):
        return Belief(certain_until, certain_until - seconds(AHEAD * (1 + chance)))
    beyond = (sent_at - ends_at).total_seconds()
    if -CLOSELY < beyond < 0:
        end = max(ends_at, sent_at + seconds(QUICKLY))
        return Belief(end, end)  # asked sooner, the issuer would only repeat itself
    if beyond < 0:
        step = CLOSELY
    elif beyond < CLOSELY_FOR:
        step = min(CLOSELY, max(beyond, QUICKLY))
    else:
        step = SLOWLY
    good_until = max(sent_at + seconds(max(step, pause)), certain_until)
    return Belief(good_until, good_until - seconds(min(AHEAD * (0.5 + chance / 2), step / 4)))


def pause(left: int, now: dt.datetime) -> float:
    """Seconds to wait, so that the last calls of the day are spread evenly over it; 0 while there are more."""
    return 0.0 if left > SPREAD_LAST else (next_beijing_midnight(now) - now).total_seconds() / max(left, 1)


def digest_of(value: str) -> str:
    """Enough of a value to recognise it by. The values are long and random: the digest tells nothing about them."""
    return hashlib.sha256(value.encode()).hexdigest()
