"""``manage.py wechat_token``: what it prints where, and the exit codes that scripts rely on."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command

from tests.conftest import APPID, SECRET, row
from tests.live.site import live_site
from wechat_token import get_access_token, process
from wechat_token.client_keys import keys
from wechat_token.engine import identity
from wechat_token.models import Account, ClientKey, RefreshLog, Site, Token
from wechat_token.sandbox import Fault

OTHER = "wxfedcba9876543210"


class Run:
    """One run of the command, with what it wrote and the exit code it would end with."""

    def __init__(self, *args: str) -> None:
        out, err = io.StringIO(), io.StringIO()
        self.code, self.error = 0, ""
        try:
            call_command("wechat_token", *args, stdout=out, stderr=err, no_color=True)
        except CommandError as error:
            self.code, self.error = error.returncode, str(error)
        self.out, self.err = out.getvalue(), err.getvalue()


@pytest.fixture
def secret(monkeypatch):
    def secret(text):
        monkeypatch.setenv("WECHAT_SECRET", text)

    return secret


@pytest.fixture
def terminal(monkeypatch):
    """A person at a terminal who types this when asked for the secret."""

    def terminal(typed):
        monkeypatch.delenv("WECHAT_SECRET", raising=False)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: typed is not None, raising=False)
        monkeypatch.setattr("getpass.getpass", lambda prompt: typed)

    return terminal


# -- status


def test_status__healthy(account):
    get_access_token()
    run = Run("status")
    assert (run.code, run.err) == (0, "")
    assert APPID in run.out
    assert "good" in run.out


def test_status__no_account_yet(db):
    run = Run("status")
    assert run.code == 0
    assert "add-account" in run.out


def test_status__unhealthy(account, weixin):
    weixin.reset_secret(APPID, "another")
    assert Run("refresh").code == 1
    run = Run("status")
    assert (run.code, run.error) == (1, "1 account needs attention.")
    assert "errcode 40001" in run.out or "errcode 40125" in run.out
    assert "to do: Ask whoever last reset the AppSecret" in run.out


def test_status__json_is_json_also_when_unhealthy(account, weixin):
    weixin.reset_secret(APPID, "another")
    Run("refresh")
    run = Run("status", "--json")
    assert run.code == 1
    report = json.loads(run.out)
    assert report["healthy"] is False
    assert report["accounts"][0]["state"] == "dead"


# -- add-account


def test_add_account__secret_from_the_environment(db, secret, weixin):
    secret(f" {SECRET}\n")
    run = Run("add-account", APPID, "--name", "shop", "--endpoint", "classic", "--default")
    assert run.code == 0
    account = Account.objects.get()
    assert (account.appid, account.name, account.endpoint, account.is_default) == (APPID, "shop", "classic", True)
    assert account.secret.reveal() == SECRET
    assert SECRET not in run.out + run.err
    assert row(account).due_at is not None


def test_add_account__secret_typed(db, terminal, weixin):
    terminal(SECRET)
    assert Run("add-account", APPID).code == 0
    assert Account.objects.get().secret.reveal() == SECRET


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ("", "The AppSecret is empty. Copy it from the WeChat console."),
        ("   ", "The AppSecret is empty. Copy it from the WeChat console."),
        ("canary words", "secret: The AppSecret has a blank inside. Copy it again from the WeChat console."),
    ],
)
def test_add_account__unusable_secret(db, terminal, typed, error):
    terminal(typed)
    run = Run("add-account", APPID)
    assert (run.code, run.error) == (2, error)
    assert "canary" not in run.error
    assert not Account.objects.exists()


def test_add_account__refuses_what_the_admin_refuses(db, secret):
    secret(APPID)
    run = Run("add-account", APPID)
    assert run.code == 2
    assert "That is an AppID" in run.error
    assert Run("add-account", "0123456789abcdef" * 2).error.startswith("appid: That was an AppSecret.")


def test_add_account__unusual_secret_is_remarked_upon(db, secret, weixin):
    secret("0123456789abcdef" * 2)
    assert Run("add-account", APPID).err == ""
    secret("short")
    run = Run("add-account", OTHER)
    assert run.code == 0
    assert "this one looks different" in run.err


def test_add_account__nobody_to_ask(db, terminal):
    terminal(None)
    run = Run("add-account", APPID)
    assert run.code == 2
    assert run.error == "Put the AppSecret into the variable WECHAT_SECRET, or run this in a terminal."


def test_add_account__secret_on_the_command_line_is_refused(db):
    assert Run("add-account", APPID, "--secret", "x").code != 0
    assert Run("add-account", APPID, "x").code != 0


def test_add_account__duplicate(account, secret):
    secret("x")
    run = Run("add-account", APPID)
    assert run.code == 2
    assert run.error == "There is already an account with this AppID. Change it in the admin."
    assert Account.objects.get().secret.reveal() == SECRET


def test_add_account__duplicate_made_while_the_secret_was_typed(db, monkeypatch, weixin):
    monkeypatch.delenv("WECHAT_SECRET", raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: Account.objects.create(appid=APPID, secret="y") and "x")
    run = Run("add-account", APPID)
    assert (run.code, run.error) == (2, "There is already an account with this AppID. Change it in the admin.")


@pytest.mark.parametrize("appid", ["wx 123", "wx", "微信", "x" * 65])
def test_add_account__bad_appid(db, secret, appid):
    secret("x")
    run = Run("add-account", appid)
    assert run.code == 2
    assert run.error.startswith("appid: ")


def test_add_account__asks_for_no_secret_in_vain(account, terminal, monkeypatch):
    terminal("x")
    monkeypatch.setattr("getpass.getpass", lambda prompt: pytest.fail("asked"))
    assert Run("add-account", APPID).code == 2


# -- refresh


def test_refresh__all_active_accounts(account, weixin):
    weixin.add_account(OTHER, "x")
    Account.objects.create(appid=OTHER, secret="x")
    Account.objects.create(appid="wxinactive", secret="x", is_active=False)
    run = Run("refresh")
    assert run.code == 0
    assert run.out.splitlines() == [f"{APPID}: renewed, good for 2 h.", f"{OTHER}: renewed, good for 2 h."]
    assert set(RefreshLog.objects.values_list("reason", flat=True)) == {"command"}


def test_refresh__only_those_named_and_each_once(account, weixin):
    weixin.add_account(OTHER, "x")
    Account.objects.create(appid=OTHER, secret="x")
    run = Run("refresh", OTHER, OTHER)
    assert run.out.splitlines() == [f"{OTHER}: renewed, good for 2 h."]


def test_refresh__stable_returns_the_same_token(account, time):
    Run("refresh")
    time.pass_(60)
    run = Run("refresh")
    assert (run.code, run.out) == (0, f"{APPID}: WeChat returned the same token, good for 1 h 59 min.\n")


def test_refresh__twice_in_a_moment(account):
    Run("refresh")
    run = Run("refresh")
    assert (run.code, run.out) == (0, f"{APPID}: refreshed a moment ago; nothing was done.\n")


def test_refresh__somebody_else_is_at_it(account, time):
    lease_until = time.now() + dt.timedelta(seconds=15)
    Token.objects.update(lease_owner="other", lease_until=lease_until)
    run = Run("refresh")
    assert (run.code, run.out) == (0, f"{APPID}: another process is refreshing it.\n")


def test_refresh__one_failure_does_not_hold_up_the_others(account, weixin):
    weixin.reset_secret(APPID, "another")
    weixin.add_account(OTHER, "x")
    Account.objects.create(appid=OTHER, secret="x")
    run = Run("refresh")
    assert (run.code, run.error) == (1, "1 account was not refreshed.")
    first, second = run.out.splitlines()
    assert first.startswith(f"{APPID}: failed: {APPID}: errcode ")
    assert "Ask whoever last reset the AppSecret" in first
    assert second == f"{OTHER}: renewed, good for 2 h."


def test_refresh__daily_limit(classic, time):
    """R16, R33: a person leaves what the schedule may need until midnight."""
    Token.objects.update(usage={"day": "2026-03-02", "classic": 1700}, failures=1, error="of another time")
    run = Run("refresh")
    assert run.code == 1
    assert run.out == f"{APPID}: today's calls are used up, but for those kept for renewals. Again in 12 h.\n"


def test_refresh__unreadable_secret(account, settings):
    settings.SECRET_KEY = "changed without a fallback-------"
    run = Run("refresh")
    assert run.code == 1
    assert run.out.startswith(f"{APPID}: A stored WeChat secret cannot be read")


def test_refresh__unknown_account_names_the_choices(account):
    run = Run("refresh", "wxtypo")
    assert run.code == 2
    assert run.error == f"There is no WeChat account with the AppID 'wxtypo'. Active accounts: {APPID}"


def test_refresh__no_account_yet(db):
    run = Run("refresh")
    assert run.code == 1
    assert run.error == "There is no active WeChat account. Add one: manage.py wechat_token add-account APPID"


@pytest.mark.proof
def test_refresh__interrupted():
    """While WeChat is waited for: the process ends at once, and the row's intent brings the repair (R2)."""
    with live_site() as site:
        site.add_account(APPID, "classic")
        site.fake.inject(Fault("hang_after", seconds=30))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        run = site.start("manage.py", "wechat_token", "refresh", **pipes)
        for _ in range(200):
            if site.fake.calls:
                break
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        out, error = run.communicate(timeout=5)
        assert (run.returncode, out) == (130, "")
        assert error == "CommandError: Interrupted. Nothing is half done; run it again.\n"
        doubt = "from wechat_token.models import Token; print(Token.objects.get().unanswered_since is not None)"
        assert site.shell(doubt) == "True\n"


