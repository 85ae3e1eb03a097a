"""How people are reached: Django's mail, and webhooks in the format that the robot of their host understands.

Nothing here waits longer than a few seconds, whatever the other side does, and an address is shown to nobody (S2).
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote_plus, urlsplit

from django.conf import settings as django_settings
from django.core.mail import EmailMessage, get_connection
from django.utils.translation import gettext as _

from .. import clock
from ..conf import Settings, Webhook, get_settings
from ..engine import aside, host_name
from ..exceptions import ConfigurationError, UpstreamError
from ..platforms import transport
from ..redaction import Secret
from .problems import RUNBOOK, Problem
from .telling import Event

logger = logging.getLogger("wechat_token.alerts")

WEBHOOK_SECONDS: Final = 6.0  # total, for one webhook
MAIL_SECONDS: Final = 15.0
ALL_SECONDS: Final = 90.0  # for one message; who is not reached by then is tried again
LONGEST_ANSWER: Final = 4096  # bytes
WECOM_BYTES: Final = 2000  # of its 2048
SLICE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Message:
    """``problem`` is None at its end and for a test; ``text`` is what was told last then."""

    event: Event
    cause: str
    text: str
    at: dt.datetime
    since: dt.datetime
    problem: Problem | None = None

    @property
    def headline(self) -> str:
        match self.event:
            case Event.TEST:
                return _("This is a test: alerts of this site reach you.")
            case Event.OVER:
                return _("Over: %(problem)s") % {"problem": self.text}
            case Event.REMINDER:
                return _("Still: %(problem)s") % {"problem": self.text}
            case _:
                return self.text

    @property
    def body(self) -> str:
        """For people. What to do first, then where it comes from."""
        lines = [self.headline]
        if self.problem is not None:
            steps = self.problem.steps
            lines += [f"{number}. {step}" for number, step in enumerate(steps, 1)] if len(steps) > 1 else list(steps)
            lines.append(_("More: %(runbook)s") % {"runbook": self.problem.runbook})
        since, at = (f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC" for moment in (self.since, self.at))
        source = {"host": host_name(), "since": since, "at": at}
        if self.event is Event.TEST:
            lines.append(_("Sent by %(host)s at %(at)s.") % source)
        else:
            lines.append(_("Since %(since)s. Sent by %(host)s at %(at)s.") % source)
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """What a webhook that is nobody's robot gets. Keys are a promise: they are added to, not renamed."""
        problem = self.problem
        return {
            "event": self.event.value,
            "cause": self.cause,
            "severity": problem.severity.value if problem is not None else None,
            "text": self.headline,
            "steps": list(problem.steps) if problem is not None else [],
            "count": problem.count if problem is not None else 0,
            "examples": list(problem.examples) if problem is not None else [],
            "runbook": problem.runbook if problem is not None else RUNBOOK,
            "host": host_name(),
            "since": self.since.astimezone(dt.UTC).isoformat(timespec="seconds"),
            "at": self.at.astimezone(dt.UTC).isoformat(timespec="seconds"),
        }


@dataclass(frozen=True, slots=True)
class Channel:
    """``id`` is stored, ``name`` shown; neither tells the address. ``send`` returns '' or why it failed."""

    id: str
    name: str
    send: Callable[[Message], str] = field(repr=False)


def configured() -> list[Channel]:
    settings = get_settings()
    found = [_webhook(number, hook) for number, hook in enumerate(settings.alert_webhooks, 1)]
    if settings.alert_emails:
        found.append(Channel("mail", "ALERT_EMAILS", _send_mail))
    return found


def send(message: Message, *, but: Collection[str] = ()) -> set[str]:
    """Send it to all channels but these; who got it. Failures are logged."""
    reached = set()
    give_up_at = clock.monotonic() + ALL_SECONDS
    for channel in configured():
        if channel.id in but or clock.monotonic() > give_up_at:
            continue
        wrong = try_to_send(channel, message)
        if wrong:
            logger.warning("An alert could not be sent by %s: %s", channel.name, wrong)
        else:
            reached.add(channel.id)
    return reached


def try_to_send(channel: Channel, message: Message) -> str:
    """Why it failed, '' if it did not."""
    try:
        return channel.send(message)
    except (UpstreamError, ConfigurationError) as exc:
        return str(exc)
    except Exception as exc:  # of a mail backend, for example; the type only, its text may hold anything (S2)
        return type(exc).__name__


# -- mail ------------------------------------------------------------------------------------------


