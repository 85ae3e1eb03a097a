"""What is wrong with this site, by cause: the one truth behind health, alerts, ``doctor``, ``status`` and the admin.

:func:`problems` is pure: from what the rows say (:mod:`facts` reads them) and the time it makes a list in which 206
accounts with one cause are one problem. Texts are in the active language and hold no secret (S2).
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..exceptions import ErrorClass
from ..platforms import meaning as meaning_of
from ..platforms.errcodes import NO_ANSWER, UNKNOWN_CODE, Meaning
from ..redaction import one_line
from .evidence import Database, Facts, Failing
from .states import duration

RUNBOOK: Final = "docs/operations.md"
HEARTBEAT: Final = 30.0  # seconds between what hosts say of themselves (R17)
LATE: Final = 10.0  # seconds by which a heartbeat may be late on a busy machine
HOST_IS_GONE: Final = dt.timedelta(minutes=10)  # one that says nothing for this long has no problems any more
KEY_ENDS_WITHIN: Final = dt.timedelta(days=7)
NAMED: Final = 3  # examples in a sentence
LONGEST_NAME: Final = 80  # characters of each

WHITELIST: Final = frozenset({40164, 61004})
SECRET: Final = frozenset({40001, 40125, 40243})


class Severity(enum.StrEnum):
    """Part of health's answer and of webhooks; do not rename."""

    CRITICAL = "critical"  # somebody goes without a token, or will as soon as the tokens in hand end
    PROBLEM = "problem"  # tokens serve, but somebody has to act
    WARNING = "warning"  # nothing fails yet


@dataclass(frozen=True, slots=True)
class Problem:
    """``id`` names the cause and stays the same while it lasts. ``anchor``: its entry in the runbook."""

    id: str
    severity: Severity
    text: str
    steps: tuple[str, ...] = ()
    count: int = 1
    examples: tuple[str, ...] = ()
    anchor: str = ""

    @property
    def runbook(self) -> str:
        return f"{RUNBOOK}#{self.anchor or self.id.partition('/')[0]}"

    def as_json(self) -> dict[str, object]:
        """For machines. Keys are a promise: they are added to, not renamed."""
        return {
            "id": self.id,
            "severity": self.severity.value,
            "text": self.text,
            "steps": list(self.steps),
            "count": self.count,
            "examples": list(self.examples),
            "runbook": self.runbook,
        }


Problems = Iterator[Problem]
_CRITICAL, _PROBLEM, _WARNING = Severity.CRITICAL, Severity.PROBLEM, Severity.WARNING


def problems(facts: Facts) -> list[Problem]:
    """Worst first; of one severity in the order of the causes below, the most basic first."""
    if facts.database is not Database.OK:
        return list(_database(facts))  # all else is as it was when the rows could last be written
    found = [*_hosts(facts), *_renewal(facts), *_accounts(facts), *_clients(facts), *_site(facts)]
    return sorted(found, key=lambda problem: list(Severity).index(problem.severity))


# -- database and hosts ----------------------------------------------------------------------------


def _database(facts: Facts) -> Problems:
    if facts.database is Database.READ_ONLY:
        yield Problem(
            "database-read-only", _CRITICAL,
            _("The database can be read but not written: no token is renewed."),
            (
                _("Look whether its disk is full, whether a failover has made it a replica, and who set it read-only."),
                _("Nothing else is to do: renewal goes on by itself when it can be written again."),
            ),
        )  # fmt: skip
    else:
        yield Problem(
            "database-unreachable", _CRITICAL,
            _("The database cannot be reached: tokens in memory and cache serve until they end, then nothing does."),
            (_("Check whether its server runs, and DATABASES."),),
        )  # fmt: skip


# What is met in several ways, and is one thing to whoever mends it.
SUBJECTS: Final = {"EncryptionKeyError": "secrets", "clock-by-wechat": "clock"}


def _by_subject(facts: Facts) -> dict[str, list[tuple[str, str]]]:
    """What living hosts cannot do: (host, text) by subject."""
    met: dict[str, list[tuple[str, str]]] = {}
    for host in facts.hosts:
        if host.seen_at > facts.now - HOST_IS_GONE:
            for subject, text in sorted(host.problems.items()):
                told = met.setdefault(SUBJECTS.get(subject, subject), [])
                if host.name not in dict(told):
                    told.append((host.name, text))
    return met


