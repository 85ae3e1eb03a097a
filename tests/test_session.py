from __future__ import annotations

import io
import logging
import pickle
import socket
import time as real_time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import responses

from wechat_token import WeChatSession, session
from wechat_token.engine import Key
from wechat_token.exceptions import HostNotAllowed, TokenUnavailable, TransportError
from wechat_token.models import Account
from wechat_token.platforms import http_adapter
from wechat_token.platforms.official_account import PLATFORM, WAY
from wechat_token.redaction import Secret
from wechat_token.sandbox import FakeWeChat, Fault

from .conftest import APPID, row
from .leaks import visible
from .peer import Peer, answering, serving
from .peer import http as answer

BASE = "https://api.weixin.qq.com"
OLD, NEW = "canary-token-old-71bd", "canary-token-new-8c3e"
DEAD = {"errcode": 40001, "errmsg": "invalid credential"}
FINE = {"errcode": 0, "errmsg": "ok"}


class Tokens:
    """Stands in for the engine: one token to begin with, and the one a complaint brings."""

    def __init__(self) -> None:
        self.complaints: list[tuple[str, str]] = []
        self.successor = NEW

    def current_entry(self, key: Key) -> SimpleNamespace:
        return SimpleNamespace(value=OLD)

    def complain(self, key: Key, stale: Secret) -> SimpleNamespace:
        self.complaints.append((key[0], stale.reveal()))
        return SimpleNamespace(value=self.successor)


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Tokens:
    tokens = Tokens()
    monkeypatch.setattr(session, "current_entry", tokens.current_entry)
    monkeypatch.setattr(session, "complain", tokens.complain)
    monkeypatch.setattr(session, "platform_of", lambda ref: PLATFORM)
    return tokens


@pytest.fixture
def wire(tokens: Tokens) -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def wx() -> Iterator[WeChatSession]:
    with WeChatSession(APPID) as wx:
        yield wx


@pytest.fixture
def configure(settings: Any) -> Iterator[Callable[[Peer], None]]:
    def configure(peer: Peer) -> None:
        settings.WECHAT_TOKEN = {"API_BASE_URL": peer.url}

    yield configure
    for adapter in http_adapter._built:
        adapter.close()


def sent_tokens(wire: responses.RequestsMock) -> list[str]:
    return [call.request.params["access_token"] for call in wire.calls]  # type: ignore[attr-defined]


# -- with the engine and the fake WeChat ---------------------------------------------------------------------


def test_session__adds_the_token(account: Account, weixin: FakeWeChat, wx: WeChatSession) -> None:
    answer = wx.get("/cgi-bin/user/info", params={"openid": "o1"})
    assert answer.json()["openid"] == "o1"


def test_session__without_account_takes_the_only_one(account: Account) -> None:
    with WeChatSession() as wx:
        assert wx.get("/cgi-bin/user/info", params={"openid": "o1"}).json()["subscribe"] == 1


def test_session__dead_token_is_replaced(account: Account, weixin: FakeWeChat, wx: WeChatSession) -> None:
    wx.get("/cgi-bin/get_api_domain_ip")
    weixin.kill_token(APPID)
    assert wx.post("/cgi-bin/message/custom/send", json={"touser": "o1"}).json()["errcode"] == 0
    assert weixin.issued(APPID) == 2
    assert weixin.calls_to(APPID, "custom_send") == 2


def test_session__accepts_an_account_object(account: Account) -> None:
    assert WeChatSession(account).account == APPID


def test_session__no_token_obtainable(account: Account, weixin: FakeWeChat, wx: WeChatSession) -> None:
    weixin.inject(Fault("error", errcode=40125), times=5)
    with pytest.raises(TokenUnavailable):
        wx.get("/cgi-bin/user/info")


# -- judging the answer and repeating ------------------------------------------------------------------------


@pytest.mark.parametrize("errcode", [40001, 40014, 42001, "42001"])
def test_dead_token__is_complained_about_and_the_call_repeated_once(
    wire: responses.RequestsMock, tokens: Tokens, wx: WeChatSession, errcode: int | str
) -> None:
    wire.get(f"{BASE}/x", json={"errcode": errcode, "errmsg": "dead"})
    wire.get(f"{BASE}/x", json=FINE)
    assert wx.get("/x").json() == FINE
    assert tokens.complaints == [(APPID, OLD)]
    assert sent_tokens(wire) == [OLD, NEW]


