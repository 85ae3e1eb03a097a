"""Side doors that stood open once, tried again as an attacker would: through pages, URLs, commands and sockets only.

What protects them is told in ``docs/secrecy.md`` and tested in detail beside the code it is in.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections
from django.test import Client
from django.urls import reverse

from tests.conftest import APPID, Time, row
from wechat_token import clock, tasks
from wechat_token.models import Account, ClientKey, KeyUsage, RefreshLog
from wechat_token.sandbox import FakeWeChat

ROOT = Path(__file__).parent.parent
FOREIGN_APPID = "wxsomebodyelses00"


def make_key(*options: str, name: str = "crm") -> str:
    """As an operator makes one, in a shell."""
    out = io.StringIO()
    call_command("wechat_token", "add-key", name, *(options or ["--account", APPID]), stdout=out, stderr=io.StringIO())
    return out.getvalue().strip()


def read(key: str, appid: str = APPID) -> Any:
    return Client().get(f"/wechat/accounts/{appid}/access_token", headers={"Authorization": f"Bearer {key}"})


def get_token(key: str) -> Any:
    query = {"grant_type": "client_credential", "appid": APPID, "secret": key}
    return Client().get("/wechat/cgi-bin/token", query).json()


def post_stable_token(key: str) -> Any:
    body = {"grant_type": "client_credential", "appid": APPID, "secret": key}
    return Client().post("/wechat/cgi-bin/stable_token", body, content_type="application/json").json()


def lines(caplog: pytest.LogCaptureFixture, logger: str = "wechat_token") -> list[str]:
    return [record.getMessage() for record in caplog.records if f"{record.name}.".startswith(f"{logger}.")]


@pytest.fixture
def staff(db: None) -> Callable[..., Client]:
    def make(*permissions: str) -> Client:
        user = User.objects.create_user("mallory", is_staff=True)
        ours = Permission.objects.filter(content_type__app_label="wechat_token")
        user.user_permissions.set(ours.filter(codename__in=permissions))
        client = Client()
        client.force_login(user)
        return client

    return make


# -- who makes keys (S9) ---------------------------------------------------------------------------


def key_in(response: Any) -> str:
    found = re.search(r"wxt_[0-9A-Za-z]{38}", response.content.decode())
    return found[0] if found else ""


ADD = "admin:wechat_token_clientkey_add"
TO_MAKE_KEYS = ("add_clientkey", "change_clientkey", "view_clientkey", "view_account")


def test_key__may_not_be_made_to_read_what_its_maker_may_not(staff: Callable[..., Client], account: Account) -> None:
    mallory = staff(*TO_MAKE_KEYS)
    key = key_in(mallory.post(reverse(ADD), {"name": "mine", "all_accounts": "on"}))
    assert not key or read(key).status_code != 200
    assert not ClientKey.objects.exists()


def _more_accounts(key: ClientKey) -> dict[str, Any]:
    return {"all_accounts": "on"}


def _from_anywhere(key: ClientKey) -> dict[str, Any]:
    return {"networks": ""}


def _for_ever(key: ClientKey) -> dict[str, Any]:
    return {"expires_at_0": "", "expires_at_1": ""}


def _complaints(key: ClientKey) -> dict[str, Any]:
    return {"may_refresh": "on"}


@pytest.mark.parametrize("widening", [_more_accounts, _from_anywhere, _for_ever, _complaints])
def test_key__may_not_be_widened_by_who_may_not_read(
    staff: Callable[..., Client], account: Account, time: Time, widening: Callable[[ClientKey], dict[str, Any]]
) -> None:
    end = time.now() + dt.timedelta(days=1)
    key = ClientKey.objects.create(name="stolen", digest="d", networks="10.0.0.0/8", expires_at=end)
    before = ClientKey.objects.values().get()
    local = end.astimezone(dt.timezone(dt.timedelta(hours=8)))
    data = {
        "name": "stolen", "networks": "10.0.0.0/8", "expires_at_0": local.date(), "expires_at_1": local.time(),
    }  # fmt: skip
    mallory = staff(*TO_MAKE_KEYS)
    change = reverse("admin:wechat_token_clientkey_change", args=[key.pk])
    mallory.post(change, {**data, **widening(key)})
    assert ClientKey.objects.values().get() == before
    assert mallory.post(change, {**data, "networks": "10.1.0.0/16"}).status_code == 302  # narrowing is for everybody


@pytest.fixture
def own_accounts_only(monkeypatch: pytest.MonkeyPatch, account: Account) -> Account:
    """The site's own admin shows people some accounts only. Returns one that is not shown."""
    accounts = admin.site.get_model_admin(Account)
    shown = accounts.get_queryset
    monkeypatch.setattr(accounts, "get_queryset", lambda request: shown(request).filter(appid=APPID))
    return Account.objects.create(appid=FOREIGN_APPID, secret="s")


