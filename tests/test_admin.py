"""The admin: what operators see, what they may do, and what never leaves it."""

from __future__ import annotations

import datetime as dt
import logging
import re
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.core.signals import got_request_exception
from django.test import Client
from django.urls import include, path, resolve, reverse
from django.utils import translation
from django.views.debug import ExceptionReporter

from tests.conftest import APPID, SECRET, START, row
from wechat_token.admin import AccountAdmin, ClientKeyAdmin, RefreshLogAdmin, words
from wechat_token.admin.lists import BoundedPaginator
from wechat_token.exceptions import APIError, ErrorClass, TransportError
from wechat_token.forms import AccountForm, ClientKeyForm
from wechat_token.models import Account, ClientKey, KeyUsage, RefreshLog, Token
from wechat_token.refresh import Outcome, Status
from wechat_token.schedule import seconds

OTHER_APPID = "wxfedcba9876543210"
USUAL_SECRET = "0123456789abcdef0123456789abcdef"
LIST = "admin:wechat_token_account_changelist"
KEYS = "admin:wechat_token_clientkey_changelist"
LOG = "admin:wechat_token_refreshlog_changelist"

ops_site = admin.AdminSite(name="ops")
ops_site.register(Account, AccountAdmin)
ops_site.register(ClientKey, ClientKeyAdmin)
ops_site.register(RefreshLog, RefreshLogAdmin)
urlpatterns = [path("ops/", ops_site.urls), path("i18n/", include("django.conf.urls.i18n"))]


@pytest.fixture
def boss(db):
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture
def staff(db):
    """Makes a client whose user may do exactly this."""

    def make(*permissions, **options):
        user = User.objects.create_user("staff", is_staff=True)
        user.user_permissions.set(
            Permission.objects.filter(content_type__app_label="wechat_token", codename__in=permissions)
        )
        client = Client(**options)
        client.force_login(user)
        return client

    return make


def url(view, account):
    return reverse(f"admin:wechat_token_account_{view}", args=[account.pk])


def account_data(**changes):
    data = {"appid": OTHER_APPID, "secret": USUAL_SECRET, "name": "new", "endpoint": "stable", "is_active": "on"}
    return {**data, **changes}


def page(response):
    return response.content.decode()


def told(response):
    return [str(message) for message in get_messages(response.wsgi_request)]


def form_errors(response, field):
    return response.context["adminform"].form.errors.get(field, [])


# -- adding and editing


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


def test_change__makes_the_token_due(boss, account, time):
    Token.objects.update(due_at=None, failures=5)
    boss.post(url("change", account), account_data(secret="", name=account.name))
    assert (row(account).due_at, row(account).failures) == (time.now(), 0)


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


def test_error_report__holds_no_secret(boss, monkeypatch):
    """S2: what Django mails and logs when saving fails, with the locals of every frame."""
    reports = []

    def keep(request, **kwargs):
        reporter = ExceptionReporter(request, *sys.exc_info())
        reports.append(reporter.get_traceback_html() + reporter.get_traceback_text())

    def fail(*args, **kwargs):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("django.db.models.Model.save", fail)
    got_request_exception.connect(keep, weak=False, dispatch_uid="keep")
    try:
        boss.raise_request_exception = False
        response = boss.post(reverse("admin:wechat_token_account_add"), account_data(secret=SECRET))
    finally:
        got_request_exception.disconnect(dispatch_uid="keep")
    assert response.status_code == 500
    assert "the disk is full" in reports[0]
    assert SECRET not in reports[0]


# -- the list


def test_list__queries_do_not_grow_with_accounts(boss, django_assert_num_queries):
    def make(numbers):
        for number in numbers:
            Account.objects.create(appid=f"wx{number:016d}", secret="s")

    make(range(3))
    with django_assert_num_queries(6):
        boss.get(reverse(LIST))
    make(range(3, 30))
    with django_assert_num_queries(6):
        response = boss.get(reverse(LIST))
    assert response.context["cl"].result_count == 30


