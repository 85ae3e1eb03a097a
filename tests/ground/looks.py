"""How the proofs look from outside: signals, the printed state, and patience with a limit."""

from __future__ import annotations

import io
import json
import time as real_time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError
from django.dispatch import Signal

from wechat_token import signals


def until(condition: Callable[[], object], patience: float = 2.0) -> bool:
    """Whether it comes true within ``patience`` seconds of real time: what is told may be told by another thread."""
    give_up_at = real_time.monotonic() + patience
    while not condition():
        if real_time.monotonic() >= give_up_at:
            return False
        real_time.sleep(0.01)
    return True


def printed(*command: str) -> str:
    """What ``manage.py wechat_token …`` prints, healthy or not."""
    out = io.StringIO()
    with suppress(CommandError):
        call_command("wechat_token", *command, stdout=out, stderr=out)
    return out.getvalue()


def status(appid: str) -> dict[str, Any]:
    """One account of ``status --json``."""
    accounts = json.loads(printed("status", "--json"))["accounts"]
    return next(account for account in accounts if account["appid"] == appid)


@contextmanager
def listening() -> Iterator[list[tuple[Signal, dict[str, Any]]]]:
    """Every signal of the package that is sent within, with its payload."""
    every = (signals.refresh_finished, signals.attention_needed, signals.foreign_refresh_detected)
    told: list[tuple[Signal, dict[str, Any]]] = []

    def listen(signal: Signal, **payload: Any) -> None:
        told.append((signal, payload))

    for signal in every:
        signal.connect(listen, dispatch_uid="tests.ground")
    try:
        yield told
    finally:
        for signal in every:
            signal.disconnect(dispatch_uid="tests.ground")