def test_key__covers_no_account_that_its_maker_does_not_see(
    staff: Callable[..., Client], own_accounts_only: Account
) -> None:
    foreign = own_accounts_only
    mallory = staff(*TO_MAKE_KEYS, "reveal_token")
    assert not key_in(mallory.post(reverse(ADD), {"name": "a", "all_accounts": "on"}))
    assert not key_in(mallory.post(reverse(ADD), {"name": "b", "accounts": [foreign.pk]}))
    make_key("--account", FOREIGN_APPID, name="theirs")
    theirs = ClientKey.objects.get(name="theirs")
    change = reverse("admin:wechat_token_clientkey_change", args=[theirs.pk])
    assert mallory.post(change, {"name": "mine", "networks": ""}).status_code == 403
    assert FOREIGN_APPID not in mallory.get(change).content.decode()
    assert mallory.get(change.replace("change", "history")).status_code == 403  # the record has the whole scope
    assert key_in(mallory.post(reverse(ADD), {"name": "c", "accounts": [Account.objects.get(appid=APPID).pk]}))


def test_key__record_names_what_it_opens(staff: Callable[..., Client], account: Account) -> None:
    mallory = staff(*TO_MAKE_KEYS, "reveal_token")
    assert key_in(mallory.post(reverse(ADD), {"name": "mine", "accounts": [account.pk], "may_refresh": "on"}))
    assert APPID in LogEntry.objects.get().get_change_message()
    change = reverse("admin:wechat_token_clientkey_change", args=[ClientKey.objects.get().pk])
    mallory.post(change, {"name": "mine", "all_accounts": "on"})
    assert "Accounts: all" in LogEntry.objects.first().get_change_message()


# -- lines that were forged ------------------------------------------------------------------------

FORGED = "\nERROR root Somebody else did it\x1b[2J\u202egnp.exe"