def _hosts(facts: Facts) -> Problems:
    met = _by_subject(facts)
    if told := met.pop("secrets", None):
        yield _of_hosts(
            "secrets-unreadable", _CRITICAL, told,
            _("Stored AppSecrets cannot be read on %(hosts)s: it lacks the encryption key that wrote them."),
            _("Give that host the encryption keys that the others have (ENCRYPTION_KEYS_FILE, ENCRYPTION_KEYS or "
              "SECRET_KEY), and restart it."),
            _("If a key is lost everywhere, enter the AppSecrets again: tokens heal by themselves."),
        )  # fmt: skip
    if told := met.pop("wechat", None):
        yield _of_hosts(
            "wechat-unreachable", _CRITICAL, told,
            _("WeChat cannot be reached from %(hosts)s: %(text)s. The tokens in hand serve until they end."),
            _("On that host: manage.py wechat_token doctor. Check DNS, the firewall, PROXY and API_BASE_URL."),
            _("If only this entry of WeChat's is down, API_BASE_URL can name another, such as "
              "https://api2.weixin.qq.com."),
        )  # fmt: skip
    if told := met.pop("cache", None):
        yield _of_hosts(
            "cache-down", _PROBLEM, told,
            _("The cache fails on %(hosts)s: %(text)s. Tokens are read from the database meanwhile."),
            _("Check whether its server runs, and CACHES."),
        )  # fmt: skip
    if told := met.pop("clock", None):
        yield _of_hosts(
            "clock-off", _PROBLEM, told, _("A clock is off on %(hosts)s: %(text)s."),
            _("Let NTP set it, on the host and on the database's server."),
        )  # fmt: skip
    if (told := met.pop("broker", None)) and not facts.paused:
        yield _of_hosts(
            "broker-unreachable", _CRITICAL, told,
            _("Celery's broker cannot be reached from %(hosts)s: no worker gets the tick, nobody renews in time."),
            _("Check whether its server runs, and CELERY_BROKER_URL."),
            _("At once, without it: manage.py wechat_token refresh."),
        )  # fmt: skip
    for subject, told in met.items():
        yield _of_hosts(
            f"host/{subject}"[:100], _CRITICAL, told, _("Host %(hosts)s: %(text)s"),
            _("Give that host the settings and keys that the others have, and restart it."),
        )  # fmt: skip


def _of_hosts(cause: str, severity: Severity, told: list[tuple[str, str]], text: str, *steps: str) -> Problem:
    names = tuple(name for name, _text in told)
    sentence = text % {"hosts": _listed(names, len(names)), "text": one_line(told[0][1]).rstrip(".")}
    return Problem(cause, severity, sentence, steps, len(names), names[:NAMED])


# -- renewal ---------------------------------------------------------------------------------------


def silence_after(every: float) -> float:
    """Seconds without a sign of life after which beat or a worker counts as silent."""
    return HEARTBEAT + every + LATE


def _renewal(facts: Facts) -> Problems:
    if facts.paused:
        return
    start = _("Start: celery -A PROJECT beat -S django, and celery -A PROJECT worker.")
    if facts.tick:
        text = {
            "missing": _("No periodic task starts the renewal: nobody renews tokens in time."),
            "disabled": _("The periodic task that starts the renewal is disabled: nobody renews tokens in time."),
        }[facts.tick]
        step = {
            "missing": _("Run manage.py migrate, which makes the task."),
            "disabled": _("Enable it in the admin under Periodic tasks."),
        }[facts.tick]
        yield Problem("tick-off", _CRITICAL, text, (step,))
    silent = [] if facts.tick else list(_silence(facts))
    yield from silent
    if facts.overdue.count and not silent and not facts.tick and facts.oldest_due is not None:
        text = ngettext(
            "%(count)d token has waited for its renewal for %(time)s.",
            "%(count)d tokens wait for their renewal, the longest for %(time)s.",
            facts.overdue.count,
        ) % {"count": facts.overdue.count, "time": duration((facts.now - facts.oldest_due).total_seconds())}
        steps = (start, _("At once, without them: manage.py wechat_token refresh."))
        yield Problem("renewals-late", _CRITICAL, text, steps, facts.overdue.count, facts.overdue.examples)
    if "wechat" not in _by_subject(facts):
        yield from _slow(facts)


def _silence(facts: Facts) -> Problems:
    """Who does not do what keeps tokens alive. A broker that is down silences both, and is told of by itself."""
    if facts.every is None or facts.waiting_since is None or "broker" in _by_subject(facts):
        return
    limit = silence_after(facts.every)

    def age(moments: Iterable[dt.datetime | None]) -> float | None:
        known = [moment for moment in moments if moment is not None]
        return (facts.now - max(known)).total_seconds() if known else None

    ticked = age(host.ticked_at for host in facts.hosts)
    quiet = ticked if ticked is not None else (facts.now - facts.waiting_since).total_seconds()
    if quiet <= limit:
        return
    beat, worker = age(host.beat_at for host in facts.hosts), age(host.worker_at for host in facts.hosts)
    beat_lives = beat is not None and beat <= limit
    now_by_hand = _("At once, without it: manage.py wechat_token refresh.")
    callers = _("Until then callers renew overdue tokens themselves, and wait for it.")
    if not beat_lives:
        yield Problem(
            "beat-silent", _CRITICAL,
            _("Celery beat has sent no tick for %(time)s: nobody renews tokens in time.")
            % {"time": duration(beat if beat is not None else quiet)},
            (_("Start it: celery -A PROJECT beat -S django."), now_by_hand, callers),
        )  # fmt: skip
    # Workers may be told not to send heartbeats: then nothing is known of them while beat is silent.
    if beat_lives or (worker is not None and worker > limit) or (worker is None and ticked is None):
        yield Problem(
            "worker-silent", _CRITICAL,
            _("No Celery worker has worked off a tick for %(time)s: nobody renews tokens in time.")
            % {"time": duration(quiet)},
            (
                _("Start it: celery -A PROJECT worker. If it runs, look whether it takes the queue that beat fills and "
                  "whether all its children are busy."),
                now_by_hand, callers,
            ),
        )  # fmt: skip


