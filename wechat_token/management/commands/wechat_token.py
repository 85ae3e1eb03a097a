"""``manage.py wechat_token``: what the admin does, for shells, scripts and monitoring. See ``docs/commands.md``."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import json
import os
import sys
from collections.abc import Callable, Collection
from typing import Any

from django.core import checks as django_checks
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, IntegrityError, connections
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from wechat_token import checks, clock
from wechat_token.client_keys import keys, reads
from wechat_token.conf import get_settings
from wechat_token.diagnosis import alerts, doctor, facts, overview, problems, rotation, states
from wechat_token.diagnosis.problems import Severity
from wechat_token.engine import (
    Crowded,
    NotYet,
    Outcome,
    Reason,
    Status,
    alias,
    clear_quota,
    find_token,
    identity,
    refresh_now,
    settle_site,
)
from wechat_token.exceptions import AccountError, UpstreamError, WeChatTokenError
from wechat_token.forms import AccountForm
from wechat_token.models import ACCESS_TOKEN, Account, Endpoint, Reading, Token
from wechat_token.platforms import explain
from wechat_token.redaction import Secret, one_line

SECRET_VARIABLE = "WECHAT_SECRET"  # noqa: S105  the name of a variable, not a secret

LONGEST_TOKEN = 4096  # characters

UNHEALTHY, USAGE, INTERRUPTED = 1, 2, 130  # exit codes


class Command(BaseCommand):
    help = "Look after WeChat accounts, their tokens and the keys of the services that read them."
    # The doctor has to run where checks fail; the others run ours themselves.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        subcommands = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")

        status = subcommands.add_parser("status", help="show every account; exit code 1 if one needs somebody")
        status.add_argument("--json", action="store_true", dest="as_json", help="for machines")

        add = subcommands.add_parser(
            "add-account", help=f"add an account; its AppSecret is asked for, or ${SECRET_VARIABLE}"
        )
        add.add_argument("appid", metavar="APPID")
        add.add_argument("--name", default="", help="what people call it")
        add.add_argument("--endpoint", choices=Endpoint.values, default=Endpoint.STABLE.value)
        add.add_argument("--default", action="store_true", dest="is_default", help="use it where none is named")

        renew = subcommands.add_parser("refresh", help="renew tokens now, without Celery")
        renew.add_argument("appids", metavar="APPID", nargs="*", help="by default all active accounts")

        key = subcommands.add_parser("add-key", help="make a key for a service that reads tokens, and print it once")
        key.add_argument("name", metavar="NAME", help="the service")
        key.add_argument(
            "--account", action="append", default=[], dest="appids", metavar="APPID", help="may be repeated"
        )
        key.add_argument("--all-accounts", action="store_true")
        key.add_argument("--may-refresh", action="store_true", help="may report a refused token")
        key.add_argument("--may-read", choices=Reading.values, default=Reading.EVERYTHING, help="what it is given")
        key.add_argument(
            "--network", action="append", default=[], dest="networks", metavar="CIDR", help="may be repeated"
        )
        key.add_argument("--expires", type=_days, metavar="DAYS")

        examine = subcommands.add_parser("doctor", help="look for everything that could keep tokens from being renewed")
        examine.add_argument("--fix", action="store_true", help="heal odd token rows")

        subcommands.add_parser("trace", help="say who was given a token that leaked (asked for, or from stdin)")

        clear = subcommands.add_parser("clear-quota", help="ask WeChat to set an account's counters of calls to zero")
        clear.add_argument("appid", metavar="APPID")
        clear.add_argument("--yes", action="store_true", help="do not ask: ten a month are all there are")

        alert = subcommands.add_parser("alert", help="try whether alerts reach the people they are for")
        alert.add_argument("--test", action="store_true", help="send a test message to all of them now")

        subcommands.add_parser("rotate-encryption", help="write every stored secret anew with the first key")
        subcommands.add_parser("new-site", help="this database is a copy: let it have a cache of its own, for good")
        subcommands.add_parser("same-site", help="this database has moved: let it go on with the cache it had")

    def handle(self, *args: Any, subcommand: str, **options: Any) -> None:
        """Raises ``CommandError`` with one line that says what to do; its return code is 1, or 2 for wrong usage."""
        subcommands: dict[str, Callable[..., None]] = {
            "status": self.status,
            "alert": self.alert,
            "add-account": self.add_account,
            "refresh": self.refresh,
            "add-key": self.add_key,
            "doctor": self.doctor,
            "trace": self.trace,
            "clear-quota": self.clear_quota,
            "rotate-encryption": self.rotate_encryption,
            "new-site": self.new_site,
            "same-site": self.same_site,
        }
        work = subcommands[subcommand]
        if subcommand != "doctor":
            _refuse_broken_settings()
        try:
            work(**options)
        except CommandError as error:
            raise CommandError(one_line(error), returncode=error.returncode) from None
        except DatabaseError as error:
            raise CommandError(_explain_database(error)) from None
        except WeChatTokenError as error:
            raise CommandError(one_line(error)) from None
        except KeyboardInterrupt:
            # Every write is one statement, and a request under way is repaired by its intent (R2).
            raise CommandError(_("Interrupted. Nothing is half done; run it again."), returncode=INTERRUPTED) from None

    # -- subcommands -----------------------------------------------------------------------------

    def status(self, *, as_json: bool, **options: Any) -> None:
        if get_settings().remote_url:
            self._remote_status(as_json=as_json)
            return
        now = clock.now()
        lines = overview.lines(now)
        found = problems.problems(facts.of_site())
        if as_json:
            self.stdout.write(json.dumps(overview.as_json(lines, now, found), indent=2))
        elif not lines:
            self._say(_("There is no WeChat account yet. Add one: manage.py wechat_token add-account APPID"))
        else:
            for row in overview.table(lines):
                self._say(row)
        for problem in found if not as_json else ():
            self._say(f"{problem.severity}: {problem.text}")
            for step in problem.steps:
                self._say(f"    {step}")
        bad = sum(line.needs_somebody for line in lines)
        if bad:
            text = ngettext("%(count)d account needs attention.", "%(count)d accounts need attention.", bad)
            raise CommandError(text % {"count": bad}, returncode=UNHEALTHY)
        if any(problem.severity is not Severity.WARNING for problem in found):
            raise CommandError(_("The site needs attention."), returncode=UNHEALTHY)

    def _remote_status(self, *, as_json: bool) -> None:
        """The accounts are the other site's: here is only whether a token can be had."""
        findings = list(doctor.examine_remote())
        bad = any(finding.level is doctor.Level.PROBLEM for finding in findings)
        if as_json:
            told = [
                {"level": finding.level.value, "text": finding.text, "advice": finding.advice} for finding in findings
            ]
            body = {"checked_at": clock.now().isoformat(timespec="seconds"), "healthy": not bad, "remote": told}
            self.stdout.write(json.dumps(body, indent=2))
        else:
            text = _("This site takes its tokens from %(url)s; its accounts are there.")
            self._say(text % {"url": get_settings().remote_url})
            for finding in findings:
                self._say(" ".join(filter(None, (finding.text, finding.advice))))
        if bad:
            raise CommandError(_("No token can be had from there."), returncode=UNHEALTHY)

    def alert(self, *, test: bool, **options: Any) -> None:
        if not test:
            raise CommandError(_("Say --test: a test message to everybody who gets alerts."), returncode=USAGE)
        told = alerts.test()
        if not told:
            raise CommandError(
                _("Nobody gets alerts: set WECHAT_TOKEN['ALERT_EMAILS'] or ['ALERT_WEBHOOKS']."), returncode=UNHEALTHY
            )
        for name, wrong in told.items():
            text = _("%(name)s: failed: %(error)s") if wrong else _("%(name)s: sent")
            style = self.style.ERROR if wrong else self.style.SUCCESS
            self._say(text % {"name": name, "error": wrong}, style)
        if any(told.values()):
            raise CommandError(_("Not everybody can be reached."), returncode=UNHEALTHY)

    def add_account(self, *, appid: str, name: str, endpoint: str, is_default: bool, **options: Any) -> None:
        fields = {"appid": appid, "name": name, "endpoint": endpoint, "is_active": True, "is_default": is_default}
        _refuse(AccountForm(fields), but={"secret"})  # before anybody types a secret in vain
        form = AccountForm(fields | {"secret": _ask_for_secret(appid).reveal()})
        _refuse(form)
        if form.secret_looks_unusual:
            self._note(_("WeChat's AppSecrets have 32 digits and letters from a to f; this one looks different."))
        try:
            account = form.save()
        except IntegrityError:  # added by somebody else while the secret was typed
            raise CommandError(_account_exists(), returncode=USAGE) from None
        text = _(
            "Added %(account)s. The worker fetches its token; or do it here: manage.py wechat_token refresh %(appid)s"
        )
        self._say(text % {"account": account, "appid": account.ref})

    def refresh(self, *, appids: list[str], **options: Any) -> None:
        failed = 0
        for token in _tokens(appids):
            text, done = _refresh(token)
            failed += not done
            self._say(f"{token.account.ref}: {text}", self.style.SUCCESS if done else self.style.ERROR)
            self.stdout.flush()
        if failed:
            text = ngettext("%(count)d account was not refreshed.", "%(count)d accounts were not refreshed.", failed)
            raise CommandError(text % {"count": failed}, returncode=UNHEALTHY)

    def add_key(
        self, *, name: str, appids: list[str], all_accounts: bool, may_refresh: bool, may_read: str,
        networks: list[str], expires: int | None, **options: Any,
    ) -> None:  # fmt: skip
        if bool(appids) == all_accounts:
            raise CommandError(
                _("Say which accounts the key may read: --account APPID (may be repeated) or --all-accounts."),
                returncode=USAGE,
            )
        accounts = _accounts(appids)
        try:
            key, plain = keys.make_key(
                name,
                accounts=accounts,
                all_accounts=all_accounts,
                may_refresh=may_refresh,
                may_read=may_read,
                networks="\n".join(networks),
                expires_at=None if expires is None else clock.now() + dt.timedelta(days=expires),
                by=_operator(),
            )
        except ValidationError as error:
            raise CommandError(_one_line(error), returncode=USAGE) from None
        self.stdout.write(plain.reveal())
        self._note(_("This is the key %(key)s. It cannot be shown again.") % {"key": key})

    def doctor(self, *, fix: bool, **options: Any) -> None:
        styles = {
            doctor.Level.OK: self.style.SUCCESS,
            doctor.Level.WARNING: self.style.WARNING,
            doctor.Level.PROBLEM: self.style.ERROR,
        }
        problems = 0
        for finding in doctor.examine(fix=fix):
            problems += finding.level is doctor.Level.PROBLEM
            self.stdout.write(styles[finding.level](f"{finding.level:<8} "), ending="")
            self._say(f"{finding.subject}: {finding.text}")
            if finding.advice:
                self._say(f"{'':<8} → {finding.advice}")
            self.stdout.flush()
        if problems:
            text = ngettext("%(count)d problem.", "%(count)d problems.", problems)
            raise CommandError(text % {"count": problems}, returncode=UNHEALTHY)

    def trace(self, **options: Any) -> None:
        found = reads.readers(_ask_for_token())
        if not found:
            text = _(
                "Nobody is on record as a reader of this token: it is not of this site, or older than %(days)d days, "
                "or only the site's own code read it."
            )
            raise CommandError(text % {"days": get_settings().log_days}, returncode=UNHEALTHY)
        first = found[0]
        self._say(_("%(kind)s of %(account)s, version %(version)d. It was given to:") % {
            "kind": first.kind, "account": first.ref, "version": first.version,
        })  # fmt: skip
        for read in found:
            who = _("client key %(key)s… (%(name)s)") if read.prefix else _("%(name)s, in the admin")
            who %= {"key": read.prefix, "name": read.reader}
            self._say(f"{read.at.isoformat(timespec='seconds')}  {who}")

    def clear_quota(self, *, appid: str, yes: bool, **options: Any) -> None:
        account = _token(appid).account
        if not yes:
            _ask_whether_to_clear(account)
        try:
            asked = clear_quota(account)
        except UpstreamError as error:
            text = _("failed: %(error)s. %(action)s")
            meant = explain(account.platform, ACCESS_TOKEN, error)
            values = {"error": error, "action": meant.advise(error.egress_ip)}
            raise CommandError(text % values, returncode=UNHEALTHY) from None
        except LookupError as error:
            raise CommandError(str(error), returncode=USAGE) from None
        text = _("WeChat has set today's counters of %(appid)s to zero. What waited for it is tried again now.")
        if not asked:
            text = _("WeChat was asked to clear the counters of %(appid)s a moment ago.")
        self._say(text % {"appid": account.ref})

    def rotate_encryption(self, **options: Any) -> None:
        tally = rotation.rotate(lambda tally: self._note(_("Stored secrets seen: %(count)d") % {"count": tally.seen}))
        self._say(
            _("%(older)d rewritten, %(current)d had the first key already, %(unreadable)d unreadable.")
            % {"older": tally.older, "current": tally.current, "unreadable": len(tally.unreadable)}
        )
        if tally.unreadable:
            raise CommandError(
                _("No configured key reads: %(whose)s. Put the key back that wrote them, or enter the AppSecret again.")
                % {"whose": ", ".join(tally.unreadable)},
                returncode=UNHEALTHY,
            )

    def new_site(self, **options: Any) -> None:
        settle_site(as_new=True)
        self._say(_("This database is a site of its own now; nothing it has in the cache is shared."))

    def same_site(self, **options: Any) -> None:
        was_copy = identity().is_copy
        settle_site(as_new=False)
        text = _("This database is where its site is now.") if was_copy else _("It was already: nothing to do.")
        self._say(text)

    def _say(self, text: str, style: Callable[[str], str] | None = None) -> None:
        """One line of the result. Names in it were typed by others, and a terminal obeys what it shows."""
        self.stdout.write(one_line(text), style)

    def _note(self, text: str) -> None:
        """For people who watch; not part of the result."""
        self.stderr.write(one_line(text), style_func=str)


