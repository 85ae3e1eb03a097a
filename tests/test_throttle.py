"""Counting by name and window in a table that cannot grow without end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from wechat_token.throttle import Count, Throttle


def test_hit__counts_within_a_window():
    throttle = Throttle(window=60)
    assert throttle.hit("a", 100.0) == Count(1, 60.0)
    assert throttle.hit("a", 110.0) == Count(2, 50.0)


def test_hit__counts_names_apart():
    throttle = Throttle()
    throttle.hit("a", 100.0)
    assert throttle.hit("b", 100.0).number == 1


def test_hit__starts_anew_after_the_window_and_tells_what_was():
    throttle = Throttle(window=60)
    for _ in range(5):
        throttle.hit("a", 100.0)
    assert throttle.hit("a", 160.0) == Count(1, 60.0, before=5)


def test_hit__forgets_windows_long_past():
    throttle = Throttle(window=60)
    throttle.hit("a", 100.0)
    assert throttle.hit("a", 220.0) == Count(1, 60.0)


def test_hit__survives_a_clock_that_went_back():
    throttle = Throttle(window=60)
    throttle.hit("a", 100.0)
    assert throttle.hit("a", 10.0).seconds_left == 60.0


def test_hit__drops_whoever_was_silent_longest():
    throttle = Throttle(capacity=2)
    for name in ("quiet", "loud", "loud", "new"):
        throttle.hit(name, 100.0)
    assert throttle.hit("loud", 101.0).number == 3
    assert throttle.hit("quiet", 101.0).number == 1
    assert len(throttle._entries) == 2


def test_hit__loses_no_count_between_threads():
    throttle = Throttle()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: throttle.hit("a", 100.0), range(2000)))
    assert throttle.hit("a", 100.0).number == 2001
