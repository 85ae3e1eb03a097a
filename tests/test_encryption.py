"""Secrets at rest (S1) and out of sight (S2)."""

from __future__ import annotations

import copy
import pickle

import pytest
from cryptography.fernet import Fernet
from django.core import serializers
from django.core.exceptions import FieldError, ValidationError
from django.core.management import call_command
from django.db import connection
from django.forms import modelform_factory

from tests.leaks import visible
from wechat_token.encryption import (
    Place,
    decrypt,
    encrypt,
    problems,
    rotate,
    unchanged,
    written_with_first_key,
)
from wechat_token.exceptions import ConfigurationError, EncryptionKeyError
from wechat_token.models import Account, Token
from wechat_token.redaction import MASK, Secret

CANARY = "canary-2f8e61d09b7c"
HERE = Place("somewhere", "somebody's")
SECRET_OF = Place("wechat_token.account.secret", "wx0123456789abcdef")
OLD_KEY, NEW_KEY = (Fernet.generate_key().decode() for _ in range(2))


@pytest.fixture
def keys(settings):
    def keys(*own, secret_key="tests-only-secret-key-0123456789", fallbacks=()):
        settings.WECHAT_TOKEN = {"ENCRYPTION_KEYS": list(own)}
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = secret_key, list(fallbacks)

    return keys


@pytest.fixture
def account(db):
    return Account.objects.create(appid="wx0123456789abcdef", secret=CANARY)


