"""Flights: one of a key at a time, waits that end, answers before anybody else is told."""

from __future__ import annotations

import pytest

from tests.hangar import awaited
from wechat_token.engine import ground
from wechat_token.engine.ground import Crowded, Flight, NotYet

KEY = ("wx0123456789abcdef", "access_token")


def hung(key=KEY, **options) -> Flight:
    """A flight that brings no answer."""
    return ground.start(key, lambda flight: None, **options)


# -- one at a time, and not too many


def test_start__joins_the_flight_under_way(hangar):
    flight = hung()
    assert hung() is flight
    assert hung(("another", "access_token")) is not flight
    assert len(hangar.started) == 2


def test_start__a_landed_flight_is_joined_by_nobody(hangar):
    flight = ground.start(KEY, lambda flight: flight.answer("token"))
    hangar.let_go()
    assert ground.wait(flight, 1) == "token"
    assert hung() is not flight


def test_start__callers_have_so_many_threads_and_the_batch_its_own(hangar):
    for number in range(ground.CALLERS_FLIGHTS):
        hung((f"wx{number}", "access_token"))
    with pytest.raises(Crowded):
        hung()
    assert hung(scheduled=True)


def test_start__no_thread_to_be_had_leaves_nothing_behind(hangar, monkeypatch):
    def none_left(work, name):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(ground.threads, "start", none_left)
        with pytest.raises(Crowded):
            hung()
    assert ground.under_way(KEY) is None


# -- waiting (R30)


def test_wait__ends_at_the_callers_limit_and_says_what_holds_it_up(hangar, time):
    flight = hung()
    flight.goes_on("asking WeChat")
    with pytest.raises(NotYet, match="asking WeChat"):
        ground.wait(flight, 15)
    assert time.elapsed == pytest.approx(15)


def test_wait__of_one_who_joins_ends_at_their_own_limit(hangar, time):
    ends = []

    def join():
        if not ends:
            ends.append(None)
            with pytest.raises(NotYet):
                ground.wait(hung(), 3)
            ends.append(time.elapsed)

    hangar.meanwhile = join
    with pytest.raises(NotYet):
        ground.wait(hung(), 15)
    assert ends[1] == pytest.approx(3, abs=ground.SLICE + 0.01)


@pytest.mark.parametrize(("in_transaction", "patience"), [(True, 2), (False, 15)])
def test_wait__a_caller_in_a_transaction_may_hold_the_lock_itself(
    hangar, time, monkeypatch, in_transaction, patience
):  # fmt: skip
    monkeypatch.setattr(ground, "caller_is_in_transaction", lambda: in_transaction)
    flight = hung()
    flight.is_blocked("waiting for a lock")
    with pytest.raises(NotYet, match="waiting for a lock"):
        ground.wait(flight, 15)
    assert time.elapsed == pytest.approx(patience, abs=0.3)


def test_wait__a_transaction_is_no_reason_to_give_up_on_wechat(hangar, time, monkeypatch):
    monkeypatch.setattr(ground, "caller_is_in_transaction", lambda: True)
    flight = hung()
    flight.is_blocked("waiting for a lock")
    flight.goes_on("asking WeChat")
    with pytest.raises(NotYet):
        ground.wait(flight, 5)
    assert time.elapsed == pytest.approx(5)


def test_wait__anybody_for_a_second_then_four(hangar, time):
    flight = hung()
    flight.waiting += [ground.Waiter(in_transaction=False) for _ in range(ground.WAITING)]
    with pytest.raises(Crowded):
        ground.wait(flight, 15)
    assert time.elapsed == pytest.approx(ground.FREE_SECONDS, abs=0.2)


def test_wait__one_of_the_four_goes_on(hangar, time):
    flight = hung()
    flight.waiting += [ground.Waiter(in_transaction=False) for _ in range(ground.WAITING - 1)]
    with pytest.raises(NotYet):
        ground.wait(flight, 15)


