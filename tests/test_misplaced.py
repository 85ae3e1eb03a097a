"""S8 and R36: a ciphertext that does not belong where it lies is no value, is reported, and is healed."""

from __future__ import annotations

import json
import logging

import pytest
from cryptography.fernet import Fernet
from django.core.management import call_command
from django.db import connection, models
from django.test import override_settings
from django.test.utils import isolate_apps
from django.urls import reverse

from tests.conftest import APPID, SECRET, renew, row
from wechat_token import get_access_token, process
from wechat_token.diagnosis import rotation
from wechat_token.diagnosis.rotation import Tally
from wechat_token.encryption import EncryptedTextField, Place, encrypt, encrypted_fields
from wechat_token.engine import Reason
from wechat_token.exceptions import EncryptionKeyError
from wechat_token.models import Account, Token
from wechat_token.signals import encryption_unfit

OTHER = "wx00000000000other"


@pytest.fixture
def other(account, weixin):
    """Another account of the site; both have tokens."""
    weixin.add_account(OTHER, SECRET)
    other = Account.objects.create(appid=OTHER, secret=SECRET)
    for appid in (APPID, OTHER):
        get_access_token(appid)
    return other


@pytest.fixture
def events(caplog):
    caplog.set_level(logging.WARNING, "wechat_token.security")
    return lambda: [line.getMessage() for line in caplog.records if line.name == "wechat_token.security"]


def held(table, column, account):
    column_of_account = "id" if table == "account" else "account_id"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM wechat_token_{table} WHERE {column_of_account} = %s", [account.pk])
        return cursor.fetchone()[0]


def write(table, column, account, text):
    column_of_account = "id" if table == "account" else "account_id"
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE wechat_token_{table} SET {column} = %s WHERE {column_of_account} = %s", [text, account.pk]
        )


def of_another_installation(other):
    with override_settings(SECRET_KEY="of another installation, of the same length"):
        return encrypt(SECRET, Token._meta.get_field("value").place_of(row(other)))


def of(field, row="wx0123456789abcdef/access_token"):
    return encrypt(SECRET, Place(field, row))


UNFIT = {
    "truncated": lambda account, other: held("token", "value", account)[:-20],
    "a single character": lambda account, other: "g",
    "doubled": lambda account, other: held("token", "value", account) * 2,
    "of another field": lambda account, other: encrypt(
        SECRET, Place("wechat_token.token.grant", f"{APPID}/access_token")
    ),
    "of another model": lambda account, other: held("account", "secret", account),
    "of another row": lambda account, other: held("token", "value", other),
    "of another kind": lambda account, other: encrypt(
        SECRET, Place("wechat_token.token.value", f"{APPID}/jsapi_ticket")
    ),
    "of the cache": lambda account, other: of("cache"),
    "of another installation": lambda account, other: of_another_installation(account),
    "no ciphertext": lambda account, other: "密钥 \x00"[:3],
    "ten thousand": lambda account, other: "g" * 10_000,
}


@pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT)
def test_token__an_unfit_ciphertext_is_fetched_anew_and_reported(account, other, weixin, time, events, make):
    write("token", "value", account, make(account, other))
    process.forget()
    time.pass_(60)
    token = get_access_token(APPID)
    assert weixin.is_valid(token)
    assert token not in (SECRET, row(other).value.reveal())
    assert row(account).value.reveal() == token
    [event] = events()
    assert event.startswith(f"event=encryption_unfit field=wechat_token.token.value row={APPID}/access_token cause=")
    assert SECRET not in event


@pytest.mark.parametrize("make", [UNFIT["truncated"], UNFIT["of another row"]], ids=["of a token", "of another token"])
def test_secret__an_unfit_ciphertext_is_sent_nowhere_and_entering_it_again_heals(
    account, other, weixin, time, events, admin_client, make
):
    time.pass_(600)
    write("account", "secret", account, make(account, other))
    before = len(weixin.calls)
    with pytest.raises(EncryptionKeyError, match="lies where it does not belong"):
        renew(account, Reason.COMMAND)
    assert len(weixin.calls) == before
    assert "wechat_token.account.secret" in events()[0]
    data = {"appid": APPID, "secret": SECRET, "name": "shop", "endpoint": "stable", "is_active": "on"}
    assert admin_client.post(reverse("admin:wechat_token_account_change", args=[account.pk]), data).status_code == 302
    assert weixin.is_valid(get_access_token(APPID))


def test_secret__of_another_account_does_not_open(account, other):
    write("account", "secret", account, held("account", "secret", other))
    with pytest.raises(EncryptionKeyError):
        Account.objects.get(appid=APPID).secret.reveal()


def test_event__says_whose_and_why_once_a_minute(account, other, time):
    heard = []

    def hear(**said):
        heard.append({name: said[name] for name in ("field", "row", "cause")})

    encryption_unfit.connect(hear)
    write("account", "secret", account, held("account", "secret", other))
    for seconds in (0, 59, 1):
        time.pass_(seconds)
        for _ in range(3):
            with pytest.raises(EncryptionKeyError):
                Account.objects.get(appid=APPID).secret.reveal()
    encryption_unfit.disconnect(hear)
    assert heard == [{"field": "wechat_token.account.secret", "row": APPID, "cause": "another row's"}] * 2


# -- what moves rightly


@pytest.mark.parametrize("only", [None, ["appid"]])
def test_rename__takes_the_secret_along(account, weixin, only):
    get_access_token(APPID)
    account = Account.objects.get()
    weixin.add_account("wx-renamed", SECRET)
    account.appid = "wx-renamed"
    account.save(update_fields=only)
    assert Account.objects.get().secret.reveal() == account.secret.reveal() == SECRET
    assert weixin.is_valid(get_access_token("wx-renamed"))
    write("account", "ref", account, APPID)
    with pytest.raises(EncryptionKeyError):
        Account.objects.get().secret.reveal()


