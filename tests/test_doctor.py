"""The doctor: what it finds, how bad it says it is, and what it advises."""

from __future__ import annotations

import datetime as dt
import re
from types import SimpleNamespace

import pytest
from cryptography.fernet import Fernet
from django.core.cache import caches
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from tests.conftest import APPID, SECRET, renew, row
from wechat_token import beat, get_access_token, process
from wechat_token.diagnosis import doctor
from wechat_token.diagnosis.doctor import Finding, Level
from wechat_token.engine import Status, fingerprint, identity
from wechat_token.exceptions import EncryptionKeyError, TokenUnavailable
from wechat_token.models import Account, Host, Site, Token
from wechat_token.redaction import Secret
from wechat_token.sandbox import Fault

OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM
START_BEAT = "Start: celery -A PROJECT beat -S django. It writes its last runs down every 3 minutes."


def ran(ago, now):
    PeriodicTask.objects.filter(task=beat.TASK).update(last_run_at=now - dt.timedelta(seconds=ago))


def levels(findings):
    return {(finding.subject, finding.level.value) for finding in findings}


# -- as a whole


def test_examine__healthy_site(account, time, settings, monkeypatch):
    settings.DEBUG = True
    get_access_token()
    ran(10, time.now())
    assert list(doctor.examine()) == [
        Finding(OK, "settings", "The system checks have no complaint."),
        Finding(OK, "database", f"“default” ({connection.vendor}) answers and is migrated."),
        Finding(OK, "cache", "“default” is not shared: every process asks the database for each token once a second."),
        Finding(OK, "WeChat", "https://api.weixin.qq.com answers."),
        Finding(OK, "signatures", "WeChat's published example of a JS-SDK signature comes out."),
        Finding(OK, "encryption", "2 stored secrets are readable."),
        Finding(OK, "beat", "Beat last ran the tick 10 s ago."),
        Finding(OK, "worker", "No token has waited for its renewal for more than 1 min."),
        Finding(OK, "rows", "No row is odd."),
        Finding(OK, "accounts", "1 active account is well."),
    ]


def test_examine__writes_no_row(account, time):
    with CaptureQueriesContext(
        connection,
    ) as queries:
        list(doctor.examine())
    writes = [q["sql"] for q in queries if q["sql"].split()[0] in {"INSERT", "UPDATE", "DELETE"}]
    assert [sql for sql in writes if not re.search(r"id. = +-1$", sql)] == []  # UPDATEs of no row


def test_examine__broken_settings_end_it_at_once(settings):
    settings.WECHAT_TOKEN = {"OVERLAP": "300"}
    (finding, *more) = doctor.examine()
    assert not more
    assert finding == Finding(
        PROBLEM, "settings", "WECHAT_TOKEN['OVERLAP'] must be a number of 0 or more, not str. (wechat_token.E002)"
    )


def test_examine__an_examination_that_breaks_does_not_end_the_others(account, monkeypatch):
    def breaks():
        raise RuntimeError("canary-secret")
        yield

    monkeypatch.setattr(doctor, "examine_beat", breaks)
    findings = list(doctor.examine())
    assert Finding(PROBLEM, "beat", "The examination broke off: RuntimeError") in findings
    assert findings[-1].subject == "accounts"
    assert "canary" not in repr(findings)


def test_examine__shows_no_secret(account, weixin):
    token = get_access_token()
    weixin.reset_secret(APPID, "another")
    shown = repr(list(doctor.examine()))
    assert SECRET not in shown
    assert token not in shown


# -- settings, database, cache


def test_examine_settings__deployment_counts_where_debug_is_off(settings):
    settings.SECRET_KEY, settings.DEBUG = "short", False
    assert any("W007" in finding.text for finding in doctor.examine_settings())
    settings.DEBUG = True
    assert not any("W007" in finding.text for finding in doctor.examine_settings())


def test_examine_settings__silenced_checks_stay_silent(settings):
    settings.SECRET_KEY, settings.DEBUG = "short", False
    settings.SILENCED_SYSTEM_CHECKS = [
        "wechat_token.W004",
        "wechat_token.W007",
        "wechat_token.W020",
        "wechat_token.W030",
    ]
    assert list(doctor.examine_settings()) == [Finding(OK, "settings", "The system checks have no complaint.")]


def test_examine_database__down(db, monkeypatch, weixin):
    def refuse():
        raise OperationalError("could not connect to canary.example")

    with monkeypatch.context() as patched:
        patched.setattr(connection, "ensure_connection", refuse)
        findings = list(doctor.examine())
    assert (
        Finding(
            PROBLEM,
            "database",
            "The database “default” cannot be reached: OperationalError",
            "Check DATABASES and whether the server runs.",
        )
        in findings
    )
    assert {finding.subject for finding in findings} == {"settings", "database", "cache", "WeChat", "signatures"}