def stored(account):
    """What the database holds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM wechat_token_account WHERE id = %s", [account.pk])
        return cursor.fetchone()[0]


# -- keys


@pytest.mark.parametrize("text", ["", "x", CANARY, "密钥", "\ud800", "a" * 10_000])
def test_encrypt__any_text_comes_back(text):
    assert decrypt(encrypt(text, HERE), HERE) == decrypt(encrypt(Secret(text), HERE), HERE) == text


def test_encrypt__same_text_has_another_ciphertext_each_time():
    assert encrypt(CANARY, HERE) != encrypt(CANARY, HERE)
    assert CANARY not in encrypt(CANARY, HERE)


def test_decrypt__secret_key_fallbacks_read(keys):
    keys(secret_key="the old one")
    ciphertext = encrypt(CANARY, HERE)
    keys(secret_key="the new one", fallbacks=["the old one"])
    assert decrypt(ciphertext, HERE) == CANARY


def test_decrypt__secret_key_may_be_bytes(keys):
    keys(secret_key="same")
    ciphertext = encrypt(CANARY, HERE)
    keys(secret_key=b"same")
    assert decrypt(ciphertext, HERE) == CANARY


def test_decrypt__beside_own_keys_secret_key_reads_only_when_told_to(keys, settings):
    keys()
    ciphertext = encrypt(CANARY, HERE)
    keys(NEW_KEY)
    with pytest.raises(EncryptionKeyError, match="READ_DERIVED_KEYS"):
        decrypt(ciphertext, HERE)
    settings.WECHAT_TOKEN = {"ENCRYPTION_KEYS": [NEW_KEY], "READ_DERIVED_KEYS": True}
    assert decrypt(ciphertext, HERE) == CANARY
    assert not written_with_first_key(ciphertext, HERE)


def test_encrypt__own_keys_make_secret_key_replaceable(keys):
    keys(NEW_KEY, secret_key="before")
    ciphertext = encrypt(CANARY, HERE)
    keys(NEW_KEY, secret_key="after")
    assert decrypt(ciphertext, HERE) == CANARY


def test_encrypt__first_key_writes_all_read(keys):
    keys(OLD_KEY)
    by_old = encrypt(CANARY, HERE)
    keys(NEW_KEY, OLD_KEY)
    by_new = encrypt(CANARY, HERE)
    assert (written_with_first_key(by_old, HERE), written_with_first_key(by_new, HERE)) == (False, True)
    assert decrypt(by_old, HERE) == decrypt(by_new, HERE) == CANARY


@pytest.mark.parametrize("broken", ["gAAAA", "", CANARY, "é", encrypt(CANARY, HERE)[:-4] + "AAAA"])
def test_decrypt__damage_is_an_error_that_hands_nothing_on(broken):
    with pytest.raises(EncryptionKeyError) as caught:
        decrypt(broken, HERE)
    assert not broken or broken not in str(caught.value)
    assert caught.value.__context__ is None


def test_decrypt__wrong_key_says_what_to_do(keys):
    keys(OLD_KEY, secret_key="old")
    ciphertext = encrypt(CANARY, HERE)
    keys(NEW_KEY, secret_key="new")
    with pytest.raises(
        EncryptionKeyError, match=r"ENCRYPTION_KEYS.*SECRET_KEY_FALLBACKS.*enter the AppSecret"
    ) as caught:
        decrypt(ciphertext, HERE)
    assert ciphertext not in str(caught.value)


def test_rotate__first_key_writes_it_anew(keys):
    keys(OLD_KEY)
    old = encrypt(CANARY, HERE)
    keys(NEW_KEY, OLD_KEY)
    new = rotate(old, HERE)
    assert written_with_first_key(new, HERE)
    assert decrypt(new, HERE) == CANARY


def test_rotate__what_was_written_for_no_row_is_bound_to_its_own(keys):
    unbound = encrypt(CANARY, Place(HERE.field))
    assert decrypt(unbound, HERE) == decrypt(unbound, Place(HERE.field, "another's")) == CANARY
    bound = rotate(unbound, HERE)
    assert (written_with_first_key(unbound, HERE), written_with_first_key(bound, HERE)) == (False, True)
    with pytest.raises(EncryptionKeyError):
        decrypt(bound, Place(HERE.field, "another's"))


def test_rotate__no_key_fits(keys):
    keys(OLD_KEY, secret_key="old")
    old = encrypt(CANARY, HERE)
    keys(NEW_KEY, secret_key="new")
    with pytest.raises(EncryptionKeyError):
        rotate(old, HERE)


@pytest.mark.parametrize("use", [lambda: encrypt(CANARY, HERE), lambda: rotate("x", HERE)])
@pytest.mark.parametrize("bad", ["canary-key-too-short", "canary-clé"])
def test_bad_key__error_counts_it_and_shows_no_key_and_no_text(keys, use, bad):
    keys(NEW_KEY, bad)
    with pytest.raises(ConfigurationError, match="entry 2 is not a Fernet key") as caught:
        use()
    seen = visible(caught.value)
    assert not any(secret in seen for secret in (CANARY, bad, NEW_KEY, "tests-only-secret-key"))
    assert caught.value.__context__ is None


def test_problems__are_counted_from_one(keys):
    keys(NEW_KEY, "bad", OLD_KEY, "worse")
    assert [text.partition(" is ")[0] for text in problems()] == [
        f"WECHAT_TOKEN['ENCRYPTION_KEYS']: entry {number}" for number in (2, 4)
    ]


# -- the field


def test_field__database_holds_ciphertext_only(account):
    assert decrypt(stored(account), SECRET_OF) == CANARY
    account.refresh_from_db()
    assert account.secret.reveal() == CANARY


def test_field__empty_stays_empty(account):
    assert Token.objects.get(account=account).value.reveal() == ""
    assert not Token.objects.get(account=account).value


@pytest.mark.parametrize(
    "write",
    [
        lambda account: Account.objects.update(secret="new"),
        lambda account: Account.objects.update(secret=Secret("new")),
        lambda account: Account.objects.bulk_update([account], ["secret"]),
        lambda account: account.save(update_fields=["secret"]),
    ],
)
def test_field__every_way_of_writing_encrypts(account, write):
    account.secret = "new"
    write(account)
    assert decrypt(stored(account), SECRET_OF) == "new"


def test_field__saving_an_unchanged_row_keeps_its_ciphertext(account):
    before = stored(account)
    account = Account.objects.get()
    account.name = "renamed"
    account.save()
    assert stored(account) == before


def test_field__plain_text_that_looks_like_a_fixture_is_plain_text(account):
    account.secret = "encrypted:abc"
    account.full_clean()
    account.save()
    Account.objects.filter(pk=account.pk).update(secret="encrypted:abc")
    assert Account.objects.get().secret.reveal() == "encrypted:abc"


@pytest.mark.parametrize(
    "query",
    [
        lambda: Account.objects.filter(secret=CANARY),
        lambda: Account.objects.filter(secret=None),
        lambda: Account.objects.filter(secret__contains="a"),
        lambda: Account.objects.exclude(secret__isnull=True),
        lambda: Account.objects.filter(secret__length=3),
        lambda: Account.objects.filter(secret__in=[CANARY]),
        lambda: Token.objects.filter(account__secret__startswith="c"),
    ],
)
def test_field__cannot_be_searched(query):
    with pytest.raises(FieldError, match=r"Account\.secret is encrypted and cannot be searched") as caught:
        query()
    assert CANARY not in str(caught.value)


def test_unchanged__matches_the_very_ciphertext(account):
    old = Account.objects.get().secret
    assert Account.objects.filter(unchanged("secret", old)).exists()
    Account.objects.update(secret=CANARY)  # the same text once more
    assert not Account.objects.filter(unchanged("secret", old)).exists()


def test_field__values_and_only_keep_it_wrapped(account):
    assert repr(Account.objects.values_list("secret", flat=True)[0]) == f"<Secret {MASK}>"
    assert repr(Account.objects.defer("secret").get().secret) == f"<Secret {MASK}>"


def test_field__empty_secret_is_not_valid():
    with pytest.raises(ValidationError) as caught:
        Account(appid="wx0123456789abcdef", secret="").clean_fields()
    assert caught.value.message_dict == {"secret": ["This field cannot be blank."]}


def test_field__a_form_that_sends_the_mask_back_changes_nothing(account):
    form_class = modelform_factory(Account, fields=["secret"])
    assert CANARY not in form_class(instance=account).as_p()
    form_class({"secret": MASK}, instance=account).save()
    assert Account.objects.get().secret.reveal() == CANARY
    form_class({"secret": "typed"}, instance=account).save()
    assert Account.objects.get().secret.reveal() == "typed"


def test_field__a_form_may_hand_over_a_secret(account):
    Account._meta.get_field("secret").save_form_data(account, Secret("typed"))
    assert account.secret.reveal() == "typed"


# -- out of sight


@pytest.mark.parametrize("fresh", [True, False])
def test_field__canary_is_nowhere_to_be_seen(account, fresh):
    account = Account(appid="wx0", secret=CANARY) if fresh else Account.objects.get()
    shown = [
        repr(account),
        str(account),
        repr(vars(account)),
        f"{account.secret!s:>40}",
        repr(copy.deepcopy(account).secret),
    ]
    assert CANARY not in "".join(shown)


@pytest.mark.parametrize("fresh", [True, False])
def test_field__rows_cannot_be_pickled(account, fresh):
    account = Account(appid="wx0", secret=CANARY) if fresh else Account.objects.get()
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(account)


def test_field__unreadable_secret_shows_no_ciphertext(account, keys):
    ciphertext = stored(account)
    keys(secret_key="another")
    account = Account.objects.get()  # reading the row is no problem: other columns are of use
    with pytest.raises(EncryptionKeyError) as caught:
        account.secret.reveal()
    assert ciphertext not in str(caught.value)
    assert CANARY not in visible(caught.value)


def test_field__bad_key_while_saving_shows_no_plain_text(db, keys):
    account = Account(appid="wx0123456789abcdef", secret=CANARY)
    keys("bad")
    with pytest.raises(ConfigurationError) as caught:
        account.save()
    assert CANARY not in visible(caught.value)


# -- fixtures


@pytest.mark.parametrize("format_", ["json", "xml", "jsonl"])
def test_fixture__round_trip_without_plain_text(account, tmp_path, format_):
    dump = tmp_path / f"dump.{format_}"
    call_command("dumpdata", "wechat_token", "--natural-foreign", format=format_, output=str(dump))
    assert CANARY not in dump.read_text()
    assert "encrypted:" in dump.read_text()
    before = stored(account)
    Account.objects.all().delete()
    call_command("loaddata", str(dump), verbosity=0)
    assert stored(account) == before
    assert Account.objects.get().secret.reveal() == CANARY


def test_fixture__plain_text_written_by_hand_is_encrypted(db):
    text = '[{"model": "wechat_token.account", "fields": {"appid": "wxabc", "secret": "%s"}}]' % CANARY  # noqa: UP031  braces
    for row in serializers.deserialize("json", text):
        row.object.created_at = row.object.updated_at = "2026-01-01T00:00:00Z"
        row.save()
    assert decrypt(stored(Account.objects.get()), Place(SECRET_OF.field, "wxabc")) == CANARY
