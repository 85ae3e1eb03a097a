"""What could keep tokens from being renewed or served: settings, keys, database, cache, beat, rows, WeChat itself.

Each examination is a generator of findings. One that breaks is a finding too, and does not end the others.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from django.conf import settings as django_settings
from django.core import checks as django_checks
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from django.utils.crypto import get_random_string
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import beat, checks, clock, conf, encryption
from ..client_keys import usage
from ..conf import get_settings
from ..engine import TOLERATED_SKEW, look_remote, renew_fingerprint_key, schedule
from ..engine import alias as database_alias
from ..exceptions import EncryptionKeyError, TokenUnavailable, UpstreamError, WeChatTokenError
from ..models import ACCESS_TOKEN, Account, KeyUsage, Site, Token
from ..platforms import transport
from ..platforms.signatures import sign_page
from ..redaction import Secret
from . import facts, odd_rows, overview, problems, rotation, states
from .evidence import Facts
from .problems import Severity

# Causes that an examination of their own shows in more detail: every account, the periodic task, the cache from here.
EXAMINED_ELSEWHERE = frozenset({
    "whitelist", "refused", "no-answer", "quota-used", "another-system", "complaints-refused", "renewals-late",
    "tick-off", "database-copy",
})  # fmt: skip

DIALECT_WATCHED = dt.timedelta(days=7)  # of use on record before we say that nobody uses something
# Published by WeChat, long dead.
EXAMPLE_TICKET = Secret("sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg")
EXAMPLE = "0f9de62fce790f9a083d5c99e95740ceb90c27ed"

SLOWEST_TICK = 60.0  # seconds between ticks; the stable endpoint leaves two minutes for a renewal


class Level(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """``advice`` says what to do, '' if nothing. A ``PROBLEM`` keeps tokens from being renewed or read."""

    level: Level
    subject: str
    text: str
    advice: str = ""


Findings = Iterator[Finding]


def examine(*, fix: bool = False) -> Findings:
    """Everything, most basic first. ``fix``: also heal odd rows."""
    yield from _guarded(_("settings"), examine_settings)
    if conf.problems():
        return  # nothing below could read its settings
    if get_settings().remote_url:
        yield from _guarded(_("cache"), examine_cache)
        yield from _guarded(_("signatures"), examine_signatures)
        yield from _guarded(_("token server"), examine_remote)
        return
    database = list(_guarded(_("database"), examine_database))
    yield from database
    yield from _guarded(_("cache"), examine_cache)
    yield from _guarded(_("WeChat"), examine_wechat)
    yield from _guarded(_("signatures"), examine_signatures)
    if any(finding.level is Level.PROBLEM for finding in database):
        return
    yield from _guarded(_("site"), partial(examine_site, fix=fix))
    yield from _guarded(_("encryption"), examine_encryption)
    yield from _guarded(_("site"), examine_problems)
    yield from _guarded(_("beat"), examine_beat)
    yield from _guarded(_("rows"), partial(examine_rows, fix=fix))
    yield from _guarded(_("accounts"), examine_accounts)
    yield from _guarded(_("HTTP service"), examine_dialect)


def _guarded(subject: str, examination: Callable[[], Findings]) -> Findings:
    try:
        yield from examination()
    except WeChatTokenError as error:
        yield Finding(Level.PROBLEM, subject, str(error))
    except Exception as error:  # the doctor reports, whatever happens; the type only, as texts may hold anything (S2)
        yield Finding(
            Level.PROBLEM, subject, _("The examination broke off: %(error)s") % {"error": type(error).__name__}
        )


# -- settings, database, cache -----------------------------------------------------------------------


def examine_settings() -> Findings:
    messages = [
        message
        for message in django_checks.run_checks(tags=[checks.TAG], include_deployment_checks=not django_settings.DEBUG)
        if not message.is_silenced()
    ]
    for message in messages:
        level = Level.PROBLEM if message.level >= django_checks.ERROR else Level.WARNING
        yield Finding(level, _("settings"), f"{message.msg} ({message.id})", message.hint or "")
    if not messages:
        yield Finding(Level.OK, _("settings"), _("The system checks have no complaint."))


def examine_database() -> Findings:
    alias = database_alias()
    connection = connections[alias]
    try:
        connection.ensure_connection()
        executor = MigrationExecutor(connection)
        targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] == Account._meta.app_label]
        missing = len(executor.migration_plan(targets))
    except DatabaseError as error:
        yield Finding(
            Level.PROBLEM, _("database"),
            _("The database “%(alias)s” cannot be reached: %(error)s")
            % {"alias": alias, "error": type(error).__name__},
            _("Check DATABASES and whether the server runs."),
        )  # fmt: skip
        return
    if missing:
        text = ngettext("%(count)d migration is missing.", "%(count)d migrations are missing.", missing)
        yield Finding(Level.PROBLEM, _("database"), text % {"count": missing}, _("Run manage.py migrate."))
        return
    for problem in problems.problems(Facts(clock.now(), database=facts.database())):
        yield Finding(Level.PROBLEM, _("database"), problem.text, " ".join(problem.steps))
        return
    else:
        text = _("“%(alias)s” (%(vendor)s) answers and is migrated.")
        yield Finding(Level.OK, _("database"), text % {"alias": alias, "vendor": connection.vendor})


def examine_cache() -> Findings:
    alias = get_settings().cache_alias
    cache = caches[alias]
    if isinstance(cache, LocMemCache | DummyCache):
        yield Finding(
            Level.OK if django_settings.DEBUG else Level.WARNING, _("cache"),
            (
                _("“%(alias)s” is not shared: every process asks the token server for itself.")
                if get_settings().remote_url
                else _("“%(alias)s” is not shared: every process asks the database for each token once a second.")
            )
            % {"alias": alias},
            "" if django_settings.DEBUG else _("Use Redis, Memcached or Django's database cache."),
        )  # fmt: skip
        return
    key, value = f"wechat_token:doctor:{get_random_string(12)}", get_random_string(12)
    started = clock.monotonic()
    try:
        cache.set(key, value, timeout=60)
        answered = cache.get(key) == value
        cache.delete(key)
    except Exception as error:  # whatever a cache backend raises; they have no common base
        yield Finding(
            Level.WARNING, _("cache"),
            (
                _("“%(alias)s” fails: %(error)s. Every process asks the token server for itself meanwhile.")
                if get_settings().remote_url
                else _("“%(alias)s” fails: %(error)s. Tokens are read from the database meanwhile.")
            )
            % {"alias": alias, "error": type(error).__name__},
            _("Check CACHES and whether the server runs."),
        )  # fmt: skip
        return
    if not answered:
        yield Finding(
            Level.WARNING, _("cache"), _("“%(alias)s” does not keep what is stored in it.") % {"alias": alias},
            _("Check the size and the eviction policy of the cache."),
        )  # fmt: skip
        return
    milliseconds = (clock.monotonic() - started) * 1000
    text = _("“%(alias)s” is shared and answers, three calls in %(time).1f ms.")
    yield Finding(Level.OK, _("cache"), text % {"alias": alias, "time": milliseconds})


# -- WeChat ------------------------------------------------------------------------------------------


def examine_wechat() -> Findings:
    """One harmless call without any credential: that it is refused proves that WeChat's API answers."""
    host = get_settings().api_base_url
    try:
        answer = transport.call("GET", "/cgi-bin/get_api_domain_ip")
    except UpstreamError as error:
        advice = _("Check DNS, the firewall, WECHAT_TOKEN['PROXY'] and WECHAT_TOKEN['API_BASE_URL'].")
        yield Finding(Level.PROBLEM, _("WeChat"), f"{host}: {error}", advice)
        return
    if "errcode" not in answer.body:
        yield Finding(
            Level.PROBLEM, _("WeChat"), _("%(host)s answers, but not as WeChat's API does.") % {"host": host},
            _("Check API_BASE_URL, and whether a proxy or a login page answers in WeChat's place."),
        )  # fmt: skip
        return
    yield Finding(Level.OK, _("WeChat"), _("%(host)s answers.") % {"host": host})
    if answer.skew is not None and abs(answer.skew) > TOLERATED_SKEW:
        yield Finding(
            Level.WARNING, _("clock"),
            _("This host's clock is off by %(time)s against WeChat's.")
            % {"time": states.duration(abs(answer.skew))},
            _("Let NTP set it: hosts that share the database have to agree on the time."),
        )  # fmt: skip


