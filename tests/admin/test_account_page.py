"""The panel with the token's state, and pages under other sites and languages."""

from __future__ import annotations

import datetime as dt
import sys

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.db.models import F
from django.urls import clear_url_caches, include, path, reverse

from tests.admin.pages import (
    KEYS,
    LIST,
    LOG,
    page,
    url,
)
from tests.conftest import APPID, START, renew, row
from wechat_token import process
from wechat_token.admin import AccountAdmin, ClientKeyAdmin, RefreshLogAdmin
from wechat_token.engine import identity
from wechat_token.models import Account, ClientKey, Host, KeyUsage, RefreshLog, Site, Token

ops_site = admin.AdminSite(name="ops")
ops_site.register(Account, AccountAdmin)
ops_site.register(ClientKey, ClientKeyAdmin)
ops_site.register(RefreshLog, RefreshLogAdmin)
urlpatterns = [path("ops/", ops_site.urls), path("i18n/", include("django.conf.urls.i18n"))]


def test_panel__shows_the_state_and_never_the_value(boss, account, weixin):
    boss.post(url("refresh", account))
    html = page(boss.get(url("change", account)))
    assert f"******** (version {row(account).version})" in html
    assert row(account).value.reveal() not in html
    assert "stable: 1 of 500,000" in html


def test_panel__failure_with_rid_and_address(boss, account):
    Token.objects.update(
        failures=1, error_class="human", errcode=40164, egress_ip="203.0.113.7", rid="65f1-rid", failed_at=START
    )
    html = page(boss.get(url("change", account)))
    assert ">203.0.113.7</code>" in html
    assert ">65f1-rid</code>" in html


def test_panel__ten_latest_log_rows_for_those_who_may_see_the_log(staff, account):
    for minute in range(12):
        RefreshLog.objects.create(
            ref=account.ref, kind="access_token", at=START + dt.timedelta(minutes=minute), reason="schedule",
            endpoint="stable", outcome="renewed", duration_ms=1,
        )  # fmt: skip
    client = staff("view_account", "view_refreshlog")
    response = client.get(url("change", account))
    assert len(response.context["panel"].log) == 10
    assert client.get(response.context["log_url"]).context["cl"].result_count == 12
    User.objects.get(username="staff").user_permissions.remove(Permission.objects.get(codename="view_refreshlog"))
    assert "ref__exact" not in page(client.get(url("change", account)))


@pytest.mark.parametrize(
    ("permissions", "buttons"),
    [((), set()), (("refresh_token",), {"refresh"}), (("reveal_token",), {"reveal"})],
)
def test_panel__buttons_by_permission(staff, account, permissions, buttons):
    Token.objects.update(version=1)
    html = page(staff("view_account", *permissions).get(url("change", account)))
    assert {view for view in ("refresh", "reveal") if url(view, account) in html} == buttons


@pytest.fixture(params=["list", "page"])
def shown(request, boss, account):
    """What a page of accounts shows, with its blanks made one."""
    address = reverse(LIST) if request.param == "list" else url("change", account)
    return lambda: " ".join(page(boss.get(address)).split())


def test_notices__what_a_host_cannot_read(shown, time):
    assert "wt-bad" not in shown()
    told = {"at": time.now().isoformat(timespec="seconds"), "pid": 1, "text": "A <b>setting</b> is wrong"}
    Host.objects.create(name="web-2", seen_at=time.now(), problems={"ConfigurationError": told})
    assert "Host web-2: A &lt;b&gt;setting&lt;/b&gt; is wrong" in shown()
    time.pass_(601)
    assert "web-2" not in shown()


def test_notices__a_copied_database(shown):
    assert "new-site" not in shown()
    identity()
    Site.objects.update(place="another server")
    process.forget()
    assert "This database is a copy of another site&#x27;s, or has been moved." in shown()
    assert "manage.py wechat_token new-site" in shown()
    assert "manage.py wechat_token same-site" in shown()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rejected_version": F("version")}, "no longer: WeChat refuses it"),
        ({"issued_for": "wxbefore00000000"}, "no longer: the account had another AppID when it was issued"),
        ({"complaints_refused_at": START}, "Complaints refused"),
    ],
)
def test_panel__says_what_became_of_the_token(boss, account, fields, words):
    renew(account)
    assert words not in page(boss.get(url("change", account)))
    Token.objects.update(**fields)
    assert words in page(boss.get(url("change", account)))


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_pages__render_in_both_languages(boss, account, language):
    boss.cookies["django_language"] = language
    for address in (reverse(LIST), url("change", account), reverse(KEYS), reverse(LOG)):
        response = boss.get(address)
        assert response.status_code == 200
        assert response.headers["Content-Language"] == language


