"""A token's state in words."""

from __future__ import annotations

import pytest
from django.db.models import F

from tests.conftest import APPID, START, row
from wechat_token import get_access_token
from wechat_token.diagnosis import states
from wechat_token.diagnosis.states import State
from wechat_token.engine.schedule import seconds
from wechat_token.exceptions import ErrorClass
from wechat_token.models import Token

pytestmark = pytest.mark.django_db


@pytest.fixture
def state(account, time):
    def state(**fields) -> State:
        Token.objects.update(**fields)
        return states.report(row(account), time.now(), overlap=300, lease=15).state

    return state


def test_report__waiting_until_the_first_fetch(state):
    assert state() is State.WAITING


def test_report__good_with_the_time_left(account, state, time):
    get_access_token(APPID)
    time.pass_(200)
    assert state() is State.GOOD
    assert states.report(row(account), time.now(), overlap=300, lease=15).seconds_left == 7000


def test_report__refreshing_while_the_lease_lives(state, time):
    assert state(lease_owner="x", lease_until=time.now() + seconds(5)) is State.REFRESHING


@pytest.mark.parametrize(
    ("error_class", "expected"),
    [
        (ErrorClass.TRANSIENT, State.RETRYING),
        (ErrorClass.QUOTA, State.ATTENTION),
        (ErrorClass.HUMAN, State.ATTENTION),
        (ErrorClass.UNKNOWN, State.ATTENTION),
    ],
)
def test_report__failing_with_a_usable_token(state, error_class, expected):
    get_access_token(APPID)
    assert state(failures=1, error_class=error_class) is expected


def test_report__dead_without_a_usable_token(state):
    assert state(failures=1, error_class=ErrorClass.HUMAN) is State.DEAD


@pytest.mark.parametrize(
    "fields", [{"rejected_version": F("version")}, {"issued_for": "wxbefore00000000"}, {"expires_at": START}]
)
def test_report__dead_with_a_token_that_is_not_served(state, fields):
    """Refused by WeChat, issued for the AppID the account had before, or past its life."""
    get_access_token(APPID)
    assert state(**fields) is State.DEAD


def test_report__dead_once_a_doubted_token_has_outlived_the_overlap(classic, state, time):
    get_access_token(APPID)
    assert state(unanswered_since=time.now()) is State.GOOD
    time.pass_(300)
    assert state() is State.DEAD


def test_report__overdue_when_nobody_renews(state, time):
    get_access_token(APPID)
    time.pass_until(Token.objects.get().due_at + seconds(61))
    assert state() is State.OVERDUE


def test_report__inactive(account, state):
    account.is_active = False
    account.save()
    assert state() is State.INACTIVE


def test_report__says_what_to_do_and_where(account, time):
    Token.objects.update(failures=1, error_class="human", errcode=40164, egress_ip="203.0.113.7")
    assert "203.0.113.7" in states.report(row(account), time.now(), overlap=300, lease=15).action


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (61, "1 min"),
        (6720, "1 h 52 min"),
        (7200, "2 h"),
        (9e4, "1 d 1 h"),
    ],
)  # fmt: skip
def test_duration__two_units(seconds, text):
    assert states.duration(seconds) == text