# -- helpers ---------------------------------------------------------------------------------------


def _refuse_broken_settings() -> None:
    """Ours only, and errors only: ``status`` runs in cron, where a warning a minute helps nobody."""
    for message in django_checks.run_checks(tags=[checks.TAG]):
        if message.is_serious() and not message.is_silenced():
            raise CommandError(f"{message.msg} {message.hint or ''} ({message.id})")


def _refuse(form: AccountForm, but: Collection[str] = ()) -> None:
    """Raise what the form objects to. The admin's form, so that both refuse the same."""
    errors = {field: texts for field, texts in form.errors.as_data().items() if field not in but}
    if errors:
        raise CommandError(_one_line(ValidationError(errors)), returncode=USAGE)


def _one_line(error: ValidationError) -> str:
    if any(problem.code == "unique" for problem in error.error_dict.get("appid", ())):
        return _account_exists()
    return " ".join(f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items())


def _account_exists() -> str:
    return _("There is already an account with this AppID. Change it in the admin.")


def _days(text: str) -> int:
    """Argument type: a number of days that a date can hold."""
    if not text.isdecimal() or not 0 < int(text) < 36_500:
        raise argparse.ArgumentTypeError(_("a whole number of days above 0"))
    return int(text)


def _ask_for_secret(appid: str) -> Secret:
    """The AppSecret from the environment or the terminal; never from ``argv``, which every user of the host sees."""
    if SECRET_VARIABLE in os.environ:
        secret = Secret(os.environ[SECRET_VARIABLE].strip())
    elif sys.stdin.isatty():
        secret = Secret(getpass.getpass(_("AppSecret of %(appid)s: ") % {"appid": appid}).strip())
    else:
        raise CommandError(
            _("Put the AppSecret into the variable %(name)s, or run this in a terminal.") % {"name": SECRET_VARIABLE},
            returncode=USAGE,
        )
    if not secret:
        raise CommandError(_("The AppSecret is empty. Copy it from the WeChat console."), returncode=USAGE)
    return secret


