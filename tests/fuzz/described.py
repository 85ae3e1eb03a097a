"""Requests that Schemathesis makes of ``openapi.json``: such as it allows, and such as it forbids."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from .wire import Target

EXAMPLES = 40  # of an operation and a mode, in one round


def calls(seed: int, url: str, target: Target, until: float) -> Iterator[tuple[str, bytes, bool, bool]]:
    """About what, the answer, whether the key and whether a Transfer-Encoding was sent; until then (monotonic)."""
    description = schemathesis.openapi.from_url(f"{url}/wechat/openapi.json")
    operations = [operation.ok() for operation in description.get_all_operations()]
    turn = 0
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < until:
            for operation in operations:
                for mode in GenerationMode:
                    turn += 1
                    for case in _cases(operation, mode, seed + turn):
                        if time.monotonic() >= until:
                            return
                        yield from _call(case, session, target, url, with_key=turn % 2 == 0)


def _cases(operation: Any, mode: GenerationMode, seed: int) -> list[Any]:
    found: list[Any] = []

    @seeded(seed)
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def collect(case: Any) -> None:
        found.append(case)

    with suppress(Unsatisfiable):  # of a call without parameters nothing can be made that the description forbids
        collect()
    return found


def _call(
    case: Any, session: Any, target: Target, url: str, *, with_key: bool
) -> Iterator[tuple[str, bytes, bool, bool]]:
    if "appid" in (case.path_parameters or {}) and with_key:
        case.path_parameters["appid"] = target.appid
    headers = {"Authorization": f"Bearer {target.key}"} if with_key else {}
    try:
        response = case.call(session=session, headers=headers, base_url=f"{url}/wechat", timeout=20)
    except requests.RequestException as error:
        if isinstance(error, requests.Timeout):
            yield case.operation.label, b"HTTP/1.1 599 no answer\r\n\r\n", with_key, False
        return  # what the client library refuses to send
    head = "\r\n".join(f"{name}: {', '.join(values)}" for name, values in response.headers.items())
    answer = f"HTTP/1.1 {response.status_code}\r\n{head}\r\n\r\n".encode() + response.content
    yield case.operation.label, answer, with_key, "transfer-encoding" in response.request.headers