def test_examine_database__migration_missing(db):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'wechat_token'")
    (finding,) = doctor.examine_database()
    assert (finding.level, finding.advice) == (PROBLEM, "Run manage.py migrate.")


class BrokenCache:
    def __init__(self, error=None):
        self.error = error

    def set(self, *args, **kwargs):
        if self.error:
            raise self.error

    def get(self, *args):
        return None

    delete = set


@pytest.mark.parametrize(
    ("cache", "text"),
    [
        (BrokenCache(), "“default” does not keep what is stored in it."),
        (
            BrokenCache(TimeoutError("canary")),
            "“default” fails: TimeoutError. Tokens are read from the database meanwhile.",
        ),
    ],
)
def test_examine_cache__broken(monkeypatch, cache, text):
    monkeypatch.setattr(doctor, "caches", {"default": cache})
    (finding,) = doctor.examine_cache()
    assert (finding.level, finding.text) == (WARNING, text)


def test_examine_cache__shared(settings, tmp_path):
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path)}
    }
    (finding,) = doctor.examine_cache()
    assert finding.level is OK
    assert "is shared and answers" in finding.text
    assert caches["default"]._list_cache_files() == []


# -- WeChat


def test_examine_wechat__sends_no_credential(account, weixin):
    list(doctor.examine_wechat())
    (call,) = weixin.calls
    assert call.endpoint == "get_api_domain_ip"
    assert call.appid in (None, "")


def test_examine_wechat__down(weixin):
    weixin.outage()
    (finding,) = doctor.examine_wechat()
    assert finding.level is PROBLEM
    assert finding.text.startswith("https://api.weixin.qq.com: ")


def test_examine_wechat__somebody_else_answers(weixin, monkeypatch):
    monkeypatch.setattr(doctor.transport, "call", lambda *args: doctor.transport.Answer({"hello": "world"}))
    (finding,) = doctor.examine_wechat()
    assert (finding.level, finding.text) == (
        PROBLEM,
        "https://api.weixin.qq.com answers, but not as WeChat's API does.",
    )


@pytest.mark.parametrize(("skew", "warned"), [(None, False), (29.0, False), (-31.0, True), (90.0, True)])
def test_examine_wechat__clock(monkeypatch, skew, warned):
    monkeypatch.setattr(doctor.transport, "call", lambda *args: doctor.transport.Answer({"errcode": 41001}, skew))
    assert (("clock", "warning") in levels(doctor.examine_wechat())) is warned


# -- remote mode


def test_examine__remote_mode_looks_at_the_token_server_only(settings, monkeypatch, time):
    settings.WECHAT_TOKEN = {"REMOTE_URL": "https://tokens.example/wechat", "REMOTE_KEY": "x", "REMOTE_APPID": APPID}
    entry = SimpleNamespace(expires_in=lambda now: 3600)
    monkeypatch.setattr("wechat_token.diagnosis.doctor.look_remote", lambda key, known: entry)
    *_others, last = doctor.examine()
    assert last == Finding(OK, "token server", f"A token of {APPID} can be had, good for 1 h.")
    assert {finding.subject for finding in _others} == {"settings", "cache", "signatures"}


def test_examine_remote__server_is_down(settings, monkeypatch):
    settings.WECHAT_TOKEN = {"REMOTE_URL": "https://tokens.example/wechat", "REMOTE_KEY": "x", "REMOTE_APPID": APPID}

    def fail(key, known):
        raise TokenUnavailable("The token server does not answer.")

    monkeypatch.setattr("wechat_token.diagnosis.doctor.look_remote", fail)
    (finding,) = doctor.examine_remote()
    assert (finding.level, finding.text) == (PROBLEM, "The token server does not answer.")


def test_examine_remote__no_account_named(settings):
    settings.WECHAT_TOKEN = {"REMOTE_URL": "https://tokens.example/wechat", "REMOTE_KEY": "x"}
    (finding,) = doctor.examine_remote()
    assert finding.level is WARNING


# -- site and hosts


def test_examine_site__where_it_was_set_up(db):
    identity()
    assert list(doctor.examine_site(fix=False)) == []