@pytest.mark.parametrize(
    ("status", "content_type"), [(200, "text/plain"), (200, "text/html; charset=gbk"), (401, "image/jpeg")]
)
def test_dead_token__is_seen_whatever_the_headers_say(
    wire: responses.RequestsMock, wx: WeChatSession, status: int, content_type: str
) -> None:
    wire.get(f"{BASE}/x", body=b'\xef\xbb\xbf{"errcode":40001}', status=status, content_type=content_type)
    wire.get(f"{BASE}/x", json=FINE)
    assert wx.get("/x").json() == FINE


def test_dead_token__refused_again_is_the_callers_to_see(
    wire: responses.RequestsMock, tokens: Tokens, wx: WeChatSession
) -> None:
    wire.get(f"{BASE}/x", json=DEAD)
    assert wx.get("/x").json() == DEAD
    assert len(wire.calls) == 2
    assert len(tokens.complaints) == 1


def test_dead_token__not_repeated_with_the_same_token(
    wire: responses.RequestsMock, tokens: Tokens, wx: WeChatSession
) -> None:
    tokens.successor = OLD
    wire.get(f"{BASE}/x", json=DEAD)
    assert wx.get("/x").json() == DEAD
    assert len(wire.calls) == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"errcode":0}',
        b'{"errcode":45009}',
        b'{"errcode":true}',
        b'{"errcode":40001',
        b'["errcode", 40001]',
        b"\xff\xd8\xff\xe0 jpeg",
        b'{"errcode":40001,"filler":"' + b"x" * 5000 + b'"}',
        b"",
    ],
)
def test_answer__is_left_alone(wire: responses.RequestsMock, tokens: Tokens, wx: WeChatSession, body: bytes) -> None:
    wire.get(f"{BASE}/x", body=body)
    assert wx.get("/x").content == body
    assert tokens.complaints == []


def test_answer__of_a_streamed_call_is_left_unread(
    wire: responses.RequestsMock, tokens: Tokens, wx: WeChatSession
) -> None:
    wire.get(f"{BASE}/x", json=DEAD)
    with wx.get("/x", stream=True) as streamed:
        assert b"40001" in streamed.raw.read()
    assert tokens.complaints == []


def test_answer__redirect_is_not_followed(wire: responses.RequestsMock, wx: WeChatSession) -> None:
    wire.get(f"{BASE}/x", status=302, headers={"Location": "https://elsewhere.example/"})
    assert wx.get("/x", allow_redirects=True).status_code == 302
    assert len(wire.calls) == 1


def test_answer__hooks_see_the_last_one_only(wire: responses.RequestsMock, wx: WeChatSession) -> None:
    seen = []
    wx.hooks["response"].append(lambda response, **_: seen.append(response.json()))
    wire.get(f"{BASE}/x", json=DEAD)
    wire.get(f"{BASE}/x", json=FINE)
    wx.get("/x")
    assert seen == [FINE]


def test_answer__error_of_a_hook_passes_through(wire: responses.RequestsMock, wx: WeChatSession) -> None:
    wx.hooks["response"].append(lambda response, **_: response.raise_for_status())
    wire.get(f"{BASE}/x", status=502)
    with pytest.raises(requests.HTTPError) as caught:
        wx.get("/x")
    assert OLD not in visible(caught.value)


# -- bodies --------------------------------------------------------------------------------------------------