def examine_remote() -> Findings:
    """In remote mode: whether this process gets a token, from the shared cache or from the other site."""
    settings = get_settings()
    if not settings.remote_appid:
        yield Finding(
            Level.WARNING, _("token server"), _("Not tried: no account is named."),
            _("Set WECHAT_TOKEN['REMOTE_APPID'] to an account that REMOTE_KEY may read."),
        )  # fmt: skip
        return
    try:
        entry = look_remote((settings.remote_appid, ACCESS_TOKEN), None)
    except TokenUnavailable as error:
        advice = _("Check REMOTE_URL, REMOTE_KEY, and the other site with its own manage.py wechat_token doctor.")
        yield Finding(Level.PROBLEM, _("token server"), str(error), advice)
        return
    text = _("A token of %(appid)s can be had, good for %(time)s.")
    life = states.duration(entry.expires_in(clock.now()))
    yield Finding(Level.OK, _("token server"), text % {"appid": settings.remote_appid, "time": life})


# -- site and hosts ----------------------------------------------------------------------------------


def examine_site(*, fix: bool) -> Findings:
    """Whether the database is a copy, which its cache entries are kept apart for (R32); whether reads are traced."""
    try:
        for site in Site.objects.all():
            site.fingerprint_key.reveal()
    except EncryptionKeyError:
        if fix and rotation.has_the_sites_keys():
            renew_fingerprint_key()
            yield Finding(Level.OK, _("site"), _("Tokens can be traced again, from now on."))
        else:
            advice = (
                _("No AppSecret can be read here either. Put the encryption key back; if it is lost, enter an "
                  "AppSecret again first.")
                if fix
                else _("Put the encryption key back, or run manage.py wechat_token doctor --fix for a new one: then "
                       "earlier reads cannot be traced.")
            )  # fmt: skip
            yield Finding(
                Level.PROBLEM, _("site"),
                _("The key that tokens are traced with cannot be read, so nobody's reads are recorded."), advice,
            )  # fmt: skip
    if checks.database_is_copy():
        yield Finding(
            Level.WARNING, _("site"), _("This database is a copy of another site's, or has been moved."),
            _("Run manage.py wechat_token new-site if that site goes on; manage.py wechat_token same-site if this is "
              "that site, moved."),
        )  # fmt: skip