def test_list__reads_no_secret_columns(boss, account, django_assert_max_num_queries):
    with django_assert_max_num_queries(6) as captured:
        boss.get(reverse(LIST))
    sql = " ".join(query["sql"] for query in captured.captured_queries)
    assert '"wechat_token_account"."secret"' not in sql
    assert '"wechat_token_token"."value"' not in sql


def test_list__good_token(boss, account, weixin, time):
    boss.post(url("refresh", account))
    time.pass_(480)
    html = page(boss.get(reverse(LIST)))
    assert "wt-good" in html
    assert "1 h 52 min" in html
    assert "8 min ago" in html


def test_list__failure_in_words_with_what_to_do(boss, account):
    Token.objects.update(failures=2, error_class="human", errcode=40164, egress_ip="203.0.113.7")
    html = page(boss.get(reverse(LIST)))
    assert "whitelist. (40164)" in html
    assert "Add 203.0.113.7 to the IP whitelist" in html


def test_list__foreign_refresh_advises_stable(boss, classic, time):
    Token.objects.update(foreign_refreshes=1, foreign_at=time.now())
    assert "Set the endpoint to stable" in page(boss.get(reverse(LIST)))


def test_list__foreign_refresh_of_long_ago_is_no_news(boss, classic, time):
    Token.objects.update(foreign_refreshes=1, foreign_at=time.now() - dt.timedelta(days=8))
    assert "another system." not in page(boss.get(reverse(LIST)))
    assert "Set the endpoint to stable" in page(boss.get(url("change", classic)))


def test_list__account_without_a_token_row(boss, account):
    Token.objects.all().delete()
    assert boss.get(reverse(LIST)).status_code == 200
    assert boss.get(url("change", account)).status_code == 200


@pytest.mark.parametrize(
    ("condition", "fields"),
    [
        ("failing", {"failures": 1}),
        ("tokenless", {"version": 3, "rejected_version": 3}),
        ("tokenless", {"version": 3, "expires_at": START}),
        ("foreign", {"foreign_at": START}),
    ],
)
def test_list__condition_filter(boss, account, condition, fields):
    good = Account.objects.create(appid=OTHER_APPID, secret="s")
    Token.objects.update(version=1, expires_at=START + seconds(7200))
    Token.objects.filter(account=account).update(**fields)
    response = boss.get(reverse(LIST), {"condition": condition})
    assert [a.pk for a in response.context["cl"].result_list] == [account.pk]
    assert good.pk not in [a.pk for a in response.context["cl"].result_list]


@pytest.mark.parametrize("lookup", ["secret__startswith", "secret", "tokens__value__startswith"])
def test_list__secrets_cannot_be_guessed_by_filtering(boss, account, lookup):
    response = boss.get(reverse(LIST), {lookup: "g"})
    assert response.status_code in (302, 400)  # to the list without the filter, or refused


@pytest.mark.parametrize(("enabled", "shown"), [(True, False), (False, True), (None, True)])
def test_list__notice_that_the_tick_is_off(boss, enabled, shown):
    from django_celery_beat.models import PeriodicTask

    tick = PeriodicTask.objects.filter(task="wechat_token.refresh_due_tokens")
    assert tick.count() == 1
    if enabled is None:
        tick.delete()
    else:
        tick.update(enabled=enabled)
    assert ("wt-notice" in page(boss.get(reverse(LIST)))) is shown


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_pages__render_in_both_languages(boss, account, language):
    boss.cookies["django_language"] = language
    for address in (reverse(LIST), url("change", account), reverse(KEYS), reverse(LOG)):
        response = boss.get(address)
        assert response.status_code == 200
        assert response.headers["Content-Language"] == language


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


# -- the panel


def test_panel__shows_the_state_and_never_the_value(boss, account, weixin):
    boss.post(url("refresh", account))
    html = page(boss.get(url("change", account)))
    assert "******** (version 1)" in html
    assert row(account).value.reveal() not in html
    assert "stable: 1 of 500,000" in html


def test_panel__failure_with_rid_and_address(boss, account):
    Token.objects.update(
        failures=1, error_class="human", errcode=40164, egress_ip="203.0.113.7", rid="65f1-rid", failed_at=START
    )
    html = page(boss.get(url("change", account)))
    assert "<code>203.0.113.7</code>" in html
    assert "<code>65f1-rid</code>" in html


