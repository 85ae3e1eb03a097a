"""A WeChat of your own: for the demo, for this package's tests, and for yours. No Django, no network needed.

In memory, with time under your control::

    clock = ManualClock()
    fake = FakeWeChat(clock, seed=1)
    fake.add_account("wx0123456789abcdef", "secret")
    token = fake.fetch_stable("wx0123456789abcdef", "secret").token
    clock.advance(7200)
    assert not fake.is_valid(token)

Over HTTP on loopback: ``with FakeWeChatServer(fake) as server`` and ``API_BASE_URL = server.url``, or
``python -m wechat_token.sandbox``. Under ``requests`` in tests: :mod:`wechat_token.sandbox.testing` and
:mod:`wechat_token.sandbox.pytest_plugin`.

AppSecrets of the sandbox are not real and are not protected as real ones are. Never give it a real one.
"""

from __future__ import annotations

from .answers import Refusal, Reply, Wire
from .api import ENDPOINTS
from .clock import ManualClock
from .faults import Fault, FaultKind
from .history import Call
from .server import FakeWeChatServer
from .tokens import Validity
from .weixin import FakeWeChat, Grant

__all__ = [
    "ENDPOINTS",
    "Call",
    "FakeWeChat",
    "FakeWeChatServer",
    "Fault",
    "FaultKind",
    "Grant",
    "ManualClock",
    "Refusal",
    "Reply",
    "Validity",
    "Wire",
]
