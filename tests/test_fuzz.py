"""The fuzz notices what it is there for, and finds nothing in a short run. The long one: ``python -m tests.fuzz``."""

from __future__ import annotations

import hashlib

import pytest

from tests.fuzz import wire
from tests.fuzz.__main__ import fuzz
from tests.fuzz.judge import Verdict

TARGET = wire.Target("wx0123456789abcdef", ("wxfedcba9876543210",), "wxt_" + "k" * 38, "stale-token")


def answer(status: int, body: bytes = b"{}", headers: bytes = b"Cache-Control: no-store") -> bytes:
    return b"HTTP/1.1 %d X\r\n%s\r\n\r\n%s" % (status, headers, body)


@pytest.fixture
def verdict() -> Verdict:
    verdict = Verdict()
    for name, group in (("secret", verdict.secrets), ("token", verdict.tokens), ("key", verdict.keys)):
        group.plant(name, shown(name).decode())
    return verdict


def shown(name: str) -> bytes:
    return hashlib.sha256(name.encode()).hexdigest().encode()


def test_wire__a_seed_and_a_number_make_the_same_request() -> None:
    assert [wire.request(7, 1, n, TARGET) for n in range(50)] == [wire.request(7, 1, n, TARGET) for n in range(50)]
    assert wire.request(7, 1, 0, TARGET) != wire.request(8, 1, 0, TARGET)


def test_wire__outsiders_and_holders_reach_every_call() -> None:
    made = [wire.request(1, 0, n, TARGET) for n in range(600)]
    for path in (b"/access_token ", b"/access_token/refresh ", b"cgi-bin/token?", b"cgi-bin/stable_token ", b"health"):
        calls = [request for request in made if path in request.wire]
        assert {request.has_key for request in calls} == {True, False}


@pytest.mark.parametrize(
    ("status", "body", "options", "faults"),
    [
        (500, b"{}", {}, 1),
        (502, b"{}", {}, 1),
        (503, b"<h1>busy</h1>", {}, 1),
        (503, b'{"error": {"code": "token_unavailable"}}', {}, 0),
        (503, b'{"status": "down"}', {}, 0),
        (501, b"", {}, 1),
        (501, b"", {"odd_coding": True}, 0),
        (400, b"<html>" + shown("key"), {}, 1),
        (200, shown("token"), {}, 1),
        (200, shown("token"), {"with_key": True}, 0),
        (200, shown("secret"), {"with_key": True}, 1),
        (200, shown("key"), {"with_key": True}, 1),
    ],
)
def test_verdict__of_an_answer(
    verdict: Verdict, status: int, body: bytes, options: dict[str, bool], faults: int
) -> None:
    verdict.answered("it", answer(status, body), **options)
    assert len(verdict.faults) == faults


def test_verdict__a_server_may_quote_a_malformed_request_to_its_sender(verdict: Verdict) -> None:
    verdict.answered("it", answer(400, b"<html>" + shown("key"), b"Content-Type: text/html"))
    verdict.answered("it", answer(501, b"<html>" + shown("key"), b"Content-Type: text/html"), odd_coding=True)
    assert not verdict.faults


def test_verdict__of_what_was_written(verdict: Verdict) -> None:
    for name in ("secret", "token", "key"):
        verdict.written("log", b"x " + shown(name) + b" y")
    assert verdict.faults == ["log: shows secret", "log: shows token", "log: shows key"]


@pytest.mark.parametrize(
    ("samples", "faults"),
    [
        ([70.0] * 10 + [85.0] * 90, 0),  # warm by the middle
        ([80.0 + n / 100 for n in range(100)], 0),
        ([80.0 + n / 5 for n in range(100)], 1),
        ([80.0] * 5, 1),
    ],
)
def test_verdict__of_memory(verdict: Verdict, samples: list[float], faults: int) -> None:
    verdict.memory(1, samples)
    assert len(verdict.faults) == faults


def test_verdict__of_workers(verdict: Verdict) -> None:
    verdict.workers([1, 2], [2, 3])
    assert verdict.faults == ["1 workers ended during the run"]


@pytest.mark.proof
def test_fuzz__finds_nothing_in_ten_seconds() -> None:
    verdict = fuzz(seed=5, seconds=10)
    assert not verdict.faults, verdict.report()
    assert verdict.counts["200"] > 100