@pytest.mark.django_db(transaction=True)
def test_log__takes_no_line_from_a_url_and_no_flood_while_the_database_is_down(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key("--all-accounts")

    def down(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("down")

    caplog.clear()
    with monkeypatch.context() as outage:
        outage.setattr(type(connections["default"]), "cursor", down)
        for _ in range(50):
            assert read(key, quote(f"wx{FORGED}")).status_code == 503
    seen = lines(caplog)
    assert seen
    assert len(seen) < 10
    assert not [line for line in seen if re.search("[\n\x1b\u202e]", line)]


NAMES = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
NAMES += ["\u2028", "\u2029", "\u202e", "\u2066", "\u200b", "\ufeff"]


def test_name__has_no_character_that_cannot_be_seen() -> None:
    for model in (Account, ClientKey):
        for char in NAMES:
            with pytest.raises(ValidationError) as refused:
                model(name=f"a{char}b").full_clean(validate_unique=False)
            assert "name" in refused.value.error_dict, ascii(char)


@pytest.mark.parametrize("char", ["\n", "\x1b", "\u202e"], ids=ascii)
def test_name__is_refused_in_words(char: str, staff: Callable[..., Client], account: Account) -> None:
    name = f"a{char}b"
    with pytest.raises(CommandError) as refused:
        make_key(name=name)
    mallory = staff("add_account", "change_account", "view_account")
    change = reverse("admin:wechat_token_account_change", args=[account.pk])
    mallory.post(change, {"name": name, "endpoint": "stable", "is_active": "on"})
    account.refresh_from_db()
    assert account.name == "shop"
    assert not ClientKey.objects.exists()
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["微信商城　一号", "👨‍👩‍👧‍👦 family", "🛍️" * 50, "Ü-Shop"])
def test_name__that_people_use_is_taken(name: str, account: Account) -> None:
    make_key(name=name)
    assert ClientKey.objects.get().name == name


def test_name__of_200_emoji_is_refused(account: Account) -> None:
    with pytest.raises(CommandError, match="100"):
        make_key(name="🛒" * 200)


@pytest.mark.parametrize("command", [["status"], ["doctor"], ["refresh"]])
def test_terminal__obeys_no_name(command: list[str], account: Account) -> None:
    """Rows may hold such names from before, or from SQL."""
    Account.objects.update(name=f"x{FORGED}")
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_COLOR", "1")
        try:
            call_command("wechat_token", *command, stdout=out, stderr=out, no_color=True)
        except CommandError as error:
            out.write(str(error))
    assert "\x1b" not in out.getvalue()
    assert not re.search("^ERROR root", out.getvalue(), re.MULTILINE)


# -- keys in servers' logs -------------------------------------------------------------------------


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[tuple[int, str, Path]]:
    """A real one: its port, a client key, and what it writes."""
    environment = {
        **os.environ, "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3", "WECHAT_TOKEN_DATA_DIR": str(tmp_path),
        "DJANGO_SECRET_KEY": secrets.token_hex(32), "PYTHONPATH": str(ROOT), "DJANGO_DEBUG": "1",
    }  # fmt: skip

    def manage(*arguments: str) -> str:
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    manage("migrate", "-v0")
    key = manage("wechat_token", "add-key", "crm", "--all-accounts").strip()
    written = tmp_path / "gunicorn.log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "gunicorn", "example_project.wsgi", "-b", f"127.0.0.1:{port}", "--access-logfile", "-",
        "--log-level", "debug",
    ]  # fmt: skip
    with written.open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)
        try:
            yield port, key, written
        finally:
            process.terminate()
            process.wait(20)


def send(port: int, request: str) -> None:
    for attempt in range(100):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(request.encode())
                while connection.recv(4096):
                    pass
            return
        except ConnectionRefusedError:
            if attempt == 99:
                raise
            clock.sleep(0.2)


@pytest.mark.proof
def test_gunicorn__writes_no_key_whatever_is_sent(gunicorn: tuple[int, str, Path]) -> None:
    port, key, written = gunicorn
    encoded = "".join(f"%{ord(char):02x}" for char in key)
    tail = "Host: 127.0.0.1\r\nConnection: close\r\n\r\n"
    query = f"grant_type=client_credential&appid={APPID}"
    requests = [
        f"GET /wechat/health HTTP/1.1\r\nAuthorization Bearer {key}\r\n{tail}",
        f"GET /wechat/health HTTP/1.1\r\nAuthorization: Bearer\r\n {key}\r\n{tail}",
        f"GET /wechat/health HTTP/1.1\r\n{key} x: y\r\n{tail}",
        f"GET /wechat/cgi-bin/token?{query}&secret={key} HTTP/1.1 x\r\n{tail}",
        f"GET /wechat/cgi-bin/token?{query}&secret={key} HTTP/1.1\r\n{tail}",
        f"GET /wechat/cgi-bin/token?{query}&%73ecret={encoded} HTTP/1.1\r\n{tail}",
        f"GET /wechat/cgi%2Dbin/token?{query}&s%65cret=%77xt_{key[4:]} HTTP/1.1\r\n{tail}",
    ]
    for request in requests:
        send(port, request)
    text = written.read_text()
    assert text.count("Invalid") >= 3
    assert text.count("client_credential") >= 3
    core = key[12:]  # what stands before is shown everywhere
    assert core.lower() not in text.lower()
    assert "".join(f"%{ord(char):02x}" for char in core) not in text.lower()


# -- the day's calls (R33) -------------------------------------------------------------------------


def _by_hand(client: Client, account: Account) -> None:
    client.post(reverse("admin:wechat_token_account_refresh", args=[account.pk]))


def _by_edits(client: Client, account: Account) -> None:
    """Each edit of an endpoint is a reason to fetch."""
    for endpoint in ("stable", "classic"):
        account.endpoint = endpoint
        account.save()
        tasks.refresh_due_tokens()


