"""The state of an account's token, as its page shows it. Never the token's value (S2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils.formats import number_format
from django.utils.translation import gettext as _

from .. import clock
from ..conf import get_settings
from ..diagnosis import states
from ..engine import complaints, schedule
from ..platforms import platforms
from . import words

if TYPE_CHECKING:
    import datetime as dt

    from django.utils.functional import _StrOrPromise

    from ..models import RefreshLog, Token

LOG_ROWS = 10


@dataclass(frozen=True, slots=True)
class Panel:
    token: Token
    title: _StrOrPromise
    report: states.Report
    facts: list[tuple[str, str]]
    problem: words.Problem | None
    foreign: str
    log: list[LogLine]


@dataclass(frozen=True, slots=True)
class LogLine:
    entry: RefreshLog
    reason: _StrOrPromise
    meaning: str


def report(token: Token, now: dt.datetime) -> states.Report:
    return states.report(token, now, overlap=get_settings().overlap, lease=get_settings().lease)


def panel(token: Token, log: list[RefreshLog]) -> Panel:
    """``token`` comes with its account."""
    now = clock.now()
    state = report(token, now)
    return Panel(
        token, words.kind(token), state, _facts(token, state, now), words.problem(token),
        words.foreign_hint(token, now, always=True),
        [LogLine(entry, words.reason(entry), words.log_meaning(entry)) for entry in log],
    )  # fmt: skip


def _facts(token: Token, state: states.Report, now: dt.datetime) -> list[tuple[str, str]]:
    masked = _("%(token)s (version %(version)d)") % {"token": token.value, "version": token.version}
    facts = [(str(words.kind(token)), masked if token.version else "–")]
    if token.version:
        facts += [
            (_("Issued"), words.moment(token.issued_at, now)),
            (_("Expires"), words.moment(token.expires_at, now)),
        ]
        if state.usable_until != token.expires_at:
            facts.append((_("Good until"), _good_until(token, state, now)))
    facts.append((_("Next refresh due"), words.moment(token.due_at, now)))
    if token.waits_for:
        facts.append((_("Waits for"), token.waits_for))
    if token.asked_at is not None:
        facts.append((_("Last asked for"), words.moment(token.asked_at, now)))
    if token.failures:
        facts.append((_("Failures in a row"), number_format(token.failures)))
    facts.append((_("Calls today"), _calls_today(token, now)))
    if token.foreign_at is not None:
        seen = _("%(count)s, last %(time)s") % {
            "count": number_format(token.foreign_refreshes), "time": words.moment(token.foreign_at, now),
        }  # fmt: skip
        facts.append((_("Ended by others"), seen))
    if complaints.refuses_complaints(token, now):
        facts.append((_("Complaints refused"), words.moment(token.complaints_refused_at, now)))
    return facts


def _good_until(token: Token, state: states.Report, now: dt.datetime) -> str:
    if state.usable_until is not None:
        return words.moment(state.usable_until, now)
    if token.issued_for != token.account.ref:
        return _("no longer: the account had another AppID when it was issued")
    return _("no longer: WeChat refuses it")


def _calls_today(token: Token, now: dt.datetime) -> str:
    """By endpoint, with WeChat's limit; the day is Beijing's (R16)."""
    installed = platforms().get(token.account.platform)
    source = installed.source(token.kind) if installed is not None else None
    limits = {
        source.endpoint(token.account, forced=forced): source.daily_limit(token.account, forced=forced)
        for forced in (False, True)
        if source is not None
    }
    today = token.usage if isinstance(token.usage, dict) else {}
    parts = []
    for name in dict.fromkeys([*limits, *today]):
        count = schedule.calls_today(token, name, now)
        values = {"endpoint": name, "count": number_format(count, force_grouping=True)}
        if name in limits:
            values["limit"] = number_format(limits[name], force_grouping=True)
            parts.append(_("%(endpoint)s: %(count)s of %(limit)s") % values)
        elif count:
            parts.append(_("%(endpoint)s: %(count)s") % values)
    return " · ".join(parts)
