"""The fake WeChat for your own tests: outgoing ``requests`` calls end in memory, no socket is opened.

Needs the ``responses`` package (in the ``test`` extra of this distribution)::

    from wechat_token.sandbox.testing import fake_wechat

    def test_menu_is_published():
        with fake_wechat() as fake:
            fake.add_account("wx0123456789abcdef", "any secret will do")
            publish_menu()
            assert fake.calls_to("wx0123456789abcdef", "stable") == 1
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
import responses

from . import inprocess
from .weixin import FakeWeChat

API_BASE_URL = "https://api.weixin.qq.com"
SETTLE_SECONDS = 5.0


@contextmanager
def fake_wechat(
    fake: FakeWeChat | None = None, *, base_url: str = API_BASE_URL, **options: Any
) -> Iterator[FakeWeChat]:
    """Send every ``requests`` call for ``base_url`` to ``fake``, or to a new ``FakeWeChat(**options)``.

    Calls to other hosts fail with ``requests.ConnectionError``: no test reaches the network by mistake.
    Raises ``TypeError`` if both a fake and options are given.
    """
    if fake is not None and options:
        raise TypeError("give either a FakeWeChat or the options for a new one")
    target = FakeWeChat(**options) if fake is None else fake

    def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], bytes]:
        # ``responses`` leaves the keyword arguments of the adapter's send() on the request.
        timeout = getattr(request, "req_kwargs", {}).get("timeout")
        reply = inprocess.send(target, request, timeout)
        return reply.status, reply.headers, reply.body

    with _kept_apart(), responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
            mock.add_callback(method, re.compile(re.escape(base_url.rstrip("/")) + "/"), callback=answer)
        try:
            yield target
        finally:
            _settle()


@contextmanager
def _kept_apart() -> Iterator[None]:
    """Tokens of one test's WeChat must reach neither the next test, through this process's memory, nor anybody else
    through a cache that is shared (R32).
    """
    engine = sys.modules.get("wechat_token.engine")  # not loaded: Django is not in use here
    if engine is None:
        yield
        return
    engine.clear_memory()
    with engine.isolated():
        yield
    engine.clear_memory()


def _settle() -> None:
    """What is still under way must end before WeChat is the real one again, and before a test's database goes."""
    engine = sys.modules.get("wechat_token.engine")
    if engine is not None:
        engine.settle(SETTLE_SECONDS)
