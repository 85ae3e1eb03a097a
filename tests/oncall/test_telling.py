"""When people are told: histories of a cause, played through the pure rules."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import START
from wechat_token.diagnosis import telling
from wechat_token.diagnosis.telling import Event, State, Step

HOUR = 3600.0


def play(looks, *, reaches=lambda attempt: {"mail"}, every=10.0, count=lambda at: 1):
    """What is sent, as (seconds, event), where ``looks`` says for each look whether the problem is there."""
    state, told, attempt = None, [], 0
    for number, present in enumerate(looks):
        at = number * every
        now = START + dt.timedelta(seconds=at)
        decision = telling.decide("cause", state, now, present=present, count=count(at))
        if decision is None or decision.step is Step.NOTHING:
            continue
        if decision.step is Step.FORGET:
            state = None
            continue
        state = replace(decision.state, revision=decision.state.revision + 1)
        if decision.step is Step.SEND:
            reached = reaches(attempt)
            attempt += 1
            told.append((at, decision.event, frozenset(reached)))
            state = telling.sent(
                state, decision.event, now, text="text", count=count(at), reached=reached, all_of={"mail", "hook"}
                if len(reaches(0) | reaches(99)) > 1 else {"mail"},
            )  # fmt: skip
    return told


def events(told):
    return [(at, event) for at, event, _reached in told]


def test_decide__one_message_at_the_break_and_one_at_the_end():
    assert events(play([True] * 30 + [False] * 30)) == [(10, Event.BROKEN), (320, Event.OVER)]


def test_decide__what_was_seen_once_is_not_told():
    assert play([True, False] * 20) == []


def test_decide__reminds_with_growing_gaps():
    told = events(play([True] * 3000, every=60.0))
    assert [event for _at, event in told] == [Event.BROKEN] + [Event.REMINDER] * (len(told) - 1)
    gaps = [(later[0] - earlier[0]) / HOUR for earlier, later in itertools.pairwise(told)]
    assert gaps[:4] == [1, 4, 12, 24]


def test_decide__reminds_sooner_when_it_concerns_twice_as_many():
    grown = events(play([True] * 200, count=lambda at: 3 if at < 600 else 206))
    assert grown == [(10, Event.BROKEN), (910, Event.REMINDER)]
    assert events(play([True] * 200, count=lambda at: 3 if at < 600 else 5)) == [(10, Event.BROKEN)]


def test_decide__an_absence_shorter_than_a_moment_is_no_end():
    assert events(play([True] * 5 + [False] + [True] * 5)) == [(10, Event.BROKEN)]


def test_decide__what_flaps_sends_less_and_less():
    told = play(([True] * 3 + [False] * 6) * 200)
    first, later = ([at for at, *_ in told if low <= at < low + 1800] for low in (0, 14_000))
    assert len(first) <= 12
    assert len(later) <= 2


def test_sent__who_was_not_reached_is_tried_again_and_the_others_are_left_alone():
    told = play([True] * 40, reaches=lambda attempt: {"hook"} if attempt == 0 else {"mail", "hook"})
    assert [at for at, *_ in told] == [10, 30]
    assert events(told) == [(10, Event.BROKEN), (30, Event.BROKEN)]


def test_sent__gives_up_after_some_tries_until_the_next_message():
    told = play([True] * 340, reaches=lambda attempt: {"hook"} if attempt < 99 else {"mail", "hook"})
    assert events(told)[:5] == [(at, Event.BROKEN) for at in (10, 30, 90, 330, 930)]
    assert len(told) == 5


def test_sent__its_end_is_told_to_who_heard_of_it():
    """The break reached one of two; then it was over."""
    told = play([True] * 2 + [False] * 30, reaches=lambda attempt: {"hook"} if attempt == 0 else {"mail", "hook"})
    assert events(told)[-1][1] is Event.OVER


def test_decide__leaves_whoever_sends_alone_for_a_while():
    state = State("cause", START, revision=3, sending_until=START + dt.timedelta(seconds=120))
    for seconds, step in ((60, Step.NOTHING), (121, Step.SEND)):
        decision = telling.decide("cause", state, START + dt.timedelta(seconds=seconds), present=True, count=1)
        assert decision is not None
        assert decision.step is step


@settings(max_examples=40)
@given(st.lists(st.booleans(), max_size=100))
def test_decide__an_end_follows_a_break_and_a_break_an_end(looks):
    told = [event for _at, event in events(play([*looks, *[False] * 400])) if event is not Event.REMINDER]
    assert told == [Event.BROKEN, Event.OVER] * (len(told) // 2)


@pytest.mark.parametrize("present", [True, False])
def test_decide__knows_nothing_of_what_is_not_there(present):
    decision = telling.decide("cause", None, START, present=present)
    assert (decision is None) is not present
