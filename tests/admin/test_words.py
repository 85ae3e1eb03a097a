"""What results and rows are called."""

from __future__ import annotations

from collections import Counter

import pytest
from django.contrib import messages

from tests.conftest import APPID, START
from wechat_token.admin import words
from wechat_token.engine import Outcome, Status
from wechat_token.exceptions import APIError, ErrorClass, TransportError
from wechat_token.models import Account, Token


def outcome(status, error=None, until=None):
    return Outcome(status, Token(account=Account()), until=until, error=error)


WHITELIST = APIError("x", error_class=ErrorClass.HUMAN, errcode=40164, egress_ip="203.0.113.7")


@pytest.mark.parametrize(
    ("result", "left", "level", "words_of_it"),
    [
        (outcome(Status.RENEWED), 7200, messages.SUCCESS, "new token, good for 2 h"),
        (outcome(Status.UNCHANGED), 100, messages.SUCCESS, "the same token"),
        (outcome(Status.CURRENT), 100, messages.INFO, "a moment ago"),
        (outcome(Status.ACCEPTED), 100, messages.INFO, "a moment ago"),
        (outcome(Status.BUSY), 100, messages.INFO, "being refreshed already"),
        (outcome(Status.SUPERSEDED), 100, messages.INFO, "Another refresh"),
        (outcome(Status.LIMITED, until=START), 100, messages.WARNING, "2026-03-02 12:00:00"),
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
    ("error_class", "summary"), [("quota", "A limit"), ("transient", "No usable answer"), ("human", "No usable answer")]
)
def test_problem__without_an_errcode(error_class, summary):
    token = Token(account=Account(), failures=1, error_class=error_class, error="timed out")
    assert words.problem(token).summary.startswith(summary)
    assert words.problem(token).evidence == "timed out"