@pytest.mark.parametrize("waste", [_by_hand, _by_edits])
def test_schedule__goes_on_till_midnight_whatever_hands_waste(
    staff: Callable[..., Client], classic: Account, weixin: FakeWeChat, time: Time,
    waste: Callable[[Client, Account], None],
) -> None:  # fmt: skip
    Account.objects.update(daily_limit=22)
    mallory = staff("refresh_token", "view_account", "change_account")
    tasks.refresh_due_tokens()
    classic.refresh_from_db()
    for _ in range(22):
        waste(mallory, classic)
        time.pass_(3.1)
    midnight = dt.datetime(2026, 3, 2, 16, 0, tzinfo=dt.UTC)  # in Beijing
    key = make_key()
    while time.now() < midnight:
        tasks.refresh_due_tokens()
        answer = read(key)
        assert answer.status_code == 200, time.now()
        assert weixin.is_valid(answer.json()["access_token"]), time.now()
        time.pass_(1800)
    assert row(classic).usage["classic"] <= 20


# -- history ---------------------------------------------------------------------------------------


def test_log__outlives_its_account(staff: Callable[..., Client], account: Account) -> None:
    tasks.refresh_due_tokens()
    assert RefreshLog.objects.count() == 1
    mallory = staff("delete_account", "view_account", "view_refreshlog")
    mallory.post(reverse("admin:wechat_token_account_delete", args=[account.pk]), {"post": "yes"})
    assert not Account.objects.exists()
    assert RefreshLog.objects.count() == 1
    found = mallory.get(reverse("admin:wechat_token_refreshlog_changelist"), {"q": APPID})
    assert found.context["cl"].result_count == 1
    assert APPID in found.content.decode()


# -- the key in the URL ----------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "by_url", "by_body"), [("on", 1, 1), ("stable", 0, 1), ("off", 0, 0)])
def test_dialect__can_be_switched_off(account: Account, settings: Any, dialect: str, by_url: int, by_body: int) -> None:
    key = make_key()
    settings.WECHAT_TOKEN = {"WECHAT_DIALECT": dialect}
    answers = get_token(key), post_stable_token(key)
    assert ["access_token" in answer for answer in answers] == [by_url, by_body]
    assert [answer.get("errcode") for answer in answers] == [None if by_url else 40066, None if by_body else 40066]
    assert read(key).status_code == 200
    described = Client().get("/wechat/openapi.json").json()["paths"]
    assert ("/cgi-bin/token" in described, "/cgi-bin/stable_token" in described) == (by_url, by_body)


@pytest.mark.parametrize(
    ("asked", "advice"),
    [([read], "'off'"), ([read, post_stable_token], "'stable'"), ([read, get_token, post_stable_token], "")],
)
def test_doctor__recommends_what_nobody_would_notice(
    account: Account, time: Time, asked: list[Callable[[str], Any]], advice: str
) -> None:
    key = make_key()
    for ask in asked:
        ask(key)
    time.pass_(60)
    read(key)  # counts are written down about once a minute

    def recommended() -> str:
        out = io.StringIO()
        call_command("wechat_token", "doctor", stdout=out, no_color=True)
        found = re.search(r"WECHAT_DIALECT'\] = ('\w+')", out.getvalue())
        return found[1] if found else ""

    assert recommended() == ""  # too early to tell
    KeyUsage.objects.update(day=(time.now() - dt.timedelta(days=8)).date())
    assert recommended() == advice


# -- who did it ------------------------------------------------------------------------------------


def trace(token: str, monkeypatch: pytest.MonkeyPatch) -> str:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{token}\n"))
    try:
        call_command("wechat_token", "trace", stdout=out, no_color=True)
    except CommandError as error:
        return str(error)
    return out.getvalue()


