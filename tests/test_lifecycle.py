"""What saving and deleting an account brings about."""

from __future__ import annotations

import pytest
from celery import current_app
from django.core.exceptions import ValidationError
from django.test.utils import isolate_apps

from tests.conftest import APPID, SECRET, row
from wechat_token import get_access_token, process
from wechat_token.engine.schedule import seconds
from wechat_token.exceptions import AccountNotFound, TokenUnavailable
from wechat_token.models import Account, ClientKey, Token


@pytest.fixture
def kicked(monkeypatch):
    """The ids of the tokens that a worker was told about."""
    told: list[int] = []
    monkeypatch.setattr(current_app, "send_task", lambda name, args, **options: told.append(*args))
    return told


def test_account_saved__its_token_is_due_at_once(account, time):
    assert row(account).due_at == time.now()


def test_account_saved__a_worker_is_told_after_commit(db, time, kicked, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        account = Account.objects.create(appid=APPID, secret=SECRET)
        assert kicked == []
    assert kicked == [row(account).pk]


def test_account_saved__a_broker_that_is_down_is_harmless(
    db, time, monkeypatch, django_capture_on_commit_callbacks, caplog
):
    """R7."""

    def down(*args, **kwargs):
        raise ConnectionError("no broker")

    monkeypatch.setattr(current_app, "send_task", down)
    with django_capture_on_commit_callbacks(execute=True):
        account = Account.objects.create(appid=APPID, secret=SECRET)
    assert row(account).due_at == time.now()
    assert "ConnectionError" in caplog.text


def test_account_saved__editing_ends_the_backoff(account, weixin):
    """R10."""
    weixin.reset_secret(APPID, "new-secret")
    with pytest.raises(TokenUnavailable):
        get_access_token(APPID)
    account.secret = "new-secret"
    account.save()
    assert weixin.is_valid(get_access_token(APPID))


def test_account_saved__new_credentials_are_told_and_a_new_name_is_not(
    account, weixin, time, kicked, django_capture_on_commit_callbacks
):
    get_access_token(APPID)
    due_at = row(account).due_at
    with django_capture_on_commit_callbacks(execute=True):
        account.name = "renamed"
        account.save()
    assert (kicked, row(account).due_at) == ([], due_at)
    with django_capture_on_commit_callbacks(execute=True):
        account.secret = "new-secret"
        account.save()
    assert (kicked, row(account).due_at) == ([row(account).pk], time.now())


def test_account_saved__an_edit_is_due_though_nobody_was_told(account, weixin, time):
    """The process was killed between its commit and the waking of the row."""
    get_access_token(APPID)
    Account.objects.update(edition=row(account).account.edition + 1)
    process.forget()
    calls = len(weixin.calls)
    get_access_token(APPID)
    time.pass_(20)  # the reader's grace for beat
    get_access_token(APPID)
    assert len(weixin.calls) == calls + 1


def test_account_saved__another_appid_takes_nothing_along(account, weixin):
    """The token was issued for the AppID before; it is not the new one's."""
    get_access_token(APPID)
    weixin.add_account("wxnew00000000000", SECRET)
    account.appid = "wxnew00000000000"
    account.save()
    token = get_access_token("wxnew00000000000")
    assert weixin.is_valid(token)
    assert row(account).issued_for == "wxnew00000000000"
    with pytest.raises(AccountNotFound):
        get_access_token(APPID)


def test_account_saved__a_streak_of_other_credentials_is_forgotten(account, weixin, time):
    weixin.reset_secret(APPID, "new-secret")
    with pytest.raises(TokenUnavailable):
        get_access_token(APPID)
    Token.objects.update(failures=9, alerted_at=time.now(), due_at=time.now() + seconds(900))
    account.secret = "wrong again"
    account.save()
    with pytest.raises(TokenUnavailable):
        get_access_token(APPID)
    assert row(account).failures == 1


def test_account_saved__the_token_in_hand_stays(account, weixin):
    token = get_access_token(APPID)
    account.secret = "wrong"
    account.save()
    weixin.outage()
    assert get_access_token(APPID) == token


def test_account_saved__inactive_is_never_due(account):
    account.is_active = False
    account.save()
    assert row(account).due_at is None
    assert not Token.objects.filter(due_at__isnull=False).exists()


def test_account_deleted__is_served_no_more(account, weixin, django_capture_on_commit_callbacks):
    get_access_token(APPID)
    with django_capture_on_commit_callbacks(execute=True):
        account.delete()
    with pytest.raises(AccountNotFound):
        get_access_token(APPID)


@pytest.mark.parametrize("appid", ["", "   ", "wx 0123456789", "wx0123<script>", "微信", "wx"])
def test_account__impossible_appids_are_refused(db, appid):
    with pytest.raises(ValidationError) as caught:
        Account(appid=appid, secret="x").full_clean()
    assert "appid" in caught.value.message_dict


def test_account__appid_is_stripped(db):
    account = Account(appid=f"  {APPID}\n", secret="x")
    account.full_clean()
    assert account.appid == APPID


def test_account__duplicate_is_named(account):
    with pytest.raises(ValidationError, match="already an account with this AppID"):
        Account(appid=APPID, secret="x").full_clean()


# -- models of the site's own that stand for ours


@pytest.fixture
def proxy():
    with isolate_apps("wechat_token"):

        class OurAccount(Account):
            class Meta:
                proxy = True
                app_label = "wechat_token"

    return OurAccount


def test_proxy__saves_and_deletes_like_the_model(proxy, db, weixin, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        account = proxy.objects.create(appid=APPID, secret=SECRET)
    assert row(account).due_at is not None
    weixin.add_account(APPID, SECRET)
    assert weixin.is_valid(get_access_token(APPID))
    with django_capture_on_commit_callbacks(execute=True):
        account.delete()
    with pytest.raises(AccountNotFound):
        get_access_token(APPID)


def test_proxy__keeps_its_secret_when_renamed_by_hand(proxy, db):
    proxy.objects.create(appid=APPID, secret=SECRET)
    account = proxy.objects.get()
    account.appid = account.ref = "wxrenamed0000000"
    account.save()
    assert Account.objects.get().secret.reveal() == SECRET


def test_proxy__renames_reach_the_keys(proxy, account, time):
    """What a key opens is held in memory by name, until the key is stamped."""
    ClientKey.objects.create(name="shop", digest="d" * 64).accounts.add(account)
    time.pass_(5)
    theirs = proxy.objects.get()
    theirs.appid = "wxrenamed0000000"
    theirs.save()
    assert ClientKey.objects.get().updated_at == time.now()
