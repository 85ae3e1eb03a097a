"""Client keys: shown once, revoked for good."""

from __future__ import annotations

import datetime as dt
import logging
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.admin.pages import (
    KEYS,
    act,
    page,
    told,
)
from tests.conftest import APPID, START
from wechat_token import process
from wechat_token.client_keys import keyring
from wechat_token.engine.schedule import seconds
from wechat_token.forms import ClientKeyForm
from wechat_token.models import Account, ClientKey, KeyUsage


def add_key(client, **data):
    return client.post(reverse("admin:wechat_token_clientkey_add"), {"name": "crm", **data})


def shown_key(response):
    return re.search(r"wxt_[0-9A-Za-z]+", page(response)).group()


def test_key__is_shown_once_in_the_body_alone(boss, account, caplog):
    with caplog.at_level(logging.DEBUG):
        response = add_key(boss, accounts=[account.pk], may_refresh="on", networks="10.0.0.0/8")
    text = shown_key(response)
    assert "no-store" in response.headers["Cache-Control"]
    key = ClientKey.objects.get()
    assert list(key.accounts.all()) == [account]
    assert (key.may_refresh, key.networks) == (True, "10.0.0.0/8")
    again = page(boss.get(reverse("admin:wechat_token_clientkey_change", args=[key.pk])))
    elsewhere = [
        again, page(boss.get(reverse(KEYS))), str(response.cookies), str(response.headers), caplog.text,
        *map(str, told(response)), *(e.change_message + e.object_repr for e in LogEntry.objects.all()),
        str(dict(boss.session)), str(ClientKey.objects.values().get()),
    ]  # fmt: skip
    assert not [place for place in elsewhere if text in place]


def test_key__opens_the_account(boss, account):
    text = shown_key(add_key(boss, accounts=[account.pk]))
    process.forget()
    assert keyring.find(text).appids == {APPID}


def test_key__without_accounts_says_that_it_reads_nothing(boss):
    assert "can read nothing yet" in page(add_key(boss))
    assert "can read nothing yet" not in page(add_key(boss, all_accounts="on"))


def test_key__change_keeps_the_key(boss):
    add_key(boss)
    before = ClientKey.objects.get()
    change = reverse("admin:wechat_token_clientkey_change", args=[before.pk])
    assert boss.post(change, {"name": "crm 2"}).status_code == 302
    after = ClientKey.objects.get()
    assert (after.name, after.digest, after.prefix) == ("crm 2", before.digest, before.prefix)


def test_key__list_queries_do_not_grow(boss, account, django_assert_num_queries):
    for number in range(5):
        Account.objects.create(appid=f"wxmore{number}", secret="s")
    add_key(boss, accounts=[a.pk for a in Account.objects.all()])
    with django_assert_num_queries(5):
        html = page(boss.get(reverse(KEYS)))
    assert "and 3 more" in html
    for _ in range(10):
        add_key(boss, accounts=[account.pk])
    with django_assert_num_queries(5):
        boss.get(reverse(KEYS))


@pytest.mark.parametrize(("state", "name"), [("live", "a"), ("expired", "b"), ("revoked", "c")])
def test_key__state_filter(boss, time, state, name):
    for index, fields in enumerate([{}, {"expires_at": time.now()}, {"revoked_at": time.now()}]):
        ClientKey.objects.create(name="abc"[index], digest=str(index), **fields)
    response = boss.get(reverse(KEYS), {"state": state})
    assert [key.name for key in response.context["cl"].result_list] == [name]
    assert state in page(response)


def test_key__digest_cannot_be_guessed_by_filtering(boss):
    assert boss.get(reverse(KEYS), {"digest__startswith": "a"}).status_code == 400


def test_key__revoking_asks_first(boss):
    add_key(boss)
    key = ClientKey.objects.get()
    response = act(boss, "revoke", [key], KEYS)
    assert "for good" in page(response)
    assert ClientKey.objects.get().revoked_at is None


def test_key__revoking_confirmed(boss, time):
    add_key(boss)
    key = ClientKey.objects.get()
    response = act(boss, "revoke", [key], KEYS, confirmed="yes")
    assert ClientKey.objects.get().revoked_at == time.now()
    assert told(response) == ["1 client key was revoked."]
    assert LogEntry.objects.filter(change_message="Revoked.").count() == 1


def test_key__revoked_stays_as_it_was(boss, time):
    key = ClientKey.objects.create(name="old", digest="x", revoked_at=time.now() - seconds(60))
    change = reverse("admin:wechat_token_clientkey_change", args=[key.pk])
    assert boss.post(change, {"name": "new"}).status_code == 403
    assert "Revoke this key" not in page(boss.get(change))
    (text,) = told(act(boss, "revoke", [key], KEYS, confirmed="yes"))
    assert "None of these keys" in text
    assert ClientKey.objects.get().revoked_at == time.now() - seconds(60)


def test_key__revoking_needs_permission_and_csrf(staff):
    key = ClientKey.objects.create(name="crm", digest="x")
    viewer = staff("view_clientkey")
    act(viewer, "revoke", [key], KEYS, confirmed="yes")
    assert ClientKey.objects.get().revoked_at is None
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.create_superuser("boss"))
    assert act(strict, "revoke", [key], KEYS, confirmed="yes").status_code == 403


def test_key__deleting_counts_its_use(boss):
    key = ClientKey.objects.create(name="crm", digest="x", prefix="abcd")
    for day in range(3):
        KeyUsage.objects.create(key=key, appid=APPID, day=dt.date(2026, 3, 1 + day))
    delete = reverse("admin:wechat_token_clientkey_delete", args=[key.pk])
    html = page(boss.get(delete))
    assert "use of client keys: 3" in html.lower()
    assert APPID not in html
    boss.post(delete, {"post": "yes"})
    assert not KeyUsage.objects.exists()


def test_key_form__names_the_networks_that_are_wrong(db):
    found = ClientKeyForm({"name": "crm", "networks": "x\n10.0.0.1\ny"}).errors["networks"]
    assert [text[:10] for text in found] == ["Line 1: “x", "Line 3: “y"]


def test_key_form__networks_are_stored_one_a_line(db):
    form = ClientKeyForm({"name": "crm", "networks": " 10.0.0.0/8 , 10.0.0.1 \n\n ::1 "})
    assert form.is_valid()
    assert form.cleaned_data["networks"] == "10.0.0.0/8\n10.0.0.1/32\n::1/128"


def test_key_form__expiry_is_in_the_future(db, time):
    assert "has passed" in ClientKeyForm({"name": "crm", "expires_at": "2026-03-01 00:00"}).errors["expires_at"][0]
    assert ClientKeyForm({"name": "crm", "expires_at": "2026-03-03 00:00"}).is_valid()


def test_key_form__expired_key_can_be_renamed(db, time):
    key = ClientKey.objects.create(name="old", digest="x", expires_at=START - seconds(86_400))
    moment = (START - seconds(86_400)).astimezone(dt.timezone(dt.timedelta(hours=8)))
    assert ClientKeyForm({"name": "new", "expires_at": f"{moment:%Y-%m-%d %H:%M:%S}"}, instance=key).is_valid()
