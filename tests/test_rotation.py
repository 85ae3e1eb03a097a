"""Writing stored secrets anew with the first key, while others write the same rows."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from tests.conftest import renew
from wechat_token import encryption
from wechat_token.diagnosis import rotation
from wechat_token.diagnosis.rotation import Tally
from wechat_token.engine import Reason, Status
from wechat_token.models import Account, Token
from wechat_token.platforms import transport

OLD_KEY, NEW_KEY = (Fernet.generate_key().decode() for _ in range(2))


@pytest.fixture
def use_keys(settings):
    def use_keys(*keys):
        settings.WECHAT_TOKEN = {"ENCRYPTION_KEYS": list(keys)}

    return use_keys


@pytest.fixture
def old_rows(db, use_keys):
    """Three accounts with tokens, written with the old key; the new one is in front now."""
    use_keys(OLD_KEY)
    accounts = [Account.objects.create(appid=f"wx0{n}00", secret=f"secret-{n}") for n in range(3)]
    for account in accounts:
        Token.objects.filter(account=account).update(value=f"token of {account.appid}", version=1)
    use_keys(NEW_KEY, OLD_KEY)
    return accounts


def rotate():
    return rotation.rotate(progress=lambda tally: None)


def test_survey__counts_and_writes_nothing(old_rows):
    before = list(Token.objects.values_list("revision", flat=True))
    assert rotation.survey() == Tally(current=0, older=6)
    assert list(Token.objects.values_list("revision", flat=True)) == before


def test_rotate__old_key_is_no_longer_needed(old_rows, use_keys):
    assert rotate() == Tally(current=0, older=6)
    use_keys(NEW_KEY)
    assert [account.secret.reveal() for account in Account.objects.all()] == ["secret-0", "secret-1", "secret-2"]
    assert Token.objects.first().value.reveal() == "token of wx0000"


def test_rotate__is_no_edit_of_the_account(old_rows):
    changed = list(Account.objects.values_list("updated_at", flat=True))
    due = list(Token.objects.values_list("due_at", flat=True))
    rotate()
    assert list(Account.objects.values_list("updated_at", flat=True)) == changed
    assert list(Token.objects.values_list("due_at", flat=True)) == due


def test_rotate__second_run_rewrites_nothing(old_rows):
    rotate()
    assert rotate() == Tally(current=6, older=0)


def test_rotate__interrupted_run_is_continued(old_rows, monkeypatch):
    monkeypatch.setattr(rotation, "BATCH", 1)
    seen = []

    def interrupt(tally):
        seen.append(tally.older)
        if tally.older == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rotation.rotate(progress=interrupt)
    assert seen == [1, 2]
    assert rotate() == Tally(current=2, older=4)


def test_rotate__unreadable_rows_are_named_and_left_alone(old_rows, use_keys):
    use_keys(Fernet.generate_key().decode())
    Account.objects.create(appid="wx0new", secret="new")
    lost = ["wx0000 AppSecret", "wx0100 AppSecret", "wx0200 AppSecret"]
    lost += ["wx0000 access_token", "wx0100 access_token", "wx0200 access_token"]
    assert rotate() == Tally(current=1, older=0, unreadable=lost)
    use_keys(OLD_KEY)
    assert Account.objects.get(appid="wx0000").secret.reveal() == "secret-0"


def between_reading_and_writing(monkeypatch, act):
    """Let ``act`` happen once, when a row has been read and re-encrypted but not yet written."""
    real = encryption.rotate

    def slow(ciphertext, place):
        renewed = real(ciphertext, place)
        monkeypatch.setattr(encryption, "rotate", real)
        act()
        return renewed

    monkeypatch.setattr(encryption, "rotate", slow)


def test_rotate__an_edited_secret_is_not_overwritten(old_rows, monkeypatch):
    account = Account.objects.get(appid="wx0000")
    account.secret = "edited"
    between_reading_and_writing(monkeypatch, account.save)
    assert rotate() == Tally(current=1, older=5)
    assert Account.objects.get(appid="wx0000").secret.reveal() == "edited"


def test_rotate__edited_with_the_old_key_by_a_process_not_yet_restarted(old_rows, use_keys, monkeypatch):
    def edit():
        use_keys(OLD_KEY)
        Account.objects.filter(appid="wx0000").update(secret="edited")
        use_keys(NEW_KEY, OLD_KEY)

    between_reading_and_writing(monkeypatch, edit)
    assert rotate() == Tally(current=0, older=6)
    use_keys(NEW_KEY)
    assert Account.objects.get(appid="wx0000").secret.reveal() == "edited"


def test_rotate__a_row_deleted_meanwhile_is_no_failure(old_rows, monkeypatch):
    between_reading_and_writing(monkeypatch, lambda: Account.objects.filter(appid="wx0000").delete())
    assert rotate() == Tally(current=1, older=4)


def test_rotate__a_token_renewed_meanwhile_wins(old_rows, weixin, monkeypatch):
    Account.objects.exclude(appid="wx0000").delete()
    weixin.add_account("wx0000", "secret-0")
    account = Account.objects.get()
    account.secret = "secret-0"
    account.save()  # with the new key: the token is the next row to rewrite
    between_reading_and_writing(monkeypatch, lambda: renew(account, Reason.COMMAND))
    assert rotate() == Tally(current=2, older=0)
    assert weixin.is_valid(Token.objects.get().value.reveal())


def test_rotate__a_refresh_under_way_stores_its_result(old_rows, weixin, monkeypatch):
    """The other way round: the rotation writes while a refresh waits for WeChat."""
    Account.objects.exclude(appid="wx0000").delete()
    weixin.add_account("wx0000", "secret-0")
    call = transport.call

    def call_slowly(*args, **kwargs):
        rotate()
        return call(*args, **kwargs)

    monkeypatch.setattr(transport, "call", call_slowly)
    assert renew(Account.objects.get(), Reason.COMMAND).status is Status.RENEWED
    assert weixin.is_valid(Token.objects.get().value.reveal())
    assert rotation.survey() == Tally(current=2, older=0)
