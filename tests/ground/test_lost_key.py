"""R36: an unreadable value is no value. A lost key costs the old token, never the account."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.test import override_settings
from django.urls import reverse

from tests.conftest import APPID, SECRET, row
from wechat_token import get_access_token, tasks
from wechat_token.exceptions import WeChatTokenError
from wechat_token.models import Token

LOST, KEPT = (f"a-secret-key-of-forty-characters-{word:8}" for word in ("lost", "kept"))


def ask():
    get_access_token(APPID)


def tick():
    tasks.refresh_due_tokens()


def command():
    call_command("wechat_token", "refresh", APPID)


HEALERS = pytest.mark.parametrize("heal", [ask, tick, command], ids=lambda heal: heal.__name__)


def fetched(weixin):
    return weixin.calls_to(APPID, "stable") + weixin.calls_to(APPID, "classic")


@pytest.fixture(params=["stable", "classic"])
def served(request, settings, time, account, weixin):
    """The token of an account whose values were written with a key that this process does not have."""
    settings.SECRET_KEY = LOST
    account.endpoint, account.secret = request.param, SECRET
    account.save()
    token = get_access_token(APPID)
    settings.SECRET_KEY = KEPT
    time.pass_(600)
    return token


def enter_the_secret_again(account, client):
    """In the admin, as the error advises."""
    data = {"appid": APPID, "secret": SECRET, "name": "shop", "endpoint": account.endpoint, "is_active": "on"}
    answer = client.post(reverse("admin:wechat_token_account_change", args=[account.pk]), data)
    assert answer.status_code == 302, answer.content.decode()


@HEALERS
def test_lost_key__entering_the_secret_again_heals(served, account, weixin, time, admin_client, heal):
    with pytest.raises(WeChatTokenError):
        get_access_token(APPID)
    enter_the_secret_again(account, admin_client)
    before = fetched(weixin)
    heal()
    after = row(account)
    assert (after.lease_owner, after.failures) == ("", 0)
    assert weixin.is_valid(after.value.reveal())
    assert get_access_token(APPID) == after.value.reveal()
    time.pass_(60)
    tick()
    assert get_access_token(APPID) == after.value.reveal()
    assert fetched(weixin) - before == 1


@HEALERS
def test_lost_key__unreadable_token_of_a_readable_account_is_fetched_anew(account, weixin, time, heal):
    get_access_token(APPID)
    with override_settings(SECRET_KEY=LOST):
        Token.objects.update(value="written with a key nobody has")
    time.pass_(600)
    before = fetched(weixin)
    if heal is tick:
        time.pass_until(row(account).due_at)
    heal()
    after = row(account)
    assert weixin.is_valid(after.value.reveal())
    assert get_access_token(APPID) == after.value.reveal()
    assert (after.lease_owner, after.failures) == ("", 0)
    assert fetched(weixin) - before == 1
