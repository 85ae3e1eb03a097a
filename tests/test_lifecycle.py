"""What saving and deleting an account brings about."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from tests.conftest import APPID, SECRET, row
from wechat_token import get_access_token, lifecycle, shelf
from wechat_token.exceptions import AccountNotFound, TokenUnavailable
from wechat_token.models import Account, Token


@pytest.fixture
def kicked(monkeypatch):
    told: list[int] = []
    monkeypatch.setattr(lifecycle, "_kick", told.append)
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
    from wechat_token.tasks import refresh_token

    def down(*args, **kwargs):
        raise ConnectionError("no broker")

    monkeypatch.setattr(refresh_token, "apply_async", down)
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
    assert shelf.recall((APPID, "access_token")) is None
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
