"""Adding, editing and deleting accounts."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from tests.admin.pages import (
    OTHER_APPID,
    USUAL_SECRET,
    account_data,
    act,
    form_errors,
    page,
    told,
    url,
)
from tests.conftest import APPID, SECRET, renew, row
from wechat_token.admin import AccountAdmin
from wechat_token.engine import Status
from wechat_token.engine.schedule import seconds
from wechat_token.forms import AccountForm
from wechat_token.models import Account, RefreshLog, Token


def test_add__strips_and_stores_encrypted(boss):
    response = boss.post(
        reverse("admin:wechat_token_account_add"),
        account_data(appid=f"  {OTHER_APPID}\t", secret=f"\n{USUAL_SECRET} "),
    )
    assert response.status_code == 302
    account = Account.objects.get(appid=OTHER_APPID)
    assert account.secret.reveal() == USUAL_SECRET
    assert USUAL_SECRET not in account.secret.ciphertext


def test_add__says_that_the_first_fetch_has_started(boss):
    response = boss.post(reverse("admin:wechat_token_account_add"), account_data())
    assert any("being fetched now" in text for text in told(response))


def test_add__inactive_says_that_nothing_is_fetched(boss):
    response = boss.post(reverse("admin:wechat_token_account_add"), account_data(is_active=""))
    assert any("inactive" in text for text in told(response))


@pytest.mark.parametrize(
    ("appid", "words"),
    [
        ("", "required"),
        ("wx0123 456789abcdef", "blank inside"),
        ("wx！0123456789abcde", "letters, digits"),
        ("wx", "letters, digits"),
        (APPID, "already an account"),
        (USUAL_SECRET, "That was an AppSecret"),
    ],
)
def test_add__appid_errors(boss, account, appid, words):
    response = boss.post(reverse("admin:wechat_token_account_add"), account_data(appid=appid))
    assert words in form_errors(response, "appid")[0]
    assert not Account.objects.filter(name="new").exists()


def test_add__appsecret_in_the_appid_box_is_not_shown_again(boss):
    response = boss.post(reverse("admin:wechat_token_account_add"), account_data(appid=USUAL_SECRET, secret=""))
    assert response.status_code == 200
    assert USUAL_SECRET not in page(response)


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("", "required"),
        ("0123 4567", "blank inside"),
        (OTHER_APPID, "That is an AppID"),
        ("wx00000000000000aa", "That is an AppID"),
        ("0123****cdef", "masks it"),
        ("密钥密钥密钥", "cannot be right"),
    ],
)
def test_add__secret_errors_do_not_repeat_it(boss, secret, words):
    response = boss.post(reverse("admin:wechat_token_account_add"), account_data(secret=secret))
    (error,) = form_errors(response, "secret")
    assert words in error
    assert not secret or secret not in error


def test_add__unusual_secret_is_stored_with_a_warning(boss):
    response = boss.post(reverse("admin:wechat_token_account_add"), account_data(secret=SECRET))
    assert Account.objects.get(appid=OTHER_APPID).secret.reveal() == SECRET
    assert any("does not look like" in text for text in told(response))


def test_change__empty_secret_keeps_the_stored_one(boss, account):
    before = Account.objects.get(pk=account.pk).secret.ciphertext
    boss.post(url("change", account), account_data(secret="", name="renamed"))
    after = Account.objects.get(pk=account.pk)
    assert (after.name, after.secret.ciphertext) == ("renamed", before)


def test_change__new_secret_replaces_the_stored_one(boss, account):
    response = boss.post(url("change", account), account_data(secret=USUAL_SECRET))
    assert Account.objects.get(pk=account.pk).secret.reveal() == USUAL_SECRET
    assert "AppSecret" in LogEntry.objects.get().get_change_message()
    assert any("with what you saved" in text for text in told(response))


def test_change__new_secret_makes_the_token_due(boss, account, weixin, time):
    """R10: whatever was planned, and the next refresh forgets the failures of the secret before."""
    Token.objects.update(due_at=time.now() + seconds(900), failures=5, error_class="human")
    boss.post(url("change", account), account_data(secret=USUAL_SECRET))
    assert row(account).due_at == time.now()
    weixin.outage()
    assert renew(account).status is Status.FAILED
    assert row(account).failures == 1


def test_change__new_name_asks_nothing_of_wechat(boss, account, time):
    renew(account)
    before = row(account)
    boss.post(url("change", account), account_data(secret="", name="renamed", endpoint=account.endpoint))
    after = row(account)
    assert (after.account.name, after.account.edition) == ("renamed", before.account.edition)
    assert (after.due_at, after.revision) == (before.due_at, before.revision)


def test_change__of_anything_makes_a_token_due_that_never_was(boss, account, time):
    renew(account)
    Token.objects.update(due_at=None)
    boss.post(url("change", account), account_data(secret="", name=account.name))
    assert row(account).due_at == time.now()


def test_change__appid_is_fixed(boss, account):
    boss.post(url("change", account), account_data(secret=""))
    assert Account.objects.get(pk=account.pk).appid == APPID


def test_change__does_not_undo_a_secret_entered_meanwhile(account):
    stale = Account.objects.get(pk=account.pk)
    Account.objects.filter(pk=account.pk).update(secret=USUAL_SECRET)
    form = AccountForm(account_data(appid=APPID, secret="", name="renamed"), instance=stale)
    obj = form.save(commit=False)
    AccountAdmin(Account, admin.site).save_model(SimpleNamespace(), obj, form, change=True)
    after = Account.objects.get(pk=account.pk)
    assert (after.name, after.secret.reveal()) == ("renamed", USUAL_SECRET)


def test_change__secret_box_is_empty_and_not_completed(boss, account):
    tag = re.search(r'<input[^>]*name="secret"[^>]*>', page(boss.get(url("change", account)))).group()
    assert 'type="password"' in tag
    assert 'autocomplete="new-password"' in tag
    assert "value=" not in tag
    assert "required" not in tag


def test_change__view_only_shows_no_secret_field(staff, account):
    html = page(staff("view_account").get(url("change", account)))
    assert APPID in html
    assert "AppSecret" not in html
    assert 'type="password"' not in html


def test_delete__warns_and_leaves_the_log(staff, boss, account, entry):
    html = page(boss.get(url("delete", account)))
    assert "gets none from now on" in html
    assert "refresh log:" not in html.lower()
    client = staff("view_account", "delete_account")
    assert client.post(url("delete", account), {"post": "yes"}).status_code == 302
    assert not Account.objects.exists()
    assert RefreshLog.objects.get().ref == account.ref


def test_delete__selected_warns_too(boss, account, entry):
    html = page(act(boss, "delete_selected", [account]))
    assert "gets none from now on" in html
    assert f"/refreshlog/{entry.pk}/" not in html


def test_form__appsecret_in_the_box_of_the_appid_leaves_the_rest_as_it_was(boss):
    response = boss.post(reverse("admin:wechat_token_account_add"), account_data(appid=USUAL_SECRET, name="shop"))
    html = page(response)
    assert "That was an AppSecret." in html
    assert USUAL_SECRET not in html
    assert 'value="shop"' in html
    assert "[&#x27;" not in html
