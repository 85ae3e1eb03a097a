"""Callers that are greenlets, as under ``gunicorn -k gevent``."""

from __future__ import annotations

import importlib.util
import json

import pytest

from .site import Ground, on
from .test_callers_locks import assert_answered

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")


@on("postgres", "sqlite")  # mysqlclient waits in C: under gevent its every statement stops the process
def test_greenlets__a_lock_of_its_own_and_one_that_gives_up(ground: Ground) -> None:
    """The process goes on while one waits for its own lock; whoever gives up takes nobody along."""
    locked, left = ground.account(), ground.account("classic")
    ground.slow(locked, 0.3)
    ground.slow(left, 0.8)
    told = json.loads(ground.site.run("-m", "tests.ground.greenlets", locked, left, timeout=20))
    answer = told["own lock"]["answer"]
    assert_answered(answer)
    assert answer["token"] == ground.stored(locked)
    assert told["own lock"]["heals"] is not None
    assert told["own lock"]["stood still"] < 0.45
    assert told["abandoned"]["first"] == "gave up"
    token = ground.stored(left)
    assert token
    assert [told["abandoned"][who].get("token") for who in ("second", "third")] == [token, token], told
    assert ground.fake.calls_to(left, "classic") == 1