@pytest.mark.urls(__name__)
def test_panel__on_a_site_without_the_log(boss, account, monkeypatch):
    monkeypatch.delitem(ops_site._registry, RefreshLog)
    monkeypatch.setattr(sys.modules[__name__], "urlpatterns", [path("ops/", ops_site.urls)])
    clear_url_caches()
    response = boss.get(reverse("ops:wechat_token_account_change", args=[account.pk]))
    assert response.status_code == 200
    assert response.context["log_url"] == ""


@pytest.mark.urls(__name__)
def test_pages__work_under_another_admin_site(boss, account):
    response = boss.post(reverse("ops:wechat_token_account_refresh", args=[account.pk]), follow=True)
    assert response.status_code == 200
    html = page(response)
    assert reverse("ops:wechat_token_account_refresh", args=[account.pk]) in html
    assert reverse("ops:wechat_token_refreshlog_changelist") in html
    assert 'href="/admin' not in html
    created = boss.post(reverse("ops:wechat_token_clientkey_add"), {"name": "crm"})
    assert reverse("ops:wechat_token_clientkey_changelist") in page(created)
    revealed = boss.post(reverse("ops:wechat_token_account_reveal", args=[account.pk]))
    assert row(account).value.reveal() in page(revealed)


@pytest.mark.parametrize("name", ["index", "app_list"])
def test_index__says_what_is_wrong_to_those_who_see_the_accounts(staff, account, time, name):
    address = reverse(f"admin:{name}", args=["wechat_token"] if name == "app_list" else [])
    Token.objects.update(failures=1, error_class="human", errcode=40164, egress_ip="203.0.113.9", due_at=START)
    client = staff("view_account", "view_clientkey")
    html = page(client.get(address))
    assert "203.0.113.9" in html
    assert "docs/operations.md#whitelist" in html
    User.objects.get(username="staff").user_permissions.remove(Permission.objects.get(codename="view_account"))
    assert "203.0.113.9" not in page(client.get(address))


def test_page__has_a_part_for_each_credential_that_somebody_fetches(boss, account, weixin):
    Token.objects.create(account=account, kind="of a version to come")
    html = page(boss.get(url("change", account)))
    assert html.count('id="wt-panel-') == 1
    assert 'id="wt-panel-access_token"' in html


def test_page__a_ticket_that_waits_names_its_root(boss, account, weixin):
    Token.objects.create(account=account, kind="jsapi_ticket", waits_for=f"{APPID} access_token")
    html = page(boss.get(url("change", account)))
    ticket = html[html.index('id="wt-panel-jsapi_ticket"') :]
    assert "Held up" in ticket
    assert f'<a href="#wt-panel-access_token">{APPID} access_token</a>' in ticket
    assert "Force a new token" not in ticket
    assert "Clear WeChat" not in ticket


def test_page__of_an_account_whose_platform_has_gone(boss, account, weixin):
    Token.objects.filter(account=account).update(version=1)
    Account.objects.filter(pk=account.pk).update(platform="gone")
    html = page(boss.get(url("change", account)))
    assert 'id="wt-panel-access_token"' in html
    assert "Refresh now" not in html


def test_page__queries_do_not_grow(boss, account, django_assert_num_queries):
    boss.get(url("change", account))
    with django_assert_num_queries(11):
        boss.get(url("change", account))
    for number in range(30):
        Account.objects.create(appid=f"wx{number:016d}", secret="s")
        RefreshLog.objects.create(
            ref=account.ref, kind="access_token", at=START, reason="schedule", endpoint="stable", outcome="renewed",
            duration_ms=1,
        )  # fmt: skip
    with django_assert_num_queries(11):
        boss.get(url("change", account))


def test_page__who_reads_the_account(staff, account, time):
    key = ClientKey.objects.create(name="<b>crm</b>", digest="x", prefix="abcd")
    for day, reads in ((2, 7), (1, 5), (-9, 100)):
        on = dt.date(2026, 3, 1) + dt.timedelta(days=day - 1)
        KeyUsage.objects.create(key=key, appid=account.ref, day=on, reads=reads, complaints=1)
    client = staff("view_account", "view_clientkey")
    (reader,) = client.get(url("change", account)).context["readers"]
    assert (reader.reads_today, reader.reads, reader.complaints) == (7, 12, 2)
    assert "&lt;b&gt;crm" in page(client.get(url("change", account)))
    User.objects.get(username="staff").user_permissions.remove(Permission.objects.get(codename="view_clientkey"))
    assert "crm" not in page(client.get(url("change", account)))


def test_page__name_of_another_world(boss, account):
    Account.objects.update(name="<script>x</script>‮" + "😀" * 20)
    for address in (reverse(LIST), url("change", account)):
        html = page(boss.get(address))
        assert "<script>x" not in html
        assert "😀" * 20 in html
