"""A token is renewed when what it is issued for changes, and belongs to that account for good."""

from __future__ import annotations

import pytest
from django.urls import reverse

from tests.conftest import APPID, SECRET, row
from wechat_token import get_access_token, tasks
from wechat_token.exceptions import AccountNotFound, EncryptionKeyError, TokenUnavailable
from wechat_token.models import Account

OTHER, OTHER_SECRET = "wxfedcba9876543210", "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _other(weixin):
    weixin.add_account(OTHER, OTHER_SECRET)


@pytest.fixture
def token(account, time):
    token = get_access_token(APPID)
    time.pass_(600)
    return token


def fetched(weixin, appid=APPID):
    return weixin.calls_to(appid, "stable") + weixin.calls_to(appid, "classic")


def settle(time):
    """What a worker and a caller do of themselves after an edit, when it is the caller's turn, too."""
    tasks.refresh_due_tokens()
    time.pass_(20)
    get_access_token(APPID)
    return get_access_token(APPID)


def form(account, **changes):
    data = {"appid": account.appid, "secret": "", "name": account.name, "endpoint": account.endpoint}
    return {**data, "is_active": "on", **changes}


# -- what calls nobody


@pytest.mark.parametrize("endpoint", ["stable", "classic"])
def test_save__of_what_wechat_does_not_know_renews_nothing(account, weixin, time, endpoint):
    """A classic call kills a token and costs one of 2000."""
    account.endpoint = endpoint
    account.save()
    token = get_access_token(APPID)
    time.pass_(600)
    calls, due_at = fetched(weixin), row(account).due_at
    for number, (field, value) in enumerate([("name", "a"), ("name", "b"), ("is_default", True), ("daily_limit", 500)]):
        setattr(account, field, value)
        account.save(update_fields=[field] if number % 2 else None)
        assert settle(time) == token
    account.save()
    assert settle(time) == token
    assert fetched(weixin) == calls
    assert row(account).due_at == due_at


def test_admin__rename_renews_nothing(account, token, weixin, time, admin_client):
    for name in ("first", "second"):
        change = reverse("admin:wechat_token_account_change", args=[account.pk])
        assert admin_client.post(change, form(account, name=name)).status_code == 302
        assert settle(time) == token
    assert Account.objects.get().name == "second"
    assert fetched(weixin) == 1


def test_save__of_a_name_keeps_the_backoff(account, weixin, time):
    """A streak of failures is not forgotten for a new name, only for what may have mended it."""
    weixin.freeze(APPID)
    with pytest.raises(TokenUnavailable):
        get_access_token(APPID)
    account.name = "renamed"
    account.save()
    with pytest.raises(TokenUnavailable):
        settle(time)
    assert fetched(weixin) == 1
    assert row(account).failures == 1


# -- what renews


def new_secret(account, weixin):
    weixin.reset_secret(APPID, "another-secret")
    account.secret = "another-secret"


def other_endpoint(account, weixin):
    account.endpoint = "classic"


def off_and_on(account, weixin):
    account.is_active = False
    account.save()
    account.is_active = True


@pytest.mark.parametrize("change", [new_secret, other_endpoint, off_and_on])
def test_save__of_what_matters_renews_once(account, token, weixin, time, change):
    account.name = "renamed before"
    account.save()
    settle(time)
    assert fetched(weixin) == 1
    change(account, weixin)
    account.save()
    assert weixin.is_valid(settle(time))
    account.name = "renamed after"
    account.save()
    settle(time)
    assert fetched(weixin) == 2


# -- whose token it is


def renamed_by_save(account):
    account.appid, account.secret = OTHER, OTHER_SECRET
    account.save()


def renamed_by_update(account):
    Account.objects.filter(pk=account.pk).update(appid=OTHER)
    if hasattr(account, "ref"):
        Account.objects.filter(pk=account.pk).update(ref=OTHER)


@pytest.mark.parametrize("wechat", ["up", "down"])
@pytest.mark.parametrize("rename", [renamed_by_save, renamed_by_update])
def test_appid_edited__never_serves_the_former_accounts_token(account, token, weixin, rename, wechat):
    rename(account)
    if wechat == "down":
        weixin.outage()
    try:
        assert get_access_token(OTHER) != token
    except TokenUnavailable:
        assert wechat == "down"
    except EncryptionKeyError:
        assert rename is renamed_by_update  # whose secret is still the former account's (S8)
    with pytest.raises(AccountNotFound):
        get_access_token(APPID)
    if rename is renamed_by_save:
        weixin.clear_faults()
        assert fetched(weixin, OTHER) >= (wechat == "up")


def test_appids_swapped__each_gets_its_own(account, token, weixin):
    other = Account.objects.create(appid=OTHER, secret=OTHER_SECRET)
    others = get_access_token(OTHER)
    account.appid, account.secret = "wx-on-its-way", "x"
    account.save()
    other.appid, other.secret = APPID, SECRET
    other.save()
    account.appid, account.secret = OTHER, OTHER_SECRET
    account.save()
    assert get_access_token(APPID) != others
    assert get_access_token(OTHER) != token
    assert weixin.is_valid(get_access_token(APPID))
    assert weixin.is_valid(get_access_token(OTHER))
    assert fetched(weixin, OTHER) >= 1