# -- add-key


def test_add_key__prints_the_key_alone(account, time):
    run = Run("add-key", "crm", "--account", APPID, "--may-refresh", "--expires", "30", "--network", "10.0.0.0/8")
    assert run.code == 0
    (plain,) = run.out.splitlines()
    assert keys.is_well_formed(plain)
    assert plain not in run.err
    key = ClientKey.objects.get()
    assert key.digest == keys.digest(plain)
    assert (key.name, key.may_refresh, key.all_accounts, key.networks) == ("crm", True, False, "10.0.0.0/8")
    assert list(key.accounts.all()) == [account]
    assert key.expires_at == time.now() + dt.timedelta(days=30)


def test_add_key__all_accounts(db):
    assert Run("add-key", "crm", "--all-accounts").code == 0
    key = ClientKey.objects.get()
    assert (key.all_accounts, key.may_refresh, key.expires_at) == (True, False, None)


def test_add_key__for_an_inactive_account(account):
    Account.objects.update(is_active=False)
    assert Run("add-key", "crm", "--account", APPID).code == 0


@pytest.mark.parametrize("options", [[], ["--all-accounts", "--account", APPID]])
def test_add_key__accounts_have_to_be_said(account, options):
    run = Run("add-key", "crm", *options)
    assert run.code == 2
    assert run.error.startswith("Say which accounts the key may read")
    assert not ClientKey.objects.exists()