def test_panel__ten_latest_log_rows_for_those_who_may_see_the_log(staff, account):
    for minute in range(12):
        RefreshLog.objects.create(
            account=account, kind="access_token", at=START + dt.timedelta(minutes=minute), reason="schedule",
            endpoint="stable", outcome="renewed", duration_ms=1,
        )  # fmt: skip
    client = staff("view_account", "view_refreshlog")
    response = client.get(url("change", account))
    assert len(response.context["panel"].log) == 10
    assert client.get(response.context["log_url"]).context["cl"].result_count == 12
    User.objects.get(username="staff").user_permissions.remove(Permission.objects.get(codename="view_refreshlog"))
    assert "account__id__exact" not in page(client.get(url("change", account)))


@pytest.mark.parametrize(
    ("permissions", "buttons"),
    [((), set()), (("refresh_token",), {"refresh"}), (("reveal_token",), {"reveal"})],
)
def test_panel__buttons_by_permission(staff, account, permissions, buttons):
    Token.objects.update(version=1)
    html = page(staff("view_account", *permissions).get(url("change", account)))
    assert {view for view in ("refresh", "reveal") if url(view, account) in html} == buttons


# -- refresh now


def test_refresh__stores_a_token_and_logs_who_asked(boss, account, weixin):
    response = boss.post(url("refresh", account))
    assert response.status_code == 302
    assert weixin.is_valid(row(account).value.reveal())
    entry = RefreshLog.objects.get()
    assert (entry.reason, entry.client, entry.outcome) == ("admin", "boss", "renewed")
    assert told(response) == [f"Account {APPID} has a new token, good for 2 h 0 min."]


@pytest.mark.parametrize(
    "permissions", [(), ("view_account", "change_account"), ("refresh_token",), ("view_account", "reveal_token")]
)
def test_refresh__needs_its_permission_and_sight_of_the_account(staff, account, weixin, permissions):
    assert staff(*permissions).post(url("refresh", account)).status_code == 403
    assert weixin.calls_to(APPID, "stable") == 0


def test_refresh__permission_and_view_suffice(staff, account, weixin):
    assert staff("view_account", "refresh_token").post(url("refresh", account)).status_code == 302
    assert weixin.calls_to(APPID, "stable") == 1


@pytest.mark.parametrize("view", ["refresh", "reveal"])
def test_token_views__ask_for_the_object(boss, account, monkeypatch, view):
    monkeypatch.setattr(AccountAdmin, "has_view_permission", lambda self, request, obj=None: obj is None)
    assert boss.post(url(view, account)).status_code == 403


@pytest.mark.parametrize("view", ["refresh", "reveal"])
def test_token_views__refuse_get(boss, account, weixin, view):
    assert boss.get(url(view, account)).status_code == 405
    assert weixin.calls_to(APPID, "stable") == 0


@pytest.mark.parametrize("view", ["refresh", "reveal"])
def test_token_views__need_a_csrf_token(staff, account, weixin, view):
    client = staff("view_account", "refresh_token", "reveal_token", enforce_csrf_checks=True)
    assert client.post(url(view, account)).status_code == 403
    assert weixin.calls_to(APPID, "stable") == 0


@pytest.mark.parametrize("view", ["refresh", "reveal"])
def test_token_views__unknown_account(boss, account, view):
    assert boss.post(reverse(f"admin:wechat_token_account_{view}", args=[account.pk + 1])).status_code == 404


@pytest.mark.parametrize("view", ["refresh", "reveal"])
def test_token_views__strangers_are_sent_to_the_login(client, account, view):
    assert "/login/" in client.post(url(view, account)).headers["Location"]


def test_refresh__keeps_the_filters_of_the_list(boss, account):
    html = page(boss.get(url("change", account), {"_changelist_filters": "condition=failing"}))
    action = re.search(rf'action="({url("refresh", account)}[^"]*)"', html).group(1)
    assert "condition%3Dfailing" in boss.post(action).headers["Location"]