def test_rename__with_the_ref_set_by_hand(account):
    for _ in range(2):
        account = Account.objects.get()
        for name in ("wx-renamed", APPID):  # the second time the instance has been saved before
            account.appid = account.ref = name
            account.save()
            assert Account.objects.get().secret.reveal() == SECRET


def test_rename__with_a_deferred_secret(account):
    few = Account.objects.only("appid", "ref").get()
    few.appid = "wx-renamed"
    few.save()
    assert Account.objects.get().secret.reveal() == SECRET


def test_rename__of_an_account_nobody_can_read_is_possible(account, settings):
    settings.SECRET_KEY = "lost-" * 10
    account = Account.objects.get()
    account.appid = "wx-renamed"
    account.save()
    settings.SECRET_KEY = "tests-only-secret-key-0123456789"
    with pytest.raises(EncryptionKeyError):
        Account.objects.get().secret.reveal()
    account.secret = SECRET
    account.save()
    assert Account.objects.get().secret.reveal() == SECRET


def test_rename__that_is_not_saved_changes_nothing(account):
    account = Account.objects.get()
    account.appid, account.secret = "wx-renamed", "edited-secret"
    account.save(update_fields=["secret"])
    stored = Account.objects.get()
    assert (stored.appid, stored.ref, stored.secret.reveal()) == (APPID, APPID, "edited-secret")


def test_copy__of_a_secret_into_another_row_is_bound_to_that(account):
    twin = Account.objects.create(appid="wx-twin", secret=Account.objects.get().secret)
    assert Account.objects.get(pk=twin.pk).secret.reveal() == SECRET
    assert held("account", "secret", twin) != held("account", "secret", account)


def test_copy__of_a_whole_row(account):
    copy = Account.objects.get()
    copy.pk, copy.appid = None, "wx-twin"
    Account.objects.bulk_create([copy])
    assert [account.secret.reveal() for account in Account.objects.all()] == [SECRET, SECRET]


def test_fixture__written_by_hand_knows_no_ref(db, tmp_path):
    fixture = tmp_path / "accounts.json"
    moments = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
    rows = [{"model": "wechat_token.account", "fields": {"appid": appid, "secret": SECRET, **moments}}
            for appid in (APPID, OTHER)]  # fmt: skip
    fixture.write_text(json.dumps(rows))
    call_command("loaddata", str(fixture), verbosity=0)
    assert {account.ref: account.secret.reveal() for account in Account.objects.all()} == {APPID: SECRET, OTHER: SECRET}


def test_dump__opens_where_primary_keys_are_others(account, weixin, tmp_path):
    token = get_access_token(APPID)
    dump = tmp_path / "dump.json"
    call_command("dumpdata", "wechat_token", output=str(dump))
    pk, token_pk = account.pk, row(account).pk
    account.delete()
    text = dump.read_text()
    for old in (f'"pk": {pk},', f'"account": {pk},'):
        text = text.replace(old, old.replace(str(pk), str(pk + 1000)))
    dump.write_text(text.replace(f'"pk": {token_pk},', f'"pk": {token_pk + 1000},'))
    call_command("loaddata", str(dump), verbosity=0)
    assert Account.objects.get().secret.reveal() == SECRET
    assert Token.objects.get().value.reveal() == token


# -- rotation


def test_rotate__finds_encrypted_fields_of_any_model_by_their_class(db, settings, monkeypatch):
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    settings.WECHAT_TOKEN = {"ENCRYPTION_KEYS": [old]}
    with isolate_apps("wechat_token") as apps:

        class Grant(models.Model):  # noqa: DJ008  nobody prints it
            name = models.CharField(max_length=10, primary_key=True)
            owner = models.CharField(max_length=10)
            refresh_token = EncryptedTextField(bound_to=["owner"])
            aes_key = EncryptedTextField()

            class Meta:
                app_label = "wechat_token"

        monkeypatch.setattr(rotation, "apps", apps)
        monkeypatch.setattr(rotation, "BATCH", 1)
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE wechat_token_grant (name, owner, refresh_token, aes_key)")
        for name in "abc":
            Grant.objects.create(name=name, owner="me", refresh_token=f"grant {name}", aes_key="aes")
        Grant.objects.filter(name="c").update(aes_key="")
        grant = Grant.objects.get(name="c")
        grant.owner = "you"
        grant.save()
        assert Grant.objects.get(name="c").refresh_token.reveal() == "grant c"
        settings.WECHAT_TOKEN = {"ENCRYPTION_KEYS": [new, old]}
        assert rotation.rotate(lambda tally: None) == Tally(older=5)
        settings.WECHAT_TOKEN = {"ENCRYPTION_KEYS": [new]}
        assert [grant.refresh_token.reveal() for grant in Grant.objects.order_by("pk")] == [f"grant {n}" for n in "abc"]
        Grant.objects.filter(name="a").update(owner="you")
        assert rotation.survey() == Tally(current=4, unreadable=["wechat_token.Grant a refresh_token"])


def test_rotate__binds_what_was_written_without_a_row(account):
    Account.objects.update(secret="by update()")
    assert rotation.survey().older == 1
    assert rotation.rotate(lambda tally: None).older == 1
    assert rotation.survey().older == 0
    assert Account.objects.get().secret.reveal() == "by update()"


def test_encrypted_fields__are_those_of_the_tables():
    assert [field.name for model in (Account, Token) for field in encrypted_fields(model)] == ["secret", "value"]