def _send_mail(message: Message) -> str:
    """On a thread of its own: a mail server can hang for longer than any timeout of its client."""
    # Without a timeout of the site's, its backend would wait for ever.
    timeout: dict[str, Any] = {} if getattr(django_settings, "EMAIL_TIMEOUT", None) else {"timeout": int(MAIL_SECONDS)}
    subject = f"[wechat_token] {message.headline}"[:150]
    to = list(get_settings().alert_emails)
    outcome: list[str] = []

    def work() -> None:
        try:
            EmailMessage(subject, message.body, to=to, connection=get_connection(**timeout)).send()
            outcome.append("")
        except Exception as exc:  # whatever a backend raises; its text may name the server's user
            outcome.append(type(exc).__name__)

    aside("alert mail", work)
    give_up_at = clock.monotonic() + MAIL_SECONDS
    while not outcome:
        if clock.monotonic() > give_up_at:
            return f"no end within {MAIL_SECONDS:.0f} s"
        clock.sleep(SLICE)
    return outcome[0]


# -- webhooks --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Robot:
    """``make``: URL and body from the webhook, the message and Unix seconds; ``code``: where its answer says 0."""

    name: str
    make: Callable[[Webhook, Message, int], tuple[Secret, dict[str, Any]]]
    codes: tuple[str, ...] = ()


def _webhook(number: int, hook: Webhook) -> Channel:
    robot = robot_of(hook)
    name = f"webhook {number}" + (f" ({robot.name})" if robot.name else "")

    def send(message: Message) -> str:
        return _post(robot, hook, name, message)

    return Channel(hashlib.sha256(hook.url.reveal().encode(errors="surrogatepass")).hexdigest()[:16], name, send)


def _post(robot: _Robot, hook: Webhook, name: str, message: Message) -> str:
    url, body = robot.make(hook, message, int(clock.now().timestamp()))
    # PROXY leads to the Internet, where robots live; other addresses are likely in the operator's own network.
    settings: Settings = replace(get_settings(), max_answer_bytes=LONGEST_ANSWER, ca_bundle=None)
    if not robot.codes:
        settings = replace(settings, proxy=None)
    status, answer = transport.post(url, body, what=name, settings=settings, deadline=WEBHOOK_SECONDS)
    if not 200 <= status < 300:
        return f"HTTP {status}"
    if not robot.codes:
        return ""
    try:
        told = json.loads(answer)
        codes = [told[code] for code in robot.codes if code in told]
    except (ValueError, TypeError, RecursionError):
        return "an answer that is not this robot's"
    if not codes:
        return "an answer that is not this robot's"
    return "" if all(code == 0 for code in codes) else f"errcode {codes[0]!s:.20}"


def _plain(hook: Webhook, message: Message, now: int) -> tuple[Secret, dict[str, Any]]:
    return hook.url, message.as_json()


def _wecom(hook: Webhook, message: Message, now: int) -> tuple[Secret, dict[str, Any]]:
    text = message.body.encode()[:WECOM_BYTES].decode(errors="ignore")
    return hook.url, {"msgtype": "text", "text": {"content": text}}


def _dingtalk(hook: Webhook, message: Message, now: int) -> tuple[Secret, dict[str, Any]]:
    url = hook.url.reveal()
    if hook.secret:
        stamp = str(now * 1000)
        sign = _signed(hook.secret.reveal(), f"{stamp}\n{hook.secret.reveal()}")
        url += f"{'&' if '?' in url else '?'}timestamp={stamp}&sign={quote_plus(sign)}"
    return Secret(url), {"msgtype": "text", "text": {"content": message.body}}


def _feishu(hook: Webhook, message: Message, now: int) -> tuple[Secret, dict[str, Any]]:
    body: dict[str, Any] = {"msg_type": "text", "content": {"text": message.body}}
    if hook.secret:
        body |= {"timestamp": str(now), "sign": _signed(f"{now}\n{hook.secret.reveal()}", "")}
    return hook.url, body


def _signed(key: str, text: str) -> str:
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()


_PLAIN: Final = _Robot("", _plain)
_ROBOTS: Final = {
    "qyapi.weixin.qq.com": _Robot("WeCom", _wecom, ("errcode",)),
    "oapi.dingtalk.com": _Robot("DingTalk", _dingtalk, ("errcode",)),
    "open.feishu.cn": _Robot("Feishu", _feishu, ("code", "StatusCode")),
    "open.larksuite.com": _Robot("Lark", _feishu, ("code", "StatusCode")),
}


def robot_of(hook: Webhook) -> _Robot:
    """By its host; whoever is nobody's robot gets plain JSON."""
    try:
        return _ROBOTS.get(urlsplit(hook.url.reveal()).hostname or "", _PLAIN)
    except ValueError:
        return _PLAIN