def test_refresh__failure_says_what_to_do(boss, account, weixin):
    weixin.reset_secret(APPID, "another")
    (text,) = told(boss.post(url("refresh", account)))
    assert "The AppSecret is" in text
    assert "enter it in this account" in text


def test_refresh__inactive_account_is_left_alone(boss, account, weixin):
    Account.objects.update(is_active=False)
    (text,) = told(boss.post(url("refresh", account)))
    assert "inactive" in text
    assert weixin.calls_to(APPID, "stable") == 0


def test_refresh__unreadable_secret_is_told(boss, account):
    from wechat_token.encryption import StoredSecret

    Account.objects.update(secret=StoredSecret("gAAAA-not-with-our-key"))
    (text,) = told(boss.post(url("refresh", account)))
    assert "cannot be read" in text


def test_refresh__makes_a_missing_token_row(boss, account, weixin):
    Token.objects.all().delete()
    boss.post(url("refresh", account))
    assert weixin.is_valid(row(account).value.reveal())


@pytest.mark.parametrize("name", ["changelist", "refresh"])
def test_refresh__is_outside_atomic_requests(account, name):
    """R3; on SQLite the request's own transaction would lock the refresh out."""
    args = [] if name == "changelist" else [account.pk]
    view = resolve(reverse(f"admin:wechat_token_account_{name}", args=args)).func
    assert "default" in view._non_atomic_requests


def act(client, name, accounts, where=LIST, **more):
    return client.post(
        reverse(where), {"action": name, "_selected_action": [a.pk for a in accounts], "index": 0, **more}
    )


def test_action__refreshes_the_selected(boss, account, weixin):
    weixin.add_account(OTHER_APPID, SECRET)
    other = Account.objects.create(appid=OTHER_APPID, secret=SECRET)
    idle = Account.objects.create(appid="wxidle", secret=SECRET, is_active=False)
    response = act(boss, "refresh_selected", [account, other, idle])
    assert all(weixin.is_valid(row(each).value.reveal()) for each in (account, other))
    texts = told(response)
    assert any("left out" in text for text in texts)
    assert "2 tokens were refreshed." in texts
    assert set(RefreshLog.objects.values_list("reason", "client")) == {("admin", "boss")}


def test_action__needs_the_permission(staff, account, weixin):
    client = staff("view_account", "change_account", "delete_account")
    assert "refresh_selected" not in page(client.get(reverse(LIST)))
    act(client, "refresh_selected", [account])
    assert weixin.calls_to(APPID, "stable") == 0


def test_action__too_many_are_refused(boss, account, weixin, settings):
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "BATCH_THREADS": 1}
    others = [Account.objects.create(appid=f"wxmany{n}", secret="s") for n in range(2)]
    (text,) = told(act(boss, "refresh_selected", [account, *others]))
    assert text.startswith("Select 2 accounts at most.")
    assert weixin.calls_to(APPID, "stable") == 0


def outcome(status, error=None, until=None):
    return Outcome(status, Token(), until, error)


WHITELIST = APIError("x", error_class=ErrorClass.HUMAN, errcode=40164, egress_ip="203.0.113.7")


@pytest.mark.parametrize(
    ("result", "left", "level", "words_of_it"),
    [
        (outcome(Status.RENEWED), 7200, messages.SUCCESS, "new token, good for 2 h 0 min"),
        (outcome(Status.UNCHANGED), 100, messages.SUCCESS, "the same token"),
        (outcome(Status.CURRENT), 100, messages.INFO, "a moment ago"),
        (outcome(Status.BUSY), 100, messages.INFO, "being refreshed already"),
        (outcome(Status.SUPERSEDED), 100, messages.INFO, "Another refresh"),
        (outcome(Status.LIMITED, until=START), 100, messages.WARNING, "March 2, 2026"),
        (outcome(Status.FAILED, WHITELIST), 100, messages.ERROR, "good for another 1 min"),
        (outcome(Status.FAILED, WHITELIST), 0, messages.ERROR, "Add 203.0.113.7"),
        (outcome(Status.FAILED, TransportError("x", may_have_issued=False)), 0, messages.ERROR, "No answer"),
    ],
)
def test_told__by_outcome(result, left, level, words_of_it):
    told_level, text = words.told(result, APPID, START, left)
    assert told_level == level
    assert words_of_it in text