def _slow(facts: Facts) -> Problems:
    slow = [
        host for host in facts.hosts
        if host.tick_seconds >= facts.drain_deadline - 0.5
        and host.ticked_at is not None and host.ticked_at > facts.now - dt.timedelta(minutes=2)
    ]  # fmt: skip
    if slow:
        yield Problem(
            "tick-slow", _PROBLEM,
            _("A tick takes %(time)s on %(hosts)s and leaves due tokens to the next one.")
            % {"time": duration(max(host.tick_seconds for host in slow)),
               "hosts": _listed(tuple(host.name for host in slow), len(slow))},
            (_("Look how long WeChat and the database take to answer; raise BATCH_THREADS, or start workers on another "
               "host."),),
            len(slow), tuple(host.name for host in slow)[:NAMED],
        )  # fmt: skip


# -- accounts --------------------------------------------------------------------------------------


def _accounts(facts: Facts) -> Problems:
    outage = "wechat" in _by_subject(facts)
    merged: dict[str, list[Failing]] = {}
    for group in facts.failing:
        merged.setdefault(_cause(group), []).append(group)
    for cause, groups in merged.items():
        if cause == "no-answer" and (outage or not sum(group.late for group in groups)):
            continue  # it is tried again, and there is time
        yield _failing(facts, cause, groups)


def _cause(group: Failing) -> str:
    if group.errcode in WHITELIST:
        return f"whitelist/{group.egress_ip or 'unknown'}"
    if group.error_class == ErrorClass.TRANSIENT:
        return "no-answer"
    if group.error_class == ErrorClass.QUOTA:
        return f"quota-used/{group.errcode or 'own'}"
    return f"refused/{group.errcode if group.errcode is not None else 'unknown'}"


def _failing(facts: Facts, cause: str, groups: list[Failing]) -> Problem:
    late_only = cause == "no-answer"
    count = sum(group.late if late_only else group.count for group in groups)
    dead = sum(group.dead for group in groups)
    first, examples = groups[0], tuple(name for group in groups for name in group.examples)[:NAMED]
    meaning = _meaning(first)
    if first.errcode in WHITELIST and first.egress_ip:
        text = ngettext(
            "%(count)d account (%(names)s): %(errcode)d, this server's address %(ip)s is not on its whitelist.",
            "%(count)d accounts (%(names)s): %(errcode)d, this server's address %(ip)s is on none of their whitelists.",
            count,
        )
    elif first.errcode is not None:
        text = ngettext(
            "%(count)d account (%(names)s): %(errcode)d, %(summary)s",
            "%(count)d accounts (%(names)s): %(errcode)d, %(summary)s",
            count,
        )
    else:
        text = ngettext(
            "%(count)d account (%(names)s): %(summary)s", "%(count)d accounts (%(names)s): %(summary)s", count
        )
    values = {
        "count": count, "names": _listed(examples, count), "errcode": first.errcode, "ip": first.egress_ip,
        "summary": meaning.summary if meaning is not None else _("today's calls are used up."),
    }  # fmt: skip
    sentence = " ".join((text % values, _how_long(facts.now, groups, count, dead)))
    on_stable = all(group.on_stable for group in groups)
    action = meaning.advise(first.egress_ip, on_stable=on_stable) if meaning is not None else ""
    anchor = "refused" if first.errcode not in SECRET else "appsecret"
    return Problem(
        cause, _CRITICAL if dead or late_only else _PROBLEM, sentence.strip(), (action,) if action else (), count,
        examples, anchor if cause.startswith("refused/") else "",
    )  # fmt: skip


def _meaning(group: Failing) -> Meaning | None:
    if group.errcode is not None:
        return meaning_of(group.platform, group.kind, group.errcode)
    if group.error_class == ErrorClass.QUOTA:
        return None  # our own guard, before WeChat's limit (R16)
    return NO_ANSWER if group.error_class == ErrorClass.TRANSIENT else UNKNOWN_CODE


