"""What rows and results are called on a page. Pure but for the language; no text holds a secret (S2)."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from django.contrib import messages
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..diagnosis.problems import another_system_advice
from ..diagnosis.states import duration
from ..engine import Outcome, Reason, Status
from ..exceptions import ErrorClass, UpstreamError
from ..models import ACCESS_TOKEN, Endpoint
from ..platforms import explain, meaning

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

    from ..models import Account, RefreshLog, Token

REASONS: Final[dict[str, _StrOrPromise]] = {
    Reason.SCHEDULE: gettext_lazy("schedule"),
    Reason.CALLER: gettext_lazy("caller"),
    Reason.COMPLAINT: gettext_lazy("complaint"),
    Reason.ADMIN: gettext_lazy("admin"),
    Reason.COMMAND: gettext_lazy("command"),
}

KINDS: Final[dict[str, _StrOrPromise]] = {
    "access_token": gettext_lazy("Token"),
    "jsapi_ticket": gettext_lazy("JS-SDK ticket (jsapi_ticket)"),
    "wx_card_ticket": gettext_lazy("Card ticket (wx_card_ticket)"),
}

# How long another system's refresh (R14) is worth a word in the list; the account's own page keeps it for good.
FOREIGN_IS_NEWS: Final = dt.timedelta(days=7)


def moment(at: dt.datetime | None, now: dt.datetime) -> str:
    """The time where the reader is, and how far away it is."""
    return "–" if at is None else f"{clock_time(at)} ({away(at, now)})"


def clock_time(at: dt.datetime) -> str:
    """To the second, and alike in every language, for comparing with other logs."""
    return localtime(at).strftime("%Y-%m-%d %H:%M:%S")


def away(at: dt.datetime, now: dt.datetime) -> str:
    """``in 5 min`` or ``5 min ago``."""
    seconds = (at - now).total_seconds()
    text = _("in %(duration)s") if seconds >= 0 else _("%(duration)s ago")
    return text % {"duration": duration(abs(seconds))}


@dataclass(frozen=True, slots=True)
class Problem:
    """A token's last failure: what it means, what to do, and the evidence as it was stored."""

    summary: str
    action: str
    evidence: str
    errcode: int | None
    rid: str
    egress_ip: str
    failed_at: dt.datetime | None

    @property
    def steps(self) -> list[str]:
        return steps(self.action)

    @property
    def failed_at_the_clock(self) -> str:
        return "" if self.failed_at is None else clock_time(self.failed_at)


def problem(token: Token) -> Problem | None:
    """The current failure in the reader's language, from the stored code (R10); None if there is none."""
    if not token.failures:
        return None
    if token.errcode is not None:
        meant = meaning(token.account.platform, token.kind, token.errcode)
        on_stable = token.account.endpoint == Endpoint.STABLE
        summary, action = str(meant.summary), meant.advise(token.egress_ip, on_stable=on_stable)
    elif token.error_class == ErrorClass.QUOTA:
        summary = _("A limit of calls is reached.")
        action = _("Nothing to do at once: it is retried when the limit allows.")
    else:
        summary = _("No usable answer came from WeChat.")
        action = _(
            "It is retried automatically. If it lasts, check DNS, the firewall and any proxy on the way to WeChat."
        )
    return Problem(summary, action, token.error, token.errcode, token.rid, token.egress_ip, token.failed_at)


def steps(action: str) -> list[str]:
    """An advice, a sentence a step. A full stop inside a host's name ends none."""
    return [sentence for sentence in re.split(r"(?<=[.!?])\s+|(?<=[。！？])\s*", action.strip()) if sentence]


def foreign_hint(token: Token, now: dt.datetime, *, always: bool = False) -> str:
    """That another system renews this account's token (R14), and what to do; '' if none was seen lately."""
    if token.foreign_at is None or not (always or now - token.foreign_at < FOREIGN_IS_NEWS):
        return ""
    seen = _("Another system uses this AppID and ended our token early.")
    return f"{seen} {another_system_advice(token.account.endpoint)}"


def kind(token: Token) -> _StrOrPromise:
    """What a credential is called; one of another platform by its own name."""
    return KINDS.get(token.kind, token.kind)


def reason(entry: RefreshLog) -> _StrOrPromise:
    return REASONS.get(entry.reason, entry.reason)


def log_meaning(entry: RefreshLog) -> str:
    """A log row's error in the reader's language; '' if it had none."""
    if entry.errcode is None:
        return entry.error
    return coded(entry.errcode, str(meaning(entry.platform, entry.kind, entry.errcode).summary))


def coded(errcode: int | None, summary: str) -> str:
    """A summary with the code that operators search the web for."""
    return summary if errcode is None else _("%(errcode)d: %(summary)s") % {"errcode": errcode, "summary": summary}