def test_examine_site__makes_no_new_key_on_a_host_that_lacks_the_sites(account, time, settings):
    """Or all others could not read that one."""
    own = settings.SECRET_KEY
    before = fingerprint(Secret("a token"))
    settings.SECRET_KEY = "of a host that was set up carelessly"
    (finding,) = doctor.examine_site(fix=True)
    assert finding.level is PROBLEM
    assert finding.advice.startswith("No AppSecret can be read here either. Put the encryption key back;")
    settings.SECRET_KEY = own
    process.forget()
    assert fingerprint(Secret("a token")) == before
    settings.SECRET_KEY = "of all hosts, since the other one was lost"
    account.secret = SECRET
    account.save()
    assert list(doctor.examine_site(fix=True)) == [Finding(OK, "site", "Tokens can be traced again, from now on.")]
    assert list(doctor.examine_site(fix=False)) == []


def test_examine_site__a_copied_database_names_both_ways_out(db):
    identity()
    Site.objects.update(place="another server")
    process.forget()
    (finding,) = doctor.examine_site(fix=False)
    assert finding.level is WARNING
    assert "copy of another site's" in finding.text
    assert "manage.py wechat_token new-site" in finding.advice
    assert "manage.py wechat_token same-site" in finding.advice


def met(text, ago, now):
    return {"at": (now - dt.timedelta(seconds=ago)).isoformat(timespec="seconds"), "pid": 1, "text": text}


def test_examine_problems__what_another_host_cannot_read(account, time):
    told = {"EncryptionKeyError": met("A stored WeChat secret cannot be read", 60, time.now())}
    Host.objects.create(name="web-2", seen_at=time.now(), problems=told)
    Host.objects.create(name="web-3", seen_at=time.now(), problems={})
    Host.objects.create(name="gone", seen_at=time.now() - dt.timedelta(hours=1), problems=told)
    (finding,) = doctor.examine_problems()
    assert finding.level is PROBLEM
    assert "cannot be read on web-2:" in finding.text
    assert "that the others have" in finding.advice


def test_examine_problems__a_refresh_that_cannot_read_its_secret_is_told_of(account, settings):
    settings.SECRET_KEY = "changed without a fallback-------"
    with pytest.raises(EncryptionKeyError):
        renew(account)
    (finding,) = doctor.examine_problems()
    assert "Stored AppSecrets cannot be read" in finding.text
    assert SECRET not in repr(finding)


@pytest.mark.parametrize(
    "problems", [["x"], "x", {"E": 7}, {"E": ["x"]}, None, {"E": ""}, {"E": {}}, {"E": {"text": 7}},
                 {"E": {"text": "no", "at": "not-a-time"}}],
)  # fmt: skip
def test_examine_problems__garbled_rows_are_no_obstacle(db, time, problems):
    Host.objects.create(name="web-2", seen_at=time.now(), problems=problems or {})
    assert all(finding.level is PROBLEM for finding in doctor.examine_problems())


# -- encryption


def test_examine_encryption__unreadable_and_old(account, settings):
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    settings.WECHAT_TOKEN = {"ENCRYPTION_KEYS": [old]}
    Account.objects.create(appid="wxold", secret="x")
    settings.WECHAT_TOKEN = {"ENCRYPTION_KEYS": [new, old]}
    settings.SECRET_KEY = "changed without a fallback-------"
    unreadable, older = doctor.examine_encryption()
    assert (unreadable.level, unreadable.text) == (
        PROBLEM,
        f"{APPID} AppSecret: cannot be read with the configured keys.",
    )
    assert (older.level, older.text) == (
        WARNING,
        "1 stored secret was written with an older key, or for no row in particular.",
    )


def test_examine_encryption__a_published_key_is_said_with_debug_on_too(account, settings):
    settings.SECRET_KEY, settings.DEBUG = "example-project-only-not-for-production", True
    Account.objects.update(secret="x")
    assert next(iter(doctor.examine_encryption())) == Finding(
        WARNING, "encryption", "The key that encrypts is weak: it is published.",
        "Set ENCRYPTION_KEYS (and READ_DERIVED_KEYS if SECRET_KEY encrypts), then run manage.py wechat_token "
        "rotate-encryption.",
    )  # fmt: skip


def test_examine_encryption__says_when_derived_keys_are_needed_no_more(account, settings):
    settings.WECHAT_TOKEN = {"ENCRYPTION_KEYS": [Fernet.generate_key()], "READ_DERIVED_KEYS": True}
    assert [finding.text for finding in doctor.examine_encryption()] == [
        "1 stored secret was written with an older key, or for no row in particular."
    ]
    account.secret = "entered anew"
    account.save()
    said = [(finding.level, finding.text) for finding in doctor.examine_encryption()]
    assert said[0] == (WARNING, "READ_DERIVED_KEYS is set, and no stored secret needs it.")


# -- beat and worker


def test_examine_beat__has_not_run_yet(db, time):
    assert next(doctor.examine_beat()) == Finding(WARNING, "beat", "Beat has not run the tick yet.", START_BEAT)


