"""The state of an account's token, as its page shows it. Never the token's value (S2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.translation import gettext as _

from .. import clock
from ..conf import get_settings
from ..diagnosis import states
from ..engine import complaints, schedule
from ..models import ACCESS_TOKEN, RefreshLog, Token
from ..platforms import platforms
from . import words
from .timeline import BEFORE, SPAN, Timeline, timeline

if TYPE_CHECKING:
    import datetime as dt

    from django.db.models import QuerySet
    from django.utils.functional import _StrOrPromise

    from ..models import Account
    from ..platforms import CredentialSource

LOG_ROWS = 10
TIMELINE_ROWS = 3_000  # of the latest 48 hours of all the credentials of an account


@dataclass(frozen=True, slots=True)
class Panel:
    token: Token
    title: _StrOrPromise
    report: states.Report
    facts: list[tuple[str, str]]
    problem: words.Problem | None
    foreign: str
    log: list[LogLine]
    timeline: Timeline | None  # None for those who may not see the log, and where nothing has happened yet
    may_refresh: bool
    may_force: bool
    may_clear: bool

    @property
    def kind(self) -> str:
        return self.token.kind


@dataclass(frozen=True, slots=True)
class LogLine:
    entry: RefreshLog
    at: str
    reason: _StrOrPromise
    meaning: str


def report(token: Token, now: dt.datetime) -> states.Report:
    return states.report(token, now, overlap=get_settings().overlap, lease=get_settings().lease)


def panels(account: Account, *, with_log: bool) -> list[Panel]:
    """One for each credential of the account, the access_token's first. Two queries, one without the log."""
    now = clock.now()
    rows = Token.objects.filter(account=account)
    installed = platforms().get(account.platform)
    tokens = list(rows.filter(kind__in=installed.kinds) if installed is not None else rows)
    if not any(token.kind == ACCESS_TOKEN for token in tokens):  # it is made when somebody asks
        tokens.append(Token(account=account, kind=ACCESS_TOKEN))
    tokens.sort(key=lambda token: (token.kind != ACCESS_TOKEN, token.kind))
    log = list(_latest(account, now)) if with_log else None
    found = []
    for token in tokens:
        token.account = account
        own = None if log is None else [entry for entry in log if entry.kind == token.kind]
        found.append(_panel(token, own, now))
    return found


def _latest(account: Account, now: dt.datetime) -> QuerySet[RefreshLog]:
    """The rows that the timelines and the tables show: those of 48 hours. Older ones are in the log's own list."""
    return RefreshLog.objects.filter(ref=account.ref, at__gt=now - SPAN - BEFORE)[:TIMELINE_ROWS]


def _panel(token: Token, log: list[RefreshLog] | None, now: dt.datetime) -> Panel:
    state = report(token, now)
    source = _source(token)
    return Panel(
        token, words.kind(token), state, _facts(token, state, now), words.problem(token),
        words.foreign_hint(token, now, always=True),
        [
            LogLine(entry, words.clock_time(entry.at), words.reason(entry), words.log_meaning(entry))
            for entry in (log or ())[:LOG_ROWS]
        ],
        timeline(token, log, now, state.usable_until) if log or (log is not None and token.version) else None,
        may_refresh=source is not None,
        may_force=source is not None and source.forced_refresh(token.account) is not None,
        may_clear=source is not None and source.clears_quota,
    )  # fmt: skip


def _source(token: Token) -> CredentialSource | None:
    """None where its platform is not installed any more, or has no such credential."""
    installed = platforms().get(token.account.platform)
    return installed.source(token.kind) if installed is not None else None


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
        facts.append((_("Waits for"), _root(token)))
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


def _root(token: Token) -> str:
    """What it waits for (R22), with a link where that is on the same page."""
    ref, _blank, kind = token.waits_for.partition(" ")
    if ref != token.account.ref:
        return token.waits_for
    return format_html('<a href="#wt-panel-{}">{}</a>', kind, token.waits_for)


def _good_until(token: Token, state: states.Report, now: dt.datetime) -> str:
    if state.usable_until is not None:
        return words.moment(state.usable_until, now)
    if token.issued_for != token.account.ref:
        return _("no longer: the account had another AppID when it was issued")
    return _("no longer: WeChat refuses it")


def _calls_today(token: Token, now: dt.datetime) -> str:
    """By endpoint, with WeChat's limit; the day is Beijing's (R16)."""
    source = _source(token)
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
