"""The last 48 hours of a credential as a picture. Pure: rows and a moment go in."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.conftest import START
from wechat_token.admin.timeline import timeline
from wechat_token.models import Account, RefreshLog, Token

HOUR = dt.timedelta(hours=1)


def log(*rows):
    """Rows from (hours ago, outcome, errcode, reason)."""
    return [
        RefreshLog(ref="wx", kind="access_token", at=START - ago * HOUR, outcome=outcome, errcode=code, reason=reason)
        for ago, outcome, code, reason in rows
    ]


def token(**fields):
    account = Account(appid="wx", ref="wx")
    usual = {"version": 1, "issued_at": START - HOUR, "expires_at": START + HOUR, "issued_for": "wx"}
    return Token(account=account, **{**usual, **fields})


def names(picture):
    return [lane.name for lane in picture.lanes]


def test_timeline__lives_follow_one_another():
    rows = log(*((ago, "renewed", None, "schedule") for ago in (5, 3, 1)))
    token_lane, renewals = timeline(token(), rows, START, START + HOUR).lanes
    assert [bar.css for bar in token_lane.bars] == ["life-2", "life", "life-2"]
    assert [bar.x for bar in token_lane.bars] == ["89.58%", "93.75%", "97.92%"]
    assert len(renewals.marks) == 3


def test_timeline__a_time_without_a_token_is_a_gap():
    rows = log((10, "renewed", None, "schedule"), (3, "renewed", None, "schedule"), (1, "renewed", None, "schedule"))
    picture = timeline(token(), rows, START, START + HOUR)
    (gap,) = [bar for bar in picture.lanes[0].bars if bar.css == "gap"]
    assert (gap.x, gap.width) == ("83.33%", "10.42%")  # from 8 to 3 hours ago: a token lives for two
    assert "without a usable token for 5 h" in picture.summary


def test_timeline__a_dead_token_ends_where_it_died():
    rows = log((5, "renewed", None, "schedule"))
    dead = token(issued_at=START - 5 * HOUR, expires_at=START - 3 * HOUR)
    bars = timeline(dead, rows, START, START - 3 * HOUR).lanes[0].bars
    assert [(bar.css, bar.x) for bar in bars] == [("life-2", "89.58%"), ("gap", "93.75%")]


def test_timeline__failures_by_class_complaints_and_others():
    rows = log(
        (9, "failed", 40164, "schedule"), (8, "failed", -1, "schedule"), (7, "failed", 45009, "schedule"),
        (6, "failed", None, "schedule"), (5, "refused", None, "complaint"), (4, "limited", None, "admin"),
    )  # fmt: skip
    picture = timeline(token(foreign_at=START - 2 * HOUR), rows, START, START + HOUR)
    assert names(picture) == [
        "Token in hand", "Renewals", "Failures: no answer, or WeChat busy", "Failures: a limit of calls",
        "Failures: somebody has to act", "Complaints", "Refreshes by another system",
    ]  # fmt: skip
    assert [len(lane.marks) for lane in picture.lanes] == [0, 0, 2, 2, 1, 1, 1]
    assert "40164" in picture.lanes[4].marks[0].title


def test_timeline__marks_too_close_to_be_told_apart_are_one():
    rows = log(*((1 + minute / 60, "failed", -1, "schedule") for minute in range(600)))
    (lane,) = timeline(token(), rows, START, START + HOUR).lanes[2:]
    assert 60 <= len(lane.marks) <= 61
    assert lane.marks[1].title.startswith("10 ×, ")


@pytest.mark.parametrize("rows", [[], log((100, "renewed", None, "schedule"))])
def test_timeline__nothing_is_known(rows):
    picture = timeline(token(version=0, issued_at=None, expires_at=None), rows, START, None)
    assert picture.lanes[1].marks == []
    assert picture.height > 0


def test_timeline__a_row_of_a_clock_ahead_is_left_out():
    assert timeline(token(), log((-1, "failed", -1, "schedule")), START, START + HOUR).lanes[2:] == []