def repeated(wire: responses.RequestsMock) -> list[bytes]:
    bodies = []

    def play(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        body: Any = request.body
        bodies.append(body.read() if hasattr(body, "read") else body)
        return 200, {}, '{"errcode":40001}' if len(bodies) == 1 else '{"errcode":0}'

    wire.add_callback("POST", f"{BASE}/x", play)
    return bodies


def test_body__json_is_sent_again(wire: responses.RequestsMock, wx: WeChatSession) -> None:
    bodies = repeated(wire)
    wx.post("/x", json={"a": 1})
    assert bodies == [b'{"a": 1}'] * 2


def test_body__multipart_file_is_sent_again_whole(wire: responses.RequestsMock, wx: WeChatSession) -> None:
    bodies = repeated(wire)
    wx.post("/x", files={"media": io.BytesIO(b"picture")})
    assert b"picture" in bodies[0]
    assert bodies[0] == bodies[1]


def test_body__file_is_rewound_to_where_it_stood(wire: responses.RequestsMock, wx: WeChatSession) -> None:
    bodies = repeated(wire)
    file = io.BytesIO(b"head and the rest")
    file.seek(9)
    wx.post("/x", data=file)
    assert bodies == [b"the rest"] * 2


def test_body__generator_is_not_sent_again(wire: responses.RequestsMock, tokens: Tokens, wx: WeChatSession) -> None:
    wire.post(f"{BASE}/x", json=DEAD)
    with pytest.raises(requests.exceptions.UnrewindableBodyError, match="cannot be sent again"):
        wx.post("/x", data=(part for part in [b"half"]))
    assert len(wire.calls) == 1
    assert tokens.complaints == [(APPID, OLD)]  # so that the caller's second attempt succeeds


# -- where a token goes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", sorted(WAY.hosts))
def test_host__of_wechat(wire: responses.RequestsMock, wx: WeChatSession, host: str) -> None:
    wire.get(f"https://{host}/x", json=FINE)
    assert wx.get(f"https://{host}/x?a=1#part").url == f"https://{host}/x?a=1#part"
    assert wire.calls[0].request.url == f"https://{host}/x?a=1&access_token={OLD}"


def test_host__of_the_base_url(wire: responses.RequestsMock, wx: WeChatSession, settings: Any) -> None:
    settings.WECHAT_TOKEN = {"API_BASE_URL": "https://gateway.example:8443/weixin/"}
    wire.get("https://gateway.example:8443/weixin/x", json=FINE)
    assert wx.get("/x").json() == FINE


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/x",
        "http://api.weixin.qq.com/x",
        "https://api.weixin.qq.com:8443/x",
        "https://api.weixin.qq.com./x",
        "https://qyapi.weixin.qq.com/x",
        "https://api.weixin.qq.com.elsewhere.example/x",
        "https://api.weixin.qq.com@elsewhere.example/x",
        "https://elsewhere.example/@api.weixin.qq.com/x",
        "https://elsewhere.example\\@api.weixin.qq.com/x",
        "https://user:password@api.weixin.qq.com/x",
        "http://127.0.0.1/x",
    ],
)
def test_host__any_other_is_refused_before_anything_is_sent(
    wire: responses.RequestsMock, wx: WeChatSession, url: str
) -> None:
    with pytest.raises(HostNotAllowed):
        wx.get(url)
    assert len(wire.calls) == 0


def test_host__of_a_prepared_request_is_judged_too(wire: responses.RequestsMock, wx: WeChatSession) -> None:
    with pytest.raises(HostNotAllowed):
        wx.send(requests.Request("GET", "https://elsewhere.example/").prepare())


def test_host__error_is_a_requests_error_and_shows_no_query(tokens: Tokens, wx: WeChatSession) -> None:
    with pytest.raises(requests.RequestException) as caught:
        wx.get("https://elsewhere.example/x?key=canary")
    assert "canary" not in str(caught.value)


def test_path__with_two_slashes_stays_with_the_base(wire: responses.RequestsMock, wx: WeChatSession) -> None:
    wire.get(f"{BASE}//elsewhere.example/x", json=FINE)
    assert wx.get("//elsewhere.example/x").json() == FINE


def test_token__of_the_caller_is_refused(wire: responses.RequestsMock, wx: WeChatSession) -> None:
    with pytest.raises(ValueError, match="Leave access_token out"):
        wx.get("/x", params={"access_token": "mine"})


def test_token__is_quoted(wire: responses.RequestsMock, wx: WeChatSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "current_entry", lambda key: SimpleNamespace(value="a&b=c+d/e#f"))
    wire.get(f"{BASE}/x", json=FINE)
    wx.get("/x")
    assert sent_tokens(wire) == ["a&b=c+d/e#f"]


@pytest.mark.parametrize(
    "option", [{"verify": False}, {"verify": "ca.pem"}, {"proxies": {"https": "http://p"}}, {"cert": "c.pem"}]
)
def test_trust__is_not_the_callers_to_change(
    wire: responses.RequestsMock, wx: WeChatSession, option: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="PROXY"):
        wx.get("/x", **option)
    assert len(wire.calls) == 0