def test_told_of_many__one_message_for_each_kind():
    counted = Counter(renewed=1, unchanged=1, busy=1, limited=1, failed=2, error=1)
    assert [(level, int(text.split()[0])) for level, text in words.told_of_many(counted)] == [
        (messages.SUCCESS, 2),
        (messages.INFO, 1),
        (messages.WARNING, 1),
        (messages.ERROR, 3),
    ]


@pytest.mark.parametrize(
    ("length", "text"),
    [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (6720, "1 h 52 min"), (90_000, "1 d 1 h")],
)
def test_duration(length, text):
    with translation.override("en"):
        assert words.duration(length) == text


@pytest.mark.parametrize(
    ("error_class", "summary"), [("quota", "A limit"), ("transient", "No usable answer"), ("human", "No usable answer")]
)
def test_problem__without_an_errcode(error_class, summary):
    token = Token(failures=1, error_class=error_class, error="timed out")
    assert words.problem(token).summary.startswith(summary)
    assert words.problem(token).evidence == "timed out"


# -- reading the token in clear


def test_reveal__shows_the_token_once_and_records_it(boss, account, weixin, caplog):
    boss.post(url("refresh", account))
    boss.get(url("change", account))  # takes the messages
    value = row(account).value.reveal()
    with caplog.at_level(logging.DEBUG):
        response = boss.post(url("reveal", account))
    assert value in page(response)
    assert "no-store" in response.headers["Cache-Control"]
    assert LogEntry.objects.get().get_change_message() == "Token revealed."
    assert f"Token revealed: account={APPID} user=boss" in caplog.text
    assert value not in caplog.text
    assert told(response) == []
    assert value not in str(response.cookies)
    assert value not in page(boss.get(url("change", account)))


@pytest.mark.parametrize("permissions", [(), ("view_account", "change_account", "refresh_token"), ("reveal_token",)])
def test_reveal__needs_its_permission_and_sight_of_the_account(staff, account, permissions):
    assert staff(*permissions).post(url("reveal", account)).status_code == 403
    assert not LogEntry.objects.exists()


def test_reveal__no_token_yet(boss, account):
    response = boss.post(url("reveal", account))
    assert told(response) == ["There is no token yet."]
    assert not LogEntry.objects.exists()


def test_reveal__unreadable_token_is_told(boss, account):
    from wechat_token.encryption import StoredSecret

    Token.objects.update(version=1, value=StoredSecret("gAAAA-not-with-our-key"))
    (text,) = told(boss.post(url("reveal", account)))
    assert "cannot be read" in text


# -- the log


@pytest.fixture
def entry(account):
    return RefreshLog.objects.create(
        account=account, kind="access_token", at=START, reason="caller", endpoint="stable", outcome="failed",
        errcode=40164, rid="65f1-rid", duration_ms=12,
    )  # fmt: skip


def test_log__cannot_be_written_by_hand(boss, entry):
    assert boss.get(reverse("admin:wechat_token_refreshlog_add")).status_code == 403
    change = reverse("admin:wechat_token_refreshlog_change", args=[entry.pk])
    assert boss.get(change).status_code == 200
    assert boss.post(change, {"outcome": "renewed"}).status_code == 403
    assert boss.post(reverse("admin:wechat_token_refreshlog_delete", args=[entry.pk])).status_code == 403
    assert "delete_selected" not in page(boss.get(reverse(LOG)))


@pytest.mark.parametrize(
    ("term", "found"), [(APPID, 1), ("0123456789ABC", 1), ("shop", 1), ("65f1-rid", 1), ("65f1", 0), ("nobody", 0)]
)
def test_log__search_by_account_or_rid(boss, entry, term, found):
    assert boss.get(reverse(LOG), {"q": term}).context["cl"].result_count == found


@pytest.mark.parametrize(
    ("query", "found"),
    [({"reason": "caller"}, 1), ({"reason": "admin"}, 0), ({"outcome__exact": "failed"}, 1)],
)
def test_log__filters(boss, entry, query, found):
    assert boss.get(reverse(LOG), query).context["cl"].result_count == found


