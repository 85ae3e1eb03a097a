"""A thousand addresses that a browser can have: what tag and script hand to wx.config is valid for each."""

from __future__ import annotations

import random

import pytest
from django.core.servers.basehttp import WSGIRequestHandler

from tests.jssdk import pages
from tests.jssdk.conftest import CHROMIUM, DRIVER

pytestmark = [
    pytest.mark.proof,
    pytest.mark.browser,
    pytest.mark.urls("tests.jssdk.pages"),
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with chromedriver here"),
]

COUNT = 500  # for each of two servers
PIECES = (
    *"abzAZ059-._~!$&'()*+,;=:@", "%2F", "%2f", "%7E", "%7e", "%e4", "%E4%BD%A0", "%01", "%25", "%25E4", "%", "%zz",
    *"你好é\u00a0\u202e \"<>`{}|\\^[]/", "e\u0301", "\U0001f600", "//", "/./", "/../x", "&amp;", "&lt", "+", "==", "'",
    "</script>", "{{x}}",
)  # fmt: skip
ENDS = ("", "?", "#", "?#", "#!/route?x=1", "?from=singlemessage&isappinstalled=0", "?a=%E4%BD%A0#你")


def addresses(seed: int) -> list[str]:
    chance = random.Random(seed)

    def some(most: int) -> str:
        return "".join(chance.choice(PIECES) for _ in range(chance.randint(0, most)))

    made = set()
    while len(made) < COUNT:
        query = f"?{some(8)}#{some(3)}" if chance.random() < 0.6 else chance.choice(ENDS)
        made.add(f"/sale/{some(10)}{query}")
    return sorted(made)


def visit(phone, address: str) -> str:
    """The address as the browser then has it; an ``AssertionError`` unless WeChat accepts what it is given."""
    answers = phone.open(address)
    here = phone.driver.execute_script("return location.href")
    assert answers == ["config:ok"], f"{here!r} for {address!r}: {answers}, asked for {phone.wechat.asked[-2:]}"
    return here


def test_addresses__where_the_server_tells_what_was_sent(phone, wechat, monkeypatch):
    """As gunicorn and uWSGI do: the tag is right by itself, and the script never has to ask."""
    get_environ = WSGIRequestHandler.get_environ
    monkeypatch.setattr(WSGIRequestHandler, "get_environ", lambda self: {**get_environ(self), "RAW_URI": self.path})
    seen = {visit(phone, address) for address in addresses(1)}
    assert len(seen) > 0.9 * COUNT
    assert wechat.asked == []


def test_addresses__where_the_server_tells_a_decoded_path(phone, wechat):
    """As runserver does: the script notices what cannot be had back, and asks."""
    seen = {visit(phone, address) for address in addresses(2)}
    assert len(seen) > 0.9 * COUNT
    assert wechat.asked
    assert {url.split("/")[2] for url in wechat.asked} == {pages.HOST}