def examine_problems() -> Findings:
    """What the site's rows tell of itself: silence, slowness, quotas, keys that end; the same as health and alerts."""
    levels = {Severity.WARNING: Level.WARNING}
    for problem in problems.problems(facts.collect()):
        if problem.id.partition("/")[0] not in EXAMINED_ELSEWHERE:
            yield Finding(levels.get(problem.severity, Level.PROBLEM), _("site"), problem.text, " ".join(problem.steps))


# -- stored secrets ----------------------------------------------------------------------------------

_WEAK: Final = {
    "short": gettext_lazy("it is short"),
    "published": gettext_lazy("it is published"),
    "made by hand": gettext_lazy("it was made by hand"),
}


def examine_encryption() -> Findings:
    why = encryption.weakness()
    if why and django_settings.DEBUG:  # without, check W007 says so
        yield Finding(
            Level.WARNING, _("encryption"), _("The key that encrypts is weak: %(why)s.") % {"why": _WEAK[why]},
            _("Set ENCRYPTION_KEYS (and READ_DERIVED_KEYS if SECRET_KEY encrypts), then run manage.py wechat_token "
              "rotate-encryption."),
        )  # fmt: skip
    tally = rotation.survey()
    for whose in tally.unreadable:
        yield Finding(
            Level.PROBLEM, _("encryption"), _("%(whose)s: cannot be read with the configured keys.") % {"whose": whose},
            _("Put the key back that wrote it (ENCRYPTION_KEYS, SECRET_KEY_FALLBACKS; READ_DERIVED_KEYS if it was "
              "SECRET_KEY's), or enter the AppSecret again."),
        )  # fmt: skip
    if tally.older:
        text = ngettext(
            "%(count)d stored secret was written with an older key, or for no row in particular.",
            "%(count)d stored secrets were written with an older key, or for no row in particular.",
            tally.older,
        )
        yield Finding(
            Level.WARNING, _("encryption"), text % {"count": tally.older},
            _("Run manage.py wechat_token rotate-encryption before you remove that key."),
        )  # fmt: skip
    elif encryption.own_keys_set() and encryption.derived_keys_read():
        yield Finding(
            Level.WARNING, _("encryption"), _("READ_DERIVED_KEYS is set, and no stored secret needs it."),
            _("Take it out: with it, whoever knows SECRET_KEY can forge what is read."),
        )  # fmt: skip
    if not tally.unreadable and not tally.older:
        text = ngettext("%(count)d stored secret is readable.", "%(count)d stored secrets are readable.", tally.seen)
        yield Finding(Level.OK, _("encryption"), text % {"count": tally.seen})


