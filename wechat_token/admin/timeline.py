"""What became of one credential in the last 48 hours, laid out for an SVG. Pure but for the language (R19).

Everything is placed in per cent of the width, so that the picture fits a phone and a wide screen without a script.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from django.utils.text import capfirst
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..diagnosis.states import duration
from ..engine import Reason
from ..exceptions import ErrorClass
from ..models import ACCESS_TOKEN, RefreshLog
from ..platforms import meaning
from . import words

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

    from ..models import Token

SPAN: Final = dt.timedelta(hours=48)
BEFORE: Final = dt.timedelta(hours=3)  # the renewal that the token in use at the left edge came from
USUAL_LIFE: Final = dt.timedelta(hours=2)
BUCKET: Final = dt.timedelta(minutes=10)  # what lies closer together is one mark with a number
AXIS_EVERY: Final = 12  # hours

# Pixels.
TOP: Final = 4
LANE: Final = 40
MIDDLE: Final = 26  # of a lane, below its name
BAR: Final = 12
AXIS: Final = 22

CLASSES: Final[dict[ErrorClass, _StrOrPromise]] = {
    ErrorClass.TRANSIENT: gettext_lazy("failures: no answer, or WeChat busy"),
    ErrorClass.QUOTA: gettext_lazy("failures: a limit of calls"),
    ErrorClass.HUMAN: gettext_lazy("failures: somebody has to act"),
    ErrorClass.UNKNOWN: gettext_lazy("failures: unknown errcode"),
}
_FAILED: Final = frozenset({RefreshLog.Outcome.FAILED, RefreshLog.Outcome.LOST, RefreshLog.Outcome.LIMITED})
_GOOD: Final = frozenset({RefreshLog.Outcome.RENEWED, RefreshLog.Outcome.UNCHANGED})


@dataclass(frozen=True, slots=True)
class Bar:
    """From ``x`` on ``width`` of the picture; ``css``: ``life``, ``life-2`` or ``gap``."""

    x: str
    width: str
    css: str
    title: str


@dataclass(frozen=True, slots=True)
class Mark:
    x: str
    css: str
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """``y``: of its name, ``middle``: of its marks, ``top``: of its bars; pixels."""

    name: str
    y: int
    middle: int
    top: int
    bars: Sequence[Bar] = ()
    marks: Sequence[Mark] = ()


@dataclass(frozen=True, slots=True)
class Tick:
    x: str
    label: str


@dataclass(frozen=True, slots=True)
class Timeline:
    lanes: list[Lane]
    ticks: list[Tick]
    height: int
    summary: str  # the same in words

    bar_height = BAR

    @property
    def floor(self) -> int:
        return self.height - AXIS

    @property
    def label_y(self) -> int:
        return self.height - 6


def timeline(token: Token, rows: Iterable[RefreshLog], now: dt.datetime, usable_until: dt.datetime | None) -> Timeline:
    """``rows``: the log of this credential since ``now - SPAN - BEFORE``, in any order."""
    log = sorted((row for row in rows if row.at <= now), key=lambda row: row.at)
    start = now - SPAN
    lives, lost = _lives(token, log, now, usable_until)
    seen = [row for row in log if row.at >= start]
    renewals = [row for row in seen if row.outcome in _GOOD]
    failures = {cls: [row for row in seen if row.outcome in _FAILED and _class(row) is cls] for cls in CLASSES}
    complaints = [row for row in seen if row.reason == Reason.COMPLAINT]
    foreign = [token.foreign_at] if token.foreign_at is not None and start <= token.foreign_at <= now else []

    in_hand = _("token in hand") if token.kind == ACCESS_TOKEN else str(words.kind(token))
    content: list[tuple[str, Sequence[Bar], Sequence[Mark]]] = [
        (in_hand, [_bar(*life, start) for life in lives if life[1] > start], ()),
        (_("renewals"), (), _marks(renewals, "renewal", start)),
    ]
    content += [(str(CLASSES[cls]), (), _marks(found, cls.value, start)) for cls, found in failures.items() if found]
    if complaints:
        content.append((_("complaints"), (), _marks(complaints, "complaint", start)))
    if foreign:
        seen_at = [Mark(_x(at, start), "foreign", f"{_clock(at)} {_('Used by another system.')}") for at in foreign]
        content.append((_("refreshes by another system"), (), seen_at))

    lanes = []
    for number, (name, bars, marks) in enumerate(content):
        y = TOP + number * LANE
        lanes.append(Lane(str(capfirst(name)), y + 12, y + MIDDLE, y + MIDDLE - BAR // 2, bars, marks))
    summary = _summary(renewals, failures, complaints, foreign, lost)
    return Timeline(lanes, _ticks(start, now), TOP + len(lanes) * LANE + AXIS, summary)


# -- lives -----------------------------------------------------------------------------------------

_Life = tuple[dt.datetime, dt.datetime, str]


def _lives(
    token: Token, log: list[RefreshLog], now: dt.datetime, usable_until: dt.datetime | None
) -> tuple[list[_Life], dt.timedelta]:
    """The tokens one after another, the times without one between them, and how long these were in the last 48 hours.

    The log tells when a token came; how long it could live is taken from the one in hand.
    """
    life = USUAL_LIFE
    if token.issued_at is not None and token.expires_at is not None and token.expires_at > token.issued_at:
        life = token.expires_at - token.issued_at
    births = [row.at for row in log if row.outcome == RefreshLog.Outcome.RENEWED]
    if not births and token.version and token.issued_at is not None:
        births = [token.issued_at]
    found: list[_Life] = []
    lost = dt.timedelta()
    for number, born in enumerate(births):
        if number + 1 < len(births):
            ends, until = births[number + 1], births[number + 1]
            ends = min(ends, born + life)
        else:
            died = usable_until or token.foreign_at or token.failed_at or born
            ends, until = max(born, min(died, now)), now
        found.append((born, ends, "life" if number % 2 else "life-2"))
        if until - ends > dt.timedelta(seconds=1):
            found.append((ends, until, "gap"))
            lost += until - max(ends, now - SPAN) if until > now - SPAN else dt.timedelta()
    return found, lost


def _bar(born: dt.datetime, ends: dt.datetime, css: str, start: dt.datetime) -> Bar:
    left = max(born, start)
    width = 100 * ((ends - left) / SPAN)
    name = _("No usable token") if css == "gap" else _("Token in hand")
    title = f"{name}: {_clock(born)} – {_clock(ends)} ({duration((ends - born).total_seconds())})"
    return Bar(_x(left, start), f"{max(width, 0.15):.2f}%", css, title)


# -- marks -----------------------------------------------------------------------------------------


def _class(row: RefreshLog) -> ErrorClass:
    if row.outcome == RefreshLog.Outcome.LIMITED:
        return ErrorClass.QUOTA
    if row.errcode is None:
        return ErrorClass.TRANSIENT
    return meaning(row.platform, row.kind, row.errcode).error_class


def _marks(rows: list[RefreshLog], css: str, start: dt.datetime) -> list[Mark]:
    buckets: dict[int, list[RefreshLog]] = {}
    for row in rows:
        buckets.setdefault((row.at - start) // BUCKET, []).append(row)
    return [Mark(_x(found[len(found) // 2].at, start), css, _told(found)) for found in buckets.values()]


def _told(rows: list[RefreshLog]) -> str:
    """What one mark stands for: a row, or several that are too close to be told apart."""
    what = Counter(words.log_meaning(row) or str(row.get_outcome_display()) for row in rows)
    meanings = "; ".join(what)
    if len(rows) == 1:
        return f"{_clock(rows[0].at)} {meanings} ({words.reason(rows[0])})"
    return f"{len(rows)} ×, {_clock(rows[0].at)} – {_clock(rows[-1].at)}: {meanings}"


def _x(at: dt.datetime, start: dt.datetime) -> str:
    return f"{100 * ((at - start) / SPAN):.2f}%"


def _clock(at: dt.datetime) -> str:
    return localtime(at).strftime("%m-%d %H:%M:%S")


def _ticks(start: dt.datetime, now: dt.datetime) -> list[Tick]:
    first = localtime(start).replace(minute=0, second=0, microsecond=0)
    found = []
    for hour in range(1, 49):
        at = first + dt.timedelta(hours=hour)
        share = (at - start) / SPAN
        if localtime(at).hour % AXIS_EVERY == 0 and 0.04 < share < 0.96:  # else its label is cut
            found.append(Tick(f"{100 * share:.2f}%", localtime(at).strftime("%m-%d %H:%M")))
    return found


def _summary(
    renewals: list[RefreshLog], failures: dict[ErrorClass, list[RefreshLog]], complaints: list[RefreshLog],
    foreign: list[dt.datetime], lost: dt.timedelta,
) -> str:  # fmt: skip
    parts = [ngettext("%d renewal", "%d renewals", len(renewals)) % len(renewals)]
    parts += [f"{CLASSES[cls]}: {len(found)}" for cls, found in failures.items() if found]
    if complaints:
        parts.append(ngettext("%d complaint", "%d complaints", len(complaints)) % len(complaints))
    if foreign:
        parts.append(_("refreshed by another system"))
    if lost > dt.timedelta(seconds=1):
        parts.append(_("without a usable token for %(time)s") % {"time": duration(lost.total_seconds())})
    return _("In the last 48 hours: %(what)s.") % {"what": "; ".join(parts)}