def test_examine_beat__silent_for_long(db, time):
    ran(600, time.now())
    assert next(doctor.examine_beat()) == Finding(WARNING, "beat", "Beat last ran the tick 10 min ago.", START_BEAT)


def test_examine_beat__writes_its_runs_down_late(db, time):
    ran(200, time.now())
    assert next(doctor.examine_beat()).level is OK


def test_examine_beat__slow_interval(db, time):
    slow = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.HOURS)
    PeriodicTask.objects.filter(task=beat.TASK).update(interval=slow)
    ran(1, time.now())
    slow_tick, alive, _worker = doctor.examine_beat()
    assert slow_tick.text == "“wechat_token: refresh due tokens” runs every 1 h only."
    assert (slow_tick.level, alive.level) == (WARNING, OK)


@pytest.mark.parametrize("gone", [True, False])
def test_examine_beat__no_tick(db, gone):
    ticks = PeriodicTask.objects.filter(task=beat.TASK)
    if gone:
        ticks.delete()
    else:
        ticks.update(enabled=False)
    finding = next(doctor.examine_beat())
    assert finding.level is PROBLEM
    assert ("migrate" if gone else "Enable") in finding.advice


def test_examine_beat__scheduled_by_settings(db, settings):
    PeriodicTask.objects.filter(task=beat.TASK).delete()
    settings.CELERY_BEAT_SCHEDULE = {"x": {"task": beat.TASK, "schedule": 5}}
    assert levels(doctor.examine_beat()) == {("worker", "ok")}


def test_examine_beat__overdue_tokens(account, classic, time):
    get_access_token()
    time.pass_until(row(classic).due_at)
    time.pass_(59)
    assert ("worker", "ok") in levels(doctor.examine_beat())
    time.pass_(61)
    *_beat, worker = doctor.examine_beat()
    assert (worker.level, worker.text) == (PROBLEM, "1 token is overdue for 2 min.")


# -- rows and accounts


def test_examine_rows__odd(account, time):
    get_access_token()
    Token.objects.update(due_at=None, usage=[])
    Account.objects.bulk_create([Account(appid="wxbulk")])
    advice = "Run manage.py wechat_token doctor --fix."
    assert list(doctor.examine_rows(fix=False)) == [
        Finding(PROBLEM, "rows", "wxbulk: it has no token row.", advice),
        Finding(PROBLEM, "rows", f"{APPID}: it is never due; its count of calls is garbled.", advice),
    ]


def test_examine_rows__fix(account, time):
    get_access_token()
    Token.objects.update(due_at=None)
    Account.objects.bulk_create([Account(appid="wxbulk")])
    assert list(doctor.examine_rows(fix=True)) == [
        Finding(OK, "rows", "wxbulk: healed: it has no token row."),
        Finding(OK, "rows", f"{APPID}: healed: it is never due."),
    ]
    assert list(doctor.examine_rows(fix=False)) == [Finding(OK, "rows", "No row is odd.")]


def test_examine_accounts__none(db):
    (finding,) = doctor.examine_accounts()
    assert (finding.level, finding.text) == (WARNING, "There is no active account.")


def test_examine_accounts__whitelist_names_our_address(account, weixin):
    weixin.set_ip_whitelist(APPID, ["203.0.113.9"])
    with pytest.raises(Exception, match="40164"):
        get_access_token()
    problem, address = doctor.examine_accounts()
    assert problem.level is PROBLEM
    assert "errcode 40164" in problem.text
    assert "Add 127.0.0.1 to the IP whitelist" in problem.advice
    assert address == Finding(OK, "address", "WeChat saw this server as 127.0.0.1.")


def test_examine_accounts__another_system(account, time):
    Token.objects.update(foreign_refreshes=3, foreign_at=time.now())
    get_access_token()
    warning, well = doctor.examine_accounts()
    assert (warning.level, well.level) == (WARNING, OK)
    assert "3 times so far" in warning.text
    time.pass_(8 * 24 * 3600)
    assert "3 times so far" not in repr(list(doctor.examine_accounts()))


def test_examine_accounts__complaints_are_refused(account, time):
    get_access_token()
    Token.objects.update(complaints_refused_at=time.now())
    warning, well = doctor.examine_accounts()
    assert (warning.level, well.level) == (WARNING, OK)
    assert warning.text.startswith(f"{APPID}: Complaints about this token are refused")


def test_examine_accounts__a_retry_with_a_good_token_is_no_problem(classic, weixin, time):
    get_access_token()
    weixin.inject(Fault("status", status=502))
    time.pass_until(row(classic).due_at)
    assert renew(classic).status is Status.FAILED
    assert levels(doctor.examine_accounts()) == {("accounts", "ok")}