# -- beat --------------------------------------------------------------------------------------------


def examine_beat() -> Findings:
    now = clock.now()
    if beat.is_installed() and beat.has_tables(beat.alias()):
        yield from _examine_ticks(beat.ticks(), now)
    yield from _examine_overdue(now)


def _examine_ticks(ticks: list[beat.Tick], now: dt.datetime) -> Findings:
    enabled = [tick for tick in ticks if tick.enabled]
    if not enabled:
        if not beat.is_scheduled_in_settings():
            message = checks.tick_disabled() if ticks else checks.tick_missing()
            yield Finding(Level.PROBLEM, _("beat"), str(message.msg), str(message.hint))
        return
    for tick in enabled:
        if tick.every is not None and tick.every > SLOWEST_TICK:
            yield Finding(
                Level.WARNING, _("beat"),
                _("“%(name)s” runs every %(time)s only.")
                % {"name": tick.name, "time": states.duration(tick.every)},
                _("Set its interval to a few seconds in the admin under Periodic tasks: a tick with nothing to do is "
                  "one query."),
            )  # fmt: skip
    last = max((tick.last_run_at for tick in enabled if tick.last_run_at is not None), default=None)
    start = _("Start: celery -A PROJECT beat -S django. It writes its last runs down every 3 minutes.")
    if last is None:
        yield Finding(Level.WARNING, _("beat"), _("Beat has not run the tick yet."), start)
        return
    ago = max((now - last).total_seconds(), 0.0)
    text = _("Beat last ran the tick %(time)s ago.") % {"time": states.duration(ago)}
    silent = ago > beat.WRITTEN_DOWN_WITHIN + min(tick.every or 0.0 for tick in enabled)
    yield Finding(Level.WARNING if silent else Level.OK, _("beat"), text, start if silent else "")


def _examine_overdue(now: dt.datetime) -> Findings:
    """Tokens waiting for their renewal are the proof that no worker gets the tick; the rest is circumstance."""
    overdue = Token.objects.due(now - schedule.seconds(states.OVERDUE_AFTER))
    oldest = overdue.values_list("due_at", flat=True).first()
    if oldest is None:
        text = _("No token has waited for its renewal for more than %(time)s.")
        yield Finding(Level.OK, _("worker"), text % {"time": states.duration(states.OVERDUE_AFTER)})
        return
    count = overdue.count()
    text = ngettext(
        "%(count)d token is overdue for %(time)s.", "%(count)d tokens are overdue, the longest for %(time)s.", count
    )
    yield Finding(
        Level.PROBLEM, _("worker"),
        text % {"count": count, "time": states.duration((now - oldest).total_seconds())},
        _("Start: celery -A PROJECT worker, and beat. At once, without them: manage.py wechat_token refresh."),
    )  # fmt: skip


# -- the HTTP service -------------------------------------------------------------------------------