def _how_long(now: dt.datetime, groups: list[Failing], count: int, dead: int) -> str:
    if dead >= count:
        return ngettext("It has no usable token.", "None has a usable token.", count)
    ends = [group.first_end for group in groups if group.first_end is not None]
    left = duration((min(ends) - now).total_seconds()) if ends else ""
    if dead:
        text = ngettext("%(dead)d has no usable token.", "%(dead)d have no usable token.", dead)
        return text % {"dead": dead}
    return _("The first token ends in %(time)s.") % {"time": left} if left else ""


# -- clients, and the site -------------------------------------------------------------------------


def _clients(facts: Facts) -> Problems:
    for endpoint, group in sorted(facts.others.items()):
        yield Problem(
            f"another-system/{endpoint}", _PROBLEM,
            ngettext(
                "Another system renews the token of %(count)d account (%(names)s) and ended ours before its time.",
                "Another system renews the tokens of %(count)d accounts (%(names)s) and ended ours before their time.",
                group.count,
            ) % {"count": group.count, "names": _listed(group.examples, group.count)},
            (another_system_advice(endpoint),), group.count, group.examples,
        )  # fmt: skip
    if facts.complained.count:
        yield Problem(
            "complaints-refused", _WARNING,
            ngettext(
                "A client goes on complaining about the token of %(count)d account (%(names)s), which WeChat accepts.",
                "Clients go on complaining about the tokens of %(count)d accounts (%(names)s), which WeChat accepts.",
                facts.complained.count,
            ) % {"count": facts.complained.count, "names": _listed(facts.complained.examples, facts.complained.count)},
            (_("The refresh log names the client. Let it complain about errcode 40001, 40014 and 42001 only, once for "
               "each token."),),
            facts.complained.count, facts.complained.examples,
        )  # fmt: skip
    if facts.quotas:
        names = tuple(quota.appid for quota in facts.quotas)
        worst = max(facts.quotas, key=lambda quota: quota.used / quota.limit)
        yield Problem(
            "quota-near", _WARNING,
            ngettext(
                "%(count)d account (%(names)s) has nearly used up a day's calls: %(appid)s %(endpoint)s %(used)d of "
                "%(limit)d.",
                "%(count)d accounts (%(names)s) have nearly used up a day's calls: %(appid)s %(endpoint)s %(used)d of "
                "%(limit)d.",
                len(names),
            ) % {"count": len(names), "names": _listed(names[:NAMED], len(names)), "appid": worst.appid,
                 "endpoint": worst.endpoint, "used": worst.used, "limit": worst.limit},
            (_("The refresh log tells why it is renewed so often: another system, a client that complains, or hands."),
             _("The counters start anew at midnight in Beijing; WeChat's console can reset them, ten times a month.")),
            len(names), names[:NAMED],
        )  # fmt: skip
    if facts.keys:
        names = tuple(key.name for key in facts.keys)
        first = min(key.expires_at for key in facts.keys)
        over = first <= facts.now
        values = {"count": len(names), "names": _listed(names[:NAMED], len(names)),
                  "time": duration(abs((first - facts.now).total_seconds()))}  # fmt: skip
        text = (
            ngettext(
                "The key of %(count)d client (%(names)s) that uses it has expired, %(time)s ago.",
                "The keys of %(count)d clients (%(names)s) that use them have expired, the first %(time)s ago.",
                len(names),
            )
            if over
            else ngettext(
                "The key of %(count)d client (%(names)s) ends in %(time)s.",
                "The keys of %(count)d clients (%(names)s) end, the first in %(time)s.",
                len(names),
            )
        )
        yield Problem(
            "client-key-ends", _PROBLEM if over else _WARNING, text % values,
            (_("Make a second key, give it to the client, and let the old one end."),), len(names), names[:NAMED],
        )  # fmt: skip


def another_system_advice(endpoint: str) -> str:
    """What to do where another system renews this account's token (R14). On stable it must have asked by force."""
    if endpoint == "classic":
        return _(
            "Give that system a client key instead of the AppSecret, or set the endpoint to stable, here and there."
        )
    return _("Give that system a client key instead of the AppSecret. This account uses the stable endpoint already: "
             "the other one forces refreshes of it, or the AppSecret was reset.")  # fmt: skip


def _site(facts: Facts) -> Problems:
    if facts.is_copy:
        yield Problem(
            "database-copy", _WARNING, _("This database is a copy of another site's, or has been moved."),
            (_("Run manage.py wechat_token new-site if that site goes on; manage.py wechat_token same-site if this is "
               "that site, moved."),),
        )  # fmt: skip


def _listed(names: tuple[str, ...], count: int) -> str:
    shown = ", ".join(one_line(name)[:LONGEST_NAME] for name in names[:NAMED])
    return f"{shown}, …" if count > min(len(names), NAMED) else shown