def test_log__error_in_words(boss, entry):
    assert "whitelist. (40164)" in page(boss.get(reverse(LOG)))


def test_log__counts_no_further_than_it_pages(boss, entry, monkeypatch, django_assert_max_num_queries):
    monkeypatch.setattr(BoundedPaginator, "MOST", 2)
    RefreshLog.objects.bulk_create([_copy(entry) for _ in range(5)])
    with django_assert_max_num_queries(5) as captured:
        response = boss.get(reverse(LOG))
    assert response.context["cl"].result_count == 2
    counts = [query["sql"] for query in captured.captured_queries if "COUNT(" in query["sql"]]
    assert counts
    assert all("LIMIT 2" in sql for sql in counts)


def _copy(entry):
    copy = RefreshLog.objects.get(pk=entry.pk)
    copy.pk = None
    return copy


# -- client keys


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
    from wechat_token import keyring

    keyring.clear()
    text = shown_key(add_key(boss, accounts=[account.pk]))
    keyring.clear()
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


@pytest.mark.parametrize(
    ("networks", "errors"),
    [
        ("10.0.0.0/8\n192.168.1.7\n\n2001:db8::/32", []),
        ("10.0.0.1\nexample.com", ["Line 2: “example.com” is neither"]),
        ("10.0.0.5/24", ["Line 1: 10.0.0.5/24 lies inside a network. Write 10.0.0.0/24"]),
        ("x\n10.0.0.1\ny", ["Line 1: “x”", "Line 3: “y”"]),
    ],
)
def test_key_form__networks(db, networks, errors):
    found = ClientKeyForm({"name": "crm", "networks": networks}).errors.get("networks", [])
    assert len(found) == len(errors)
    assert all(text.startswith(start) for text, start in zip(found, errors, strict=True))


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


# -- deleting an account


def test_delete__warns_and_lists_no_log_rows(boss, entry):
    html = page(boss.get(url("delete", entry.account)))
    assert "gets none from now on" in html
    assert "refresh log: 1" in html.lower()
    assert f"/refreshlog/{entry.pk}/" not in html


def test_delete__needs_no_permission_for_the_log(staff, entry):
    client = staff("view_account", "delete_account")
    response = client.post(url("delete", entry.account), {"post": "yes"})
    assert response.status_code == 302
    assert not Account.objects.exists()
    assert not RefreshLog.objects.exists()


def test_delete__selected_warns_too(boss, entry):
    html = page(act(boss, "delete_selected", [entry.account]))
    assert "gets none from now on" in html
    assert f"/refreshlog/{entry.pk}/" not in html


# -- secrecy (S2)


def test_secrets__are_on_no_page_in_no_log_and_no_record(boss, account, weixin, caplog):
    """Everything an operator does, at DEBUG, with a planted secret."""
    answers = []

    def do(response):
        answers.append(response)
        return response

    with caplog.at_level(logging.DEBUG):
        do(boss.post(url("refresh", account), follow=True))
        do(boss.post(url("change", account), account_data(secret=SECRET), follow=True))
        do(boss.post(url("change", account), account_data(secret=SECRET, endpoint="nonsense")))
        do(boss.post(reverse("admin:wechat_token_account_add"), account_data(appid="no way", secret=SECRET)))
        do(act(boss, "refresh_selected", [account]))
        weixin.reset_secret(APPID, "another")
        Token.objects.update(sent_at=None)
        do(boss.post(url("refresh", account), follow=True))
        views = [url(view, account) for view in ("change", "history", "delete")]
        for address in (reverse(LIST), *views, reverse(LOG), reverse("admin:index")):
            do(boss.get(address))
    token = row(account).value.reveal()
    assert token
    records = [f"{e.change_message} {e.object_repr}" for e in LogEntry.objects.all()]
    places = [caplog.text, *records]
    for response in answers:
        places += [page(response), str(response.headers), str(response.cookies), *told(response)]
    for secret in (SECRET, token):
        assert not [place for place in places if secret in place]