def test_trust__environment_is_ignored(
    tokens: Tokens, wx: WeChatSession, configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with serving(answering(answer(b'{"errcode":0}'))) as peer:
        configure(peer)
        assert wx.get("/x").json() == {"errcode": 0}


# -- secrecy -------------------------------------------------------------------------------------------------


def test_secrecy__response_shows_no_token(wire: responses.RequestsMock, wx: WeChatSession) -> None:
    wire.get(f"{BASE}/x", json=DEAD)
    response = wx.get("/x", params={"a": "1"})
    assert response.url == response.request.url == f"{BASE}/x?a=1"
    assert response.request.path_url == "/x?a=1"
    assert b"canary" not in pickle.dumps(response)


def test_secrecy__nothing_is_logged(
    tokens: Tokens, wx: WeChatSession, configure: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(answering(answer(b'{"errcode":40001}'))) as peer:
        configure(peer)
        wx.get("/x")
    assert f"access_token={NEW}".encode() in peer.requests[1]
    assert "/x" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_secrecy__failure_shows_no_token(tokens: Tokens, wx: WeChatSession, configure: Any, stream: bool) -> None:
    with serving(lambda peer, connection: False) as peer:
        configure(peer)
        with pytest.raises(TransportError) as caught:
            wx.get("/x", stream=stream)
    assert "canary" in peer.requests[0].decode()
    assert "the request had been sent" in str(caught.value)
    assert isinstance(caught.value, requests.RequestException)
    assert "canary" not in visible(caught.value)


def test_secrecy__failure_in_the_middle_of_a_body_shows_no_token(
    tokens: Tokens, wx: WeChatSession, configure: Any
) -> None:
    def cut(peer: Peer, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")

    with serving(cut) as peer:
        configure(peer)
        with pytest.raises(TransportError) as caught:
            wx.get("/x")
    assert "canary" not in visible(caught.value)


def test_secrecy__failed_complaint_shows_no_token(account: Account, weixin: FakeWeChat, wx: WeChatSession) -> None:
    wx.get("/cgi-bin/get_api_domain_ip")
    token = row(account).value.reveal()
    weixin.kill_token(APPID)
    weixin.inject(Fault("error", errcode=40125), times=5, endpoint="stable")
    with pytest.raises(TokenUnavailable) as caught:
        wx.get("/cgi-bin/user/info")
    assert token not in visible(caught.value)


def test_secrecy__session_can_be_pickled_without_a_token(wire: responses.RequestsMock, wx: WeChatSession) -> None:
    wire.get(f"{BASE}/x", json=FINE)
    wx.get("/x")
    frozen = pickle.dumps(wx)
    assert b"canary" not in frozen
    assert pickle.loads(frozen).get("/x").json() == FINE


# -- time ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.3, (9, 0.3)])
def test_timeout__is_a_total(tokens: Tokens, wx: WeChatSession, configure: Any, timeout: Any) -> None:
    def drip(peer: Peer, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        while peer.pause(0.05):
            connection.sendall(b" ")

    with serving(drip) as peer:
        configure(peer)
        started = real_time.monotonic()
        with pytest.raises(TransportError, match=r"within 0\.3 s"):
            wx.get("/x", timeout=timeout)
    assert real_time.monotonic() - started < 2


def test_timeout__of_the_session(tokens: Tokens, configure: Any) -> None:
    with serving(lambda peer, connection: peer.pause(9)) as peer:
        configure(peer)
        with WeChatSession(APPID, timeout=0.2) as wx, pytest.raises(TransportError, match=r"0\.2 s"):
            wx.get("/x")


def test_timeout__holds_for_a_body_that_is_read_slowly(tokens: Tokens, wx: WeChatSession, configure: Any) -> None:
    def sip(peer: Peer, connection: socket.socket) -> None:
        while peer.pause(0.01):
            connection.recv(65_536)

    def megabytes() -> Iterator[bytes]:
        while True:
            yield bytes(65_536)

    with serving(sip) as peer:
        configure(peer)
        started = real_time.monotonic()
        with pytest.raises(TransportError, match=r"within 0\.5 s"):
            wx.post("/x", data=megabytes(), timeout=0.5)
    assert real_time.monotonic() - started < 2
