"""A pytest fixture with the fake WeChat. Nothing is registered by itself: name it in the top conftest.py::

    pytest_plugins = ["wechat_token.sandbox.pytest_plugin"]

and ask for it::

    def test_menu_is_published(fake_wechat):
        fake_wechat.add_account("wx0123456789abcdef", "any secret will do")
        publish_menu()

Each test gets a new fake with the default limits and the real clock. For other options use
:func:`wechat_token.sandbox.testing.fake_wechat` in a fixture of your own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import testing
from .weixin import FakeWeChat


@pytest.fixture
def fake_wechat() -> Iterator[FakeWeChat]:
    """A :class:`FakeWeChat` that answers every ``requests`` call for api.weixin.qq.com."""
    with testing.fake_wechat() as fake:
        yield fake
