"""Accounts and tokens at a glance."""

from __future__ import annotations

import datetime as dt
import json
from contextlib import suppress

import pytest
from django.db.models import F

from tests.conftest import APPID, SECRET, START, row
from wechat_token import get_access_token, refresh_access_token
from wechat_token.diagnosis import overview
from wechat_token.exceptions import RefreshRateLimited
from wechat_token.models import Account, Token


def printed(time):
    return "\n".join(overview.table(overview.lines(time.now())))


def test_table__columns_are_aligned_where_characters_are_wide(account, time):
    account.name = "公众号 shop"
    account.save()
    Account.objects.create(appid="wxb", secret="x", name="plain name")
    head, first, second = overview.table(overview.lines(time.now()))
    assert second.index("stable") == head.index("Endpoint")
    assert first.index("stable") == head.index("Endpoint") - 3  # three characters that take two columns


def test_table__good_token(account, time):
    get_access_token()
    _head, line = overview.table(overview.lines(time.now()))
    assert line.split("  ")[:2] == [APPID, "shop"]
    assert "good" in line
    assert "2 h" in line


def test_table__failure_with_what_to_do(account, weixin, time):
    weixin.set_ip_whitelist(APPID, ["203.0.113.9"])
    with pytest.raises(Exception, match="40164"):
        get_access_token()
    shown = printed(time)
    assert "last error: wx0123456789abcdef: errcode 40164" in shown
    assert "to do: Add 127.0.0.1 to the IP whitelist" in shown
    assert "no usable token" in shown


def test_table__another_system(account, time):
    Token.objects.update(foreign_refreshes=2, foreign_at=time.now())
    assert "renewed this account's token, 2 times so far" in printed(time)


def test_table__shows_no_secret(account, time):
    token = get_access_token()
    shown = printed(time) + json.dumps(overview.as_json(overview.lines(time.now()), time.now()))
    assert SECRET not in shown
    assert token not in shown


def test_lines__an_account_without_token_row_has_one(db, time):
    Account.objects.bulk_create([Account(appid="wxbulk")])
    (line,) = overview.lines(time.now())
    assert (line.report.state, line.needs_somebody) == ("waiting", True)


def test_lines__a_new_account_is_given_time(account, time):
    (line,) = overview.lines(time.now())
    assert not line.needs_somebody
    time.pass_(61)
    (line,) = overview.lines(time.now())
    assert line.needs_somebody
    assert "beat" in line.action


@pytest.mark.parametrize(
    ("changes", "state", "needs_somebody"),
    [
        ({}, "good", False),
        ({"failures": 1, "error_class": "transient"}, "retrying", False),
        ({"failures": 1, "error_class": "human"}, "attention", True),
        ({"failures": 1, "error_class": "transient", "rejected_version": F("version")}, "dead", True),
        ({"issued_for": "wxbefore00000000"}, "dead", True),
        ({"complaints_refused_at": START}, "good", False),
        ({"due_at": dt.datetime(2026, 3, 1, tzinfo=dt.UTC)}, "overdue", True),
    ],
)
def test_lines__who_needs_somebody(account, time, changes, state, needs_somebody):
    get_access_token()
    Token.objects.update(**changes)
    (line,) = overview.lines(time.now())
    assert (line.report.state, line.needs_somebody) == (state, needs_somebody)


def test_lines__inactive_accounts_need_nobody(account, time):
    account.is_active = False
    account.save()
    (line,) = overview.lines(time.now())
    assert (line.report.state, line.needs_somebody) == ("inactive", False)


def test_as_json__keys_and_values(account, time):
    get_access_token()
    token = row(account)
    report = overview.as_json(overview.lines(time.now()), time.now())
    assert report == {
        "checked_at": "2026-03-02T04:00:00+00:00",
        "healthy": True,
        "problems": [],
        "accounts": [
            {
                "appid": APPID,
                "platform": "official_account",
                "name": "shop",
                "endpoint": "stable",
                "is_active": True,
                "is_default": False,
                "kind": "access_token",
                "state": "good",
                "needs_attention": False,
                "seconds_left": 7200,
                "usable_until": "2026-03-02T06:00:00+00:00",
                "expires_at": "2026-03-02T06:00:00+00:00",
                "issued_at": "2026-03-02T04:00:00+00:00",
                "due_at": token.due_at.isoformat(timespec="seconds"),
                "version": token.version,
                "failures": 0,
                "failed_at": None,
                "error_class": "",
                "errcode": None,
                "error": "",
                "rid": "",
                "egress_ip": "",
                "action": "",
                "foreign_refreshes": 0,
                "foreign_at": None,
                "asked_at": None,
                "waits_for": "",
                "complaints_refused": False,
                "calls_today": {"stable": 1},
            }
        ],
    }
    assert json.loads(json.dumps(report)) == report


def test_complaints_refused__are_said_for_ten_minutes(account, time):
    token = get_access_token()
    for _ in range(12):
        with suppress(RefreshRateLimited):
            refresh_access_token(stale_token=token, client="till")
        time.pass_(3)
    assert "Complaints about this token are refused" in printed(time)
    (entry,) = overview.as_json(overview.lines(time.now()), time.now())["accounts"]
    assert (entry["complaints_refused"], entry["state"]) == (True, "good")
    time.pass_(600)
    assert "Complaints" not in printed(time)


def test_as_json__garbled_usage_is_no_obstacle(account, time):
    Token.objects.update(usage=["x"])
    (entry,) = overview.as_json(overview.lines(time.now()), time.now())["accounts"]
    assert entry["calls_today"] == {}
