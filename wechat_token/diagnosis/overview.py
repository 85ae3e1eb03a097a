"""All accounts and their tokens at a glance, as a table for people and as JSON for machines. No secrets (S2)."""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext

from ..conf import get_settings
from ..engine import complaints, schedule
from ..models import Account, Token
from . import states
from .problems import Problem, Severity, another_system_advice
from .states import State

# Nobody has to act in the others: a retry is under way while the old token serves.
NEEDS_SOMEBODY = frozenset({State.DEAD, State.WAITING, State.ATTENTION, State.OVERDUE})

OTHERS_REMEMBERED = dt.timedelta(days=7)
ANOTHER_SYSTEM = gettext_lazy("Another system has renewed this account's token, %(count)d times so far.")
COMPLAINTS_REFUSED = gettext_lazy(
    "Complaints about this token are refused at the moment: a client goes on reporting it although WeChat accepts it. "
    "The refresh log says which."
)


@dataclass(frozen=True, slots=True)
class Line:
    """One token of one account, and what it means."""

    account: Account
    token: Token
    report: states.Report
    now: dt.datetime

    @property
    def needs_somebody(self) -> bool:
        if self.report.state is State.WAITING and self.token.due_at is not None:  # just added: give the worker time
            return self.now > self.token.due_at + schedule.seconds(states.OVERDUE_AFTER)
        return self.report.state in NEEDS_SOMEBODY

    @property
    def another_system_seen(self) -> bool:
        """Whether another system has refreshed this token lately (R14)."""
        return self.token.foreign_at is not None and self.token.foreign_at > self.now - OTHERS_REMEMBERED

    @property
    def another_system(self) -> str:
        """That, and what to do about it."""
        seen = ANOTHER_SYSTEM % {"count": self.token.foreign_refreshes}
        return f"{seen} {another_system_advice(self.account.endpoint)}"

    @property
    def complaints_refused(self) -> bool:
        """Whether somebody's complaints were refused lately (R33)."""
        return complaints.refuses_complaints(self.token, self.now)

    @property
    def action(self) -> str:
        """What a person should do, '' if nothing."""
        if self.needs_somebody and self.report.state in (State.WAITING, State.OVERDUE):
            return _("Start the Celery worker and beat; manage.py wechat_token doctor tells what is missing.")
        return str(self.report.action)


def lines(now: dt.datetime) -> list[Line]:
    """Every account by AppID; one that has no token row yet has a line all the same."""
    overlap, lease = get_settings().overlap, get_settings().lease
    found = []
    for account in Account.objects.order_by("ref").prefetch_related("tokens"):
        tokens = sorted(account.tokens.all(), key=lambda token: token.kind) or [Token()]
        for token in tokens:
            token.account = account
            found.append(Line(account, token, states.report(token, now, overlap=overlap, lease=lease), now))
    return found


# -- for machines ----------------------------------------------------------------------------------


def as_json(found: Iterable[Line], now: dt.datetime, problems: Iterable[Problem] = ()) -> dict[str, Any]:
    """What ``status --json`` prints. Keys are a promise: they are added to, not renamed. Times are ISO 8601, UTC."""
    accounts = [_as_json(line) for line in found]
    site = list(problems)
    bad = any(problem.severity is not Severity.WARNING for problem in site)
    return {
        "checked_at": _iso(now),
        "healthy": not bad and not any(entry["needs_attention"] for entry in accounts),
        "problems": [problem.as_json() for problem in site],
        "accounts": accounts,
    }


def _as_json(line: Line) -> dict[str, Any]:
    account, token, report = line.account, line.token, line.report
    return {
        "appid": account.ref,
        "platform": account.platform,
        "name": account.name,
        "endpoint": account.endpoint,
        "is_active": account.is_active,
        "is_default": account.is_default,
        "kind": token.kind,
        "state": report.state.value,
        "needs_attention": line.needs_somebody,
        "seconds_left": report.seconds_left,
        "usable_until": _iso(report.usable_until),
        "expires_at": _iso(token.expires_at),
        "issued_at": _iso(token.issued_at),
        "due_at": _iso(token.due_at),
        "version": token.version,
        "failures": token.failures,
        "failed_at": _iso(token.failed_at),
        "error_class": token.error_class,
        "errcode": token.errcode,
        "error": token.error,
        "rid": token.rid,
        "egress_ip": token.egress_ip,
        "action": line.action,
        "foreign_refreshes": token.foreign_refreshes,
        "foreign_at": _iso(token.foreign_at),
        "asked_at": _iso(token.asked_at),
        "waits_for": token.waits_for,
        "complaints_refused": line.complaints_refused,
        "calls_today": _calls_today(token, line.now),
    }


def _calls_today(token: Token, now: dt.datetime) -> dict[str, int]:
    usage = token.usage if isinstance(token.usage, dict) else {}
    return {name: schedule.calls_today(token, name, now) for name in sorted(usage) if name != "day"}


def _iso(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(dt.UTC).isoformat(timespec="seconds")


# -- for people ------------------------------------------------------------------------------------


def table(found: Iterable[Line]) -> list[str]:
    """Aligned columns, and under a row its last error and what to do."""
    entries = list(found)
    name = pgettext("account", "Name")
    heads = [_("AppID"), name, _("Endpoint"), _("Kind"), _("State"), _("Time left"), _("Due"), _("Failures")]
    rows = [_cells(line) for line in entries]
    widths = [max(map(_width, column)) for column in zip(heads, *rows, strict=True)]
    printed = [_aligned(heads, widths)]
    for line, row in zip(entries, rows, strict=True):
        printed.append(_aligned(row, widths))
        printed += [f"    {note}" for note in _notes(line)]
    return printed


def _cells(line: Line) -> list[str]:
    token, report = line.token, line.report
    name = line.account.name + (f" ({_('default')})" if line.account.is_default else "")
    return [
        line.account.ref,
        name.strip() or "-",
        line.account.endpoint,
        token.kind,
        str(report.label),
        states.duration(report.seconds_left) if report.seconds_left else "-",
        _due(token.due_at, line.now) if line.account.is_active else "-",
        str(token.failures),
    ]


def _due(due_at: dt.datetime | None, now: dt.datetime) -> str:
    if due_at is None:
        return _("never")
    left = (due_at - now).total_seconds()
    if abs(left) < 1:
        return _("now")
    text = _("in %(time)s") if left >= 0 else _("%(time)s ago")
    return text % {"time": states.duration(abs(left))}


def _notes(line: Line) -> Iterable[str]:
    token = line.token
    if token.failures:
        when = "" if token.failed_at is None else timezone.localtime(token.failed_at).strftime("%Y-%m-%d %H:%M:%S")
        yield _("last error: %(error)s (%(when)s)") % {"error": token.error, "when": when}
    if token.waits_for:
        yield _("waits for %(what)s") % {"what": token.waits_for}
    if line.account.is_active and line.action:
        yield _("to do: %(action)s") % {"action": line.action}
    if line.another_system_seen:
        yield line.another_system
    if line.complaints_refused:
        yield str(COMPLAINTS_REFUSED)


def _aligned(cells: Iterable[str], widths: Iterable[int]) -> str:
    padded = (cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True))
    return "  ".join(padded).rstrip()


def _width(text: str) -> int:
    """Columns on a terminal, where a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