@pytest.mark.parametrize(("took", "patience"), [(3, ground.FREE_AGAIN), (0.5, ground.FREE_SECONDS)])
def test_wait__where_the_last_flight_was_slow_nobody_has_a_second(hangar, time, took, patience):
    """R33: else an account that hangs would have all threads for a second again and again."""
    ground.start(KEY, lambda flight: time.pass_(took))
    hangar.let_go()
    began, flight = time.elapsed, hung()
    flight.waiting += [ground.Waiter(in_transaction=False) for _ in range(ground.WAITING)]
    with pytest.raises(Crowded):
        ground.wait(flight, 15, over_http=True)
    assert time.elapsed - began == pytest.approx(patience, abs=0.2)


def test_wait__over_http_few_threads_wait_in_a_process(hangar, time):
    """Each for another account that hangs: the server's threads are for the healthy ones."""
    requests, ends = 10, []

    def another_request():
        number = len(hangar.started)
        if number >= requests:
            return
        try:
            ground.wait(hung((f"wx{number}", "access_token")), 15, over_http=True)
        except (Crowded, NotYet) as end:
            ends.append((type(end), time.elapsed))

    hangar.meanwhile = another_request
    another_request()
    refused = [elapsed for end, elapsed in ends if end is Crowded]
    assert len(refused) == requests - ground.ALL_WAITING_OVER_HTTP
    assert max(refused) < 2
    assert len(ends) == requests


def test_wait__a_reader_takes_the_token_that_is_current_meanwhile(hangar, time):
    """The flight may be about a complaint, and WeChat hang."""
    flight = hung()
    hangar.meanwhile = lambda: setattr(flight, "current", "token")  # it has read the row
    assert ground.wait(flight, 15, reading=True) == "token"
    assert time.elapsed <= 2 * ground.SLICE
    before = time.elapsed
    assert ground.wait(flight, 15, reading=True) == "token"
    assert time.elapsed == before
    with pytest.raises(NotYet):
        ground.wait(flight, 15)


def test_wait__brings_what_the_flight_raises(hangar):
    def breaks_off(flight):
        raise LookupError("no such account")

    flight = ground.start(KEY, breaks_off)
    hangar.let_go()
    with pytest.raises(LookupError):
        ground.wait(flight, 15)
    assert ground.under_way(KEY) is None


def test_is_awaited__until_the_answer_is_out(hangar, time):
    flight = hung()
    assert flight.is_awaited  # whoever starts it needs a moment to wait for it
    time.pass_(ground.FREE_SECONDS)
    assert not flight.is_awaited
    with awaited(flight):
        assert flight.is_awaited
        flight.answer("token")
        assert not flight.is_awaited


# -- telling (R33)


def test_tell__after_the_answer_and_out_of_the_flight(hangar):
    seen = []

    def work(flight):
        flight.tell(lambda: seen.append((flight.result.done(), flight.landed.done(), ground.under_way(KEY))))
        flight.answer("token")

    ground.start(KEY, work)
    hangar.let_go()
    assert seen == [(True, True, None)]


def test_lane__in_order_and_past_what_fails(hangar):
    done = []
    ground.lane("signals", lambda: done.append(1))
    ground.lane("signals", lambda: 1 / 0)
    ground.lane("signals", lambda: done.append(2))
    hangar.let_go()
    assert done == [1, 2]
    assert len(hangar.started) == 1


def test_lane__holds_up_its_own_alone(hangar):
    ground.lane("signals", lambda: None)
    ground.lane("broker", lambda: None)
    assert hangar.started == ["signals", "broker"]


def test_lane__of_a_listener_that_hangs_grows_to_a_limit(hangar, caplog):
    for _ in range(ground.LANE_LENGTH + 3):
        ground.lane("signals", lambda: None)
    assert caplog.text.count("dropped") == 3


def test_aside__once_at_a_time_and_few_in_all(hangar):
    for name in [*range(20), 0]:
        ground.aside(name, lambda: None)
    assert len(hangar.started) == ground.ASIDE