def _ask_for_token() -> Secret:
    """From the terminal, unseen, or from a pipe; never from ``argv``."""
    if sys.stdin.isatty():
        token = Secret(getpass.getpass(_("Token: ")).strip())
    else:
        token = Secret(sys.stdin.read(LONGEST_TOKEN).strip())
    if not token:
        raise CommandError(_("Give the token on standard input, or type it when asked."), returncode=USAGE)
    return token


def _operator() -> str:
    """Who runs this, for the security log."""
    try:
        return f"{getpass.getuser()}@shell"
    except (OSError, KeyError):  # a container's user without a name
        return "shell"


def _ask_whether_to_clear(account: Account) -> None:
    """Raises ``CommandError`` unless a person at a terminal agrees."""
    if not sys.stdin.isatty():
        raise CommandError(_("Run this in a terminal, or say --yes."), returncode=USAGE)
    text = _(
        "WeChat grants this ten times a month, the console's button and other systems included. "
        "Clear today's counters of %(account)s? [y/N] "
    )
    if input(text % {"account": account}).strip().lower() not in ("y", "yes"):
        raise CommandError(_("Nothing was done."), returncode=USAGE)


def _accounts(appids: list[str]) -> list[Account]:
    """The accounts of these AppIDs, inactive ones too. Raises ``CommandError`` that names the choices."""
    found = {account.ref: account for account in Account.objects.filter(ref__in=appids)}
    for appid in appids:
        if appid not in found:
            _token(appid)
    return list(found.values())