# -- what became of a refresh ----------------------------------------------------------------------


def told(outcome: Outcome, appid: str, now: dt.datetime, left: float, *, forced: bool = False) -> tuple[int, str]:
    """The message after "Refresh now": level and text. ``left``: seconds the token in hand is still good."""
    values = {"appid": appid, "left": duration(left)}
    match outcome.status:
        case Status.RENEWED:
            return messages.SUCCESS, _("Account %(appid)s has a new token, good for %(left)s.") % values
        case Status.UNCHANGED if forced:
            return messages.WARNING, _(
                "WeChat returned the same token for %(appid)s: it takes one forced refresh in 30 seconds."
            ) % values
        case Status.UNCHANGED:
            return messages.SUCCESS, _(
                "WeChat was asked and returned the same token for %(appid)s, good for another %(left)s. "
                "The stable endpoint makes a new one only in the last 5 minutes."
            ) % values
        case Status.FAILED if outcome.error is not None:
            meant = explain(outcome.token.account.platform, outcome.token.kind, outcome.error)
            values["summary"] = str(meant.summary)
            on_stable = outcome.token.account_id is not None and outcome.token.account.endpoint == Endpoint.STABLE
            values["action"] = meant.advise(outcome.error.egress_ip, on_stable=on_stable)
            if left:
                return messages.ERROR, _(
                    "Account %(appid)s could not be refreshed; the old token is good for another %(left)s. "
                    "%(summary)s %(action)s"
                ) % values
            return messages.ERROR, _("Account %(appid)s could not be refreshed. %(summary)s %(action)s") % values
        case Status.LIMITED if forced and outcome.error is None:
            values["time"] = clock_time(outcome.until) if outcome.until is not None else "–"
            return messages.WARNING, _(
                "Account %(appid)s has the token it had: forced refreshes are rationed. The next may leave at %(time)s."
            ) % values
        case Status.LIMITED:
            values["time"] = clock_time(outcome.until) if outcome.until is not None else "–"
            return messages.WARNING, _(
                "Account %(appid)s was not refreshed: today's calls are used up. The next may leave at %(time)s."
            ) % values
        case Status.WAITING if outcome.held is not None:
            values["root"] = outcome.held.root
            return messages.WARNING, _(
                "Account %(appid)s: what is needed for this cannot be had now: %(root)s. See there."
            ) % values
        case Status.BUSY:
            return messages.INFO, _("Account %(appid)s is being refreshed already. Reload in a few seconds.") % values
        case Status.SUPERSEDED:
            return messages.INFO, _("Another refresh of %(appid)s finished first; its result counts.") % values
        case _:
            return messages.INFO, _("Account %(appid)s was refreshed a moment ago; nothing was done.") % values


def told_of_clearing(error: UpstreamError | None, account: Account) -> tuple[int, str]:
    """The message after WeChat was asked to set its counters to zero; ``error``: what it said instead."""
    if error is None:
        return messages.SUCCESS, _(
            "WeChat has set today's counters of %(appid)s to zero. What waited for it is tried again now."
        ) % {"appid": account.ref}
    meant = explain(account.platform, ACCESS_TOKEN, error)
    return messages.ERROR, _("The counters of %(appid)s could not be cleared. %(summary)s %(action)s") % {
        "appid": account.ref, "summary": coded(error.errcode, str(meant.summary)),
        "action": meant.advise(error.egress_ip, on_stable=account.endpoint == Endpoint.STABLE),
    }  # fmt: skip


def told_of_many(outcomes: Counter[str]) -> list[tuple[int, str]]:
    """The messages after several accounts were refreshed, one for each kind of result."""
    good = outcomes[Status.RENEWED.value] + outcomes[Status.UNCHANGED.value]
    limited = outcomes[Status.LIMITED.value]
    failed = outcomes[Status.FAILED.value] + outcomes["error"]
    idle = outcomes.total() - good - limited - failed
    texts = [
        (messages.SUCCESS, good, ngettext("%d token was refreshed.", "%d tokens were refreshed.", good)),
        (messages.INFO, idle, ngettext(
            "%d token needed nothing: it was refreshed a moment ago, or is being refreshed now.",
            "%d tokens needed nothing: they were refreshed a moment ago, or are being refreshed now.", idle)),
        (messages.WARNING, limited, ngettext(
            "%d token was not refreshed: today's calls are used up.",
            "%d tokens were not refreshed: today's calls are used up.", limited)),
        (messages.ERROR, failed, ngettext(
            "%d token could not be refreshed. The list says why and what to do.",
            "%d tokens could not be refreshed. The list says why and what to do.", failed)),
    ]  # fmt: skip
    return [(level, text % count) for level, count, text in texts if count]