def test_trace__names_who_was_given_a_leaked_token(
    account: Account, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    leaky, _silent = make_key(name="leaky"), make_key(name="silent")
    boss = Client()
    boss.force_login(User.objects.create_superuser("boss"))
    token = read(leaky).json()["access_token"]
    read(leaky)
    boss.post(reverse("admin:wechat_token_account_reveal", args=[account.pk]))
    told = trace(token, monkeypatch)
    assert "leaky" in told
    assert "boss" in told
    assert "silent" not in told
    assert APPID in told
    assert token not in told
    assert "Nobody" in trace(f"{token}x", monkeypatch)
    Account.objects.all().delete()
    ClientKey.objects.all().delete()
    assert "leaky" in trace(token, monkeypatch)  # who deletes the evidence
    seen = "\n".join(lines(caplog))
    assert seen.count("event=token_read") == 1
    assert not [secret for secret in (token, leaky, leaky[12:]) if secret in seen + str(caplog.records)]


def test_trace__outlives_a_rotation_of_keys(
    account: Account, monkeypatch: pytest.MonkeyPatch, settings: Any, time: Time
) -> None:
    token = read(make_key(name="leaky")).json()["access_token"]
    former, settings.SECRET_KEY = settings.SECRET_KEY, secrets.token_hex(32)
    settings.SECRET_KEY_FALLBACKS = [former]
    time.pass_(3600)
    assert "leaky" in trace(token, monkeypatch)


@pytest.mark.django_db(transaction=True)
def test_security_log__tells_what_happened(
    account: Account, staff: Callable[..., Client], caplog: pytest.LogCaptureFixture, time: Time
) -> None:
    caplog.set_level(logging.INFO)
    key = make_key(name="crm")
    bound = make_key("--account", APPID, "--network", "10.0.0.0/8", name="bound")
    read(key, FOREIGN_APPID)
    read(bound)
    typed = "canary-password-in-the-wrong-box"
    Client().post(reverse("admin:login"), {"username": typed, "password": "x"})
    Client().post(reverse("admin:login"), {"username": typed, "password": "x"}, REMOTE_ADDR="192.0.2.7")
    mallory = staff(*TO_MAKE_KEYS, "reveal_token")
    row_of = ClientKey.objects.get(name="crm")
    change = reverse("admin:wechat_token_clientkey_change", args=[row_of.pk])
    mallory.post(change, {"name": "crm", "all_accounts": "on"})
    mallory.post(
        reverse("admin:wechat_token_clientkey_changelist"),
        {"action": "revoke", "_selected_action": [row_of.pk], "index": 0, "confirmed": "yes"},
    )
    events = [json.loads(json.dumps(record.fields)) | {"event": record.event}
              for record in caplog.records if record.name == "wechat_token.security"]  # fmt: skip
    prefix = key[4:12]

    def of(event: str) -> list[dict[str, str]]:
        return [found for found in events if found["event"] == event]

    assert [found["name"] for found in of("key_made")] == ["crm", "bound"]
    assert of("key_made")[1]["networks"] == "10.0.0.0/8"
    assert [(found["key"], found["account"]) for found in of("account_refused")] == [(prefix, FOREIGN_APPID)]
    assert of("key_refused")[0]["address"] == "127.0.0.1"
    assert {(found["user"], found["address"]) for found in of("login_failed")} == {
        ("(unknown)", "127.0.0.1"), ("(unknown)", "192.0.2.7"),
    }  # fmt: skip
    assert [(found["user"], found["accounts"]) for found in of("key_widened")] == [("mallory", "*")]
    assert [(found["user"], found["key"]) for found in of("key_revoked")] == [("mallory", prefix)]
    assert len({found["key_fingerprint"] for found in events if found.get("key") == prefix}) == 1
    assert typed not in "\n".join(lines(caplog))


@pytest.mark.usefixtures("own_connections")
def test_events__of_the_first_key_of_a_site_have_its_fingerprint(caplog: pytest.LogCaptureFixture) -> None:
    """On SQLite a step on a connection of ours cannot write while the transaction that makes the key does."""
    make_key("--all-accounts")
    (made,) = [record for record in caplog.records if getattr(record, "event", "") == "key_made"]
    assert made.fields["key_fingerprint"]


# -- scopes and ends -------------------------------------------------------------------------------


def test_scope__of_a_deleted_account_opens_nothing_that_comes_after(account: Account, weixin: FakeWeChat) -> None:
    key = make_key()
    assert read(key).status_code == 200
    secret = account.secret.reveal()
    account.delete()
    assert read(key).status_code == 404
    Account.objects.create(appid=APPID, secret=secret)
    assert read(key).status_code == 404