def _tokens(appids: list[str]) -> list[Token]:
    """The token rows of these accounts, or of all active ones. Raises ``CommandError`` that names the choices."""
    chosen = appids or list(Account.objects.active().order_by("ref").values_list("ref", flat=True))
    if not chosen:
        raise CommandError(
            _("There is no active WeChat account. Add one: manage.py wechat_token add-account APPID"),
            returncode=UNHEALTHY,
        )
    return [_token(appid) for appid in dict.fromkeys(chosen)]


def _token(appid: str) -> Token:
    try:
        return find_token((appid, ACCESS_TOKEN))
    except AccountError as error:
        raise CommandError(str(error), returncode=USAGE) from None


def _refresh(token: Token) -> tuple[str, bool]:
    """What became of it, in words, and whether it went well. One that fails does not hold up the others."""
    try:
        return _in_words(refresh_now((token.account.ref, token.kind), Reason.COMMAND))
    except (WeChatTokenError, Crowded, NotYet) as error:
        return str(error), False
    except DatabaseError as error:
        return _explain_database(error), False


def _in_words(outcome: Outcome) -> tuple[str, bool]:
    now = clock.now()
    token, until = outcome.token, outcome.until
    wait = states.duration((until - now).total_seconds()) if until is not None and until > now else ""
    life = states.duration((token.expires_at - now).total_seconds()) if token.expires_at is not None else ""
    match outcome.status:
        case Status.RENEWED:
            return _("renewed, good for %(time)s.") % {"time": life}, True
        case Status.UNCHANGED:
            return _("WeChat returned the same token, good for %(time)s.") % {"time": life}, True
        case Status.BUSY | Status.SUPERSEDED:
            return _("another process is refreshing it."), True
        case Status.LIMITED:
            text = _("today's calls are used up, but for those kept for renewals. Again in %(time)s.")
            return text % {"time": wait}, False
        case Status.FAILED:
            return _("failed: %(error)s. %(action)s") % {"error": outcome.error, "action": _advice(outcome)}, False
        case Status.WAITING if outcome.held is not None:
            return _("it waits for %(root)s, which cannot be had now.") % {"root": outcome.held.root}, False
        case _:
            return _("refreshed a moment ago; nothing was done."), True


def _advice(outcome: Outcome) -> str:
    error, token = outcome.error, outcome.token
    if error is None:
        return ""
    on_stable = token.account.endpoint == Endpoint.STABLE
    return explain(token.account.platform, token.kind, error).advise(error.egress_ip, on_stable=on_stable)


def _explain_database(error: DatabaseError) -> str:
    connection = connections[alias()]
    try:
        tables = set(connection.introspection.table_names())
    except DatabaseError as unreachable:
        return _("The database cannot be reached: %(error)s. Check DATABASES.") % {"error": type(unreachable).__name__}
    if not {Account._meta.db_table, Token._meta.db_table} <= tables:
        return _("The tables of wechat_token are missing. Run: manage.py migrate")
    return _("The database failed: %(error)s. Is a migration missing? Run: manage.py migrate") % {
        "error": type(error).__name__
    }
