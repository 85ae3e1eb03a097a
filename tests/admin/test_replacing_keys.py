"""A new client key in the place of an old one, which goes on for a while."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.core.exceptions import ValidationError
from django.urls import reverse

from tests.admin.pages import page, told
from tests.conftest import APPID
from wechat_token import process
from wechat_token.client_keys import keyring, keys
from wechat_token.engine.schedule import seconds
from wechat_token.models import ClientKey, KeyUsage


@pytest.fixture
def old(account, time):
    key, _plain = keys.make_key("crm", accounts=[account], may_refresh=True, networks="10.0.0.0/8")
    return key


def replace(client, key, **data):
    return client.post(reverse("admin:wechat_token_clientkey_replace", args=[key.pk]), data)


def test_replace__asks_when_the_old_key_ends(boss, old):
    assert "The old key ends" in page(replace(boss, old))
    assert ClientKey.objects.count() == 1


def test_replace__a_successor_with_the_same_rights_is_shown_once(boss, old, time):
    response = replace(boss, old, ends="1d")
    text = re.search(r"wxt_[0-9A-Za-z]{38}", page(response)).group()
    assert "no-store" in response.headers["Cache-Control"]
    heir = ClientKey.objects.exclude(pk=old.pk).get()
    process.forget()
    assert keyring.find(text).appids == {APPID}
    assert (heir.name, heir.may_refresh, heir.networks, heir.expires_at) == ("crm", True, "10.0.0.0/8", None)
    old.refresh_from_db()
    assert old.expires_at == time.now() + dt.timedelta(days=1)
    records = [entry.get_change_message() for entry in LogEntry.objects.all()]
    assert any(f"Replaced by crm ({heir.prefix}…)" in record for record in records)
    assert any(APPID in record for record in records)  # S9: the scope is on record
    assert not [record for record in records if text in record]


def test_replace__no_end_is_put_off(boss, account, time):
    ends = time.now() + dt.timedelta(hours=3)
    old, _plain = keys.make_key("crm", accounts=[account], expires_at=ends)
    made_for = ends - old.created_at
    replace(boss, old, ends="7d")
    old.refresh_from_db()
    assert old.expires_at == ends
    assert ClientKey.objects.exclude(pk=old.pk).get().expires_at == time.now() + made_for


@pytest.mark.parametrize("ended", [{"revoked_at": dt.timedelta()}, {"expires_at": dt.timedelta()}])
def test_replace__a_key_that_has_ended_has_no_successor(boss, old, time, ended):
    for name, ago in ended.items():
        setattr(old, name, time.now() - ago)
    old.save()
    assert replace(boss, old, ends="1d").status_code == 403
    with pytest.raises(ValidationError, match="has ended"):
        keys.succeed(old, ends_at=time.now() + seconds(60))
    assert ClientKey.objects.count() == 1


@pytest.mark.parametrize(
    "permissions",
    [
        ("view_clientkey", "change_clientkey", "add_clientkey", "view_account"),  # may not read tokens (S9)
        ("view_clientkey", "change_clientkey", "reveal_token", "view_account"),
        ("view_clientkey", "add_clientkey", "reveal_token", "view_account"),
    ],
)
def test_replace__needs_every_permission(staff, old, permissions):
    client = staff(*permissions)
    assert replace(client, old, ends="1d").status_code == 403
    html = page(client.get(reverse("admin:wechat_token_clientkey_change", args=[old.pk])))
    assert "Replace this key" not in html
    assert ClientKey.objects.count() == 1


def test_replace__get_does_nothing_and_leads_back(boss, old):
    response = boss.get(reverse("admin:wechat_token_clientkey_replace", args=[old.pk]))
    assert response.headers["Location"] == reverse("admin:wechat_token_clientkey_change", args=[old.pk])
    assert "Nothing was done" in told(response)[0]
    assert ClientKey.objects.count() == 1


def test_key_page__use_by_day_and_a_line_to_try_it(boss, old, time):
    for day, reads in ((2, 100), (1, 50)):
        KeyUsage.objects.create(key=old, appid=APPID, day=dt.date(2026, 3, day), reads=reads, refusals=1)
        KeyUsage.objects.create(key=old, appid="", day=dt.date(2026, 3, day), refusals=2)
    response = boss.get(reverse("admin:wechat_token_clientkey_change", args=[old.pk]))
    days = response.context["days"]
    assert [(each.day.day, each.reads, each.refusals, each.share) for each in days[:3]] == [
        (2, 100, 3, 100.0), (1, 50, 3, 50.0), (28, 0, 0, 0.0),
    ]  # fmt: skip
    assert f"http://testserver/wechat/accounts/{APPID}/access_token" in response.context["curl"]
    assert "wxt_" not in response.context["curl"]