def test_add_key__unknown_account(account):
    run = Run("add-key", "crm", "--account", APPID, "--account", "wxtypo")
    assert run.code == 2
    assert f"'wxtypo'. Active accounts: {APPID}" in run.error
    assert (run.out, ClientKey.objects.count()) == ("", 0)


def test_add_key__bad_network(account):
    run = Run("add-key", "crm", "--account", APPID, "--network", "10.0.0.0/99")
    assert run.code == 2
    assert run.error.startswith("networks: ")


@pytest.mark.parametrize("days", ["0", "-1", "x", "1.5", "99999999999"])
def test_add_key__bad_days(account, days):
    assert Run("add-key", "crm", "--account", APPID, f"--expires={days}").code != 0
    assert not ClientKey.objects.exists()


# -- doctor, rotate-encryption


def test_doctor__problem(account, weixin):
    weixin.outage()
    run = Run("doctor")
    assert run.code == 1
    assert run.error == "1 problem."
    assert "problem  WeChat: https://api.weixin.qq.com: " in run.out
    assert "\n         → Check DNS" in run.out


def test_doctor__warnings_alone_are_no_failure(account, settings):
    get_access_token()
    run = Run("doctor")
    assert run.code == 0
    assert "warning  beat: Beat has not run the tick yet." in run.out