def examine_dialect() -> Findings:
    """Whether ``GET cgi-bin/token``, which has a client key in its URL, is open although nobody uses it."""
    dialect, today = get_settings().wechat_dialect, clock.now().date()
    if dialect == "off" or not KeyUsage.objects.filter(day__lte=today - DIALECT_WATCHED).exists():
        return  # nothing to switch off, or not watched for long enough
    requests, by_url, by_body = usage.used_since(today - dt.timedelta(days=get_settings().log_days))
    if by_url or (by_body and dialect == "stable"):
        return
    unused, better = (_("GET cgi-bin/token"), "stable") if by_body else (_("WeChat's dialect"), "off")
    hint = _("Switch it off: WECHAT_TOKEN['WECHAT_DIALECT'] = %(value)r") % {"value": better}
    if better == "off":
        closes = _("That closes cgi-bin/ticket/getticket too, whose use is not counted: no key opens it.")
        hint = f"{hint}. {closes}"
    yield Finding(
        Level.WARNING, _("HTTP service"),
        _("Nobody uses %(what)s: none of %(count)d requests of the last %(days)d days.")
        % {"what": unused, "count": requests, "days": get_settings().log_days},
        hint,
    )  # fmt: skip


# -- pages inside WeChat ----------------------------------------------------------------------------


def examine_signatures() -> Findings:
    """Whether WeChat's published example of a JS-SDK signature comes out (docs/design.md W21)."""
    if sign_page(EXAMPLE_TICKET, "http://mp.weixin.qq.com?params=value", "Wm3WZYTPz0wzccnW", 1414587457) == EXAMPLE:
        yield Finding(Level.OK, _("signatures"), _("WeChat's published example of a JS-SDK signature comes out."))
        return
    yield Finding(
        Level.PROBLEM, _("signatures"), _("WeChat's published example of a JS-SDK signature does not come out."),
        _("Install this package anew: its code was changed."),
    )  # fmt: skip


# -- rows and accounts -------------------------------------------------------------------------------


def examine_rows(*, fix: bool) -> Findings:
    count = 0
    for account in odd_rows.accounts_without_token():
        count += 1
        if fix:
            odd_rows.give_token_row(account)
        yield _odd_row(account.ref, _("it has no token row"), fixed=fix)
    for token, found in odd_rows.odd_tokens(clock.now()):
        count += 1
        what = "; ".join(str(oddity.what) for oddity in found)
        yield _odd_row(token.account.ref, what, fixed=fix and odd_rows.heal(token))
    if not count:
        yield Finding(Level.OK, _("rows"), _("No row is odd."))


def _odd_row(appid: str, what: str, *, fixed: bool) -> Finding:
    if fixed:
        return Finding(Level.OK, _("rows"), _("%(appid)s: healed: %(what)s.") % {"appid": appid, "what": what})
    advice = _("Run manage.py wechat_token doctor --fix.")
    return Finding(Level.PROBLEM, _("rows"), f"{appid}: {what}.", advice)


def examine_accounts() -> Findings:
    lines = overview.lines(clock.now())
    active = [line for line in lines if line.account.is_active]
    if not active:
        yield Finding(
            Level.WARNING, _("accounts"), _("There is no active account."),
            _("Add one in the admin, or: manage.py wechat_token add-account APPID"),
        )  # fmt: skip
        return
    for line in active:
        if line.needs_somebody:
            text = _("%(appid)s: %(state)s. %(error)s") % {
                "appid": line.account.ref,
                "state": line.report.label,
                "error": line.token.error if line.token.failures else "",
            }
            text = text.strip()
            yield Finding(Level.PROBLEM, _("accounts"), text, line.action)
        if line.token.egress_ip:
            yield Finding(
                Level.OK, _("address"),
                _("WeChat saw this server as %(ip)s.") % {"ip": line.token.egress_ip},
            )  # fmt: skip
        if line.another_system_seen:
            yield Finding(Level.WARNING, _("accounts"), f"{line.account.ref}: {line.another_system}")
        if line.complaints_refused:
            text = str(overview.COMPLAINTS_REFUSED)
            yield Finding(Level.WARNING, _("accounts"), f"{line.account.ref}: {text}")
    if not any(line.needs_somebody for line in active):
        text = ngettext("%(count)d active account is well.", "%(count)d active accounts are well.", len(active))
        yield Finding(Level.OK, _("accounts"), text % {"count": len(active)})