def test_doctor__runs_where_settings_are_broken(settings):
    settings.WECHAT_TOKEN = {"OVERLAP": "300"}
    run = Run("doctor")
    assert run.code == 1
    assert "wechat_token.E002" in run.out


def test_doctor__fix(account):
    get_access_token()
    Token.objects.update(due_at=None)
    assert Run("doctor").code == 1
    assert "healed: it is never due" in Run("doctor", "--fix").out
    assert Run("doctor").code == 0


def test_rotate_encryption__counts(account, settings):
    settings.WECHAT_TOKEN = {"ENCRYPTION_KEYS": [Fernet.generate_key()], "READ_DERIVED_KEYS": True}
    run = Run("rotate-encryption")
    assert (run.code, run.out) == (0, "1 rewritten, 0 had the first key already, 0 unreadable.\n")
    assert "Stored secrets seen: 1" in run.err
    assert Run("rotate-encryption").out == "0 rewritten, 1 had the first key already, 0 unreadable.\n"


def test_rotate_encryption__unreadable(account, settings):
    settings.SECRET_KEY = "changed without a fallback-------"
    run = Run("rotate-encryption")
    assert run.code == 1
    assert run.out == "0 rewritten, 0 had the first key already, 1 unreadable.\n"
    assert f"No configured key reads: {APPID} AppSecret." in run.error


@pytest.mark.parametrize("subcommand", ["new-site", "same-site"])
def test_site__settles_what_a_found_database_is(account, subcommand):
    before = identity().site_id
    Site.objects.update(place="another server")
    process.forget()
    assert identity().is_copy
    assert Run(subcommand).code == 0
    assert not identity().is_copy
    assert (identity().site_id == before) is (subcommand == "same-site")


def test_same_site__of_a_site_that_never_moved(account):
    assert Run("same-site").out == "It was already: nothing to do.\n"


# -- what stands in the way


@pytest.mark.parametrize("subcommand", ["status", "refresh", "rotate-encryption"])
def test_command__broken_settings_are_named(db, settings, subcommand):
    settings.WECHAT_TOKEN = {"OVERLAPP": 1}
    run = Run(subcommand)
    assert run.code == 1
    assert run.error == "WECHAT_TOKEN has an unknown key: 'OVERLAPP'. Did you mean 'OVERLAP'? (wechat_token.E001)"


def manage(tmp_path, *args, **variables):
    """The command as a process of its own, with an empty folder for its data."""
    root = Path(__file__).parent.parent
    environment = os.environ | {"WECHAT_TOKEN_DATA_DIR": str(tmp_path), "DATABASE_URL": "", "REDIS_URL": ""} | variables
    environment["DJANGO_SETTINGS_MODULE"] = "example_project.settings"
    return subprocess.run(
        [sys.executable, str(root / "manage.py"), "wechat_token", *args],
        env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip


def test_manage__wrong_usage_is_exit_code_2(tmp_path):
    assert manage(tmp_path, "frobnicate").returncode == 2


def test_manage__missing_tables_are_one_line(tmp_path):
    run = manage(tmp_path, "status")
    assert run.returncode == 1
    assert run.stderr == "CommandError: The tables of wechat_token are missing. Run: manage.py migrate\n"
