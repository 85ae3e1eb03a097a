from __future__ import annotations

import datetime as dt
import gzip
import http.client
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import format_datetime
from typing import Any

import pytest
import requests
import responses
import urllib3

from wechat_token import clock
from wechat_token.conf import get_settings
from wechat_token.exceptions import AnswerError, ConfigurationError, ErrorClass, TransportError, UpstreamError
from wechat_token.platforms import http_adapter, transport
from wechat_token.redaction import Secret

from .leaks import visible
from .peer import Peer, answering, server_tls, serving
from .peer import http as answer

GOOD = answer(b'{"errcode":0}')
DEADLINE = 0.25  # of the calls that are to run into it


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    def configure(peer: Peer | str, **more: Any) -> None:
        settings.WECHAT_TOKEN = {
            "API_BASE_URL": peer if isinstance(peer, str) else peer.url,
            "REQUEST_DEADLINE": 10.0,
            "CONNECT_TIMEOUT": 10.0,
            **more,
        }

    return configure


@pytest.fixture(autouse=True)
def own_adapter() -> Iterator[None]:
    yield
    for adapter in http_adapter._built:
        adapter.close()


def failure(**arguments: Any) -> UpstreamError:
    """The error of one call, which comes within the deadline, give or take a busy machine."""
    started = time.monotonic()
    with pytest.raises(UpstreamError) as caught:
        transport.call("GET", "/cgi-bin/token", **arguments)
    assert time.monotonic() - started < DEADLINE + 1.5
    return caught.value


# -- answers -----------------------------------------------------------------------------------------------


def test_call__sends_get_with_query(configure: Callable[..., None]) -> None:
    with serving(answering(GOOD)) as peer:
        configure(peer)
        transport.call("GET", "/cgi-bin/token", params={"appid": "wx1", "secret": Secret("a b&c")})
    assert peer.requests[0].startswith(b"GET /cgi-bin/token?appid=wx1&secret=a+b%26c HTTP/1.1\r\n")


def test_call__sends_post_with_json(configure: Callable[..., None]) -> None:
    with serving(answering(GOOD)) as peer:
        configure(peer)
        transport.call("POST", "/cgi-bin/stable_token", json={"secret": Secret("abc"), "force_refresh": False})
    head, _, body = peer.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /cgi-bin/stable_token HTTP/1.1\r\n")
    assert json.loads(body) == {"secret": "abc", "force_refresh": False}


def test_call__keeps_path_of_base_url(configure: Callable[..., None]) -> None:
    with serving(answering(GOOD)) as peer:
        configure(f"{peer.url}/wechat/")
        transport.call("GET", "/cgi-bin/token")
    assert peer.requests[0].startswith(b"GET /wechat/cgi-bin/token HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("body", "parsed"),
    [
        ('{"a": "一"}'.encode(), {"a": "一"}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b" {} \n", {}),
    ],
    ids=["utf-8", "byte order mark", "white space"],
)
def test_call__parses(configure: Callable[..., None], body: bytes, parsed: dict[str, Any]) -> None:
    with serving(answering(answer(body, "200 OK", "Content-Type: text/html; charset=gbk"))) as peer:
        configure(peer)
        assert transport.call("GET", "/").body == parsed


def test_call__chunked(configure: Callable[..., None]) -> None:
    chunked = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{"a": \r\n2\r\n1}\r\n0\r\n\r\n'
    with serving(answering(chunked)) as peer:
        configure(peer)
        assert [transport.call("GET", "/").body for _ in range(2)] == [{"a": 1}] * 2
    assert peer.connections == 1


@pytest.mark.parametrize("ahead", [-120, 0, 3600])
def test_call__clock_skew(configure: Callable[..., None], ahead: int) -> None:
    date = format_datetime(clock.now() + dt.timedelta(seconds=ahead), usegmt=True)
    with serving(answering(answer(b"{}", "200 OK", f"Date: {date}"))) as peer:
        configure(peer)
        skew = transport.call("GET", "/").skew
    assert skew == pytest.approx(ahead, abs=1.0)


@pytest.mark.parametrize("header", ["X-Nothing: 1", "Date: yesterday", "Date: Mon, 01 Jan 99999 00:00:00 GMT"])
def test_call__no_usable_date(configure: Callable[..., None], header: str) -> None:
    with serving(answering(answer(b"{}", "200 OK", header))) as peer:
        configure(peer)
        assert transport.call("GET", "/").skew is None


def test_answer__repr_hides_the_body() -> None:
    assert "CANARY" not in repr(transport.Answer({"access_token": "CANARY"}, 0.0))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b'["a"]',
        b'"token"',
        b'{"expires_in": NaN}',
        b'{"expires_in": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"a": ' * 20_000,
        b"[" * 60_000,
        b'{"a": ' + b"9" * 5_000 + b"}",
        '{"errmsg": "系统繁忙"}'.encode("gbk"),
        b'{"a": 1',
    ],
    ids=lambda body: body[:12].decode("ascii", "replace"),
)
def test_call__garbage_may_have_been_a_token(configure: Callable[..., None], body: bytes) -> None:
    with serving(answering(answer(body))) as peer:
        configure(peer, MAX_ANSWER_BYTES=200_000)
        error = failure()
    assert isinstance(error, AnswerError)
    assert (error.error_class, error.may_have_issued) == (ErrorClass.TRANSIENT, True)


@pytest.mark.parametrize(
    ("status", "body", "may_have_issued"),
    [
        ("502 Bad Gateway", b"<html>", True),
        ("500 Internal Server Error", b'{"errcode": 40001}', True),
        ("404 Not Found", b"{}", False),
        ("403 Forbidden", b"<html>", False),
        ("304 Not Modified", b"", False),
    ],
)
def test_call__http_status(configure: Callable[..., None], status: str, body: bytes, may_have_issued: bool) -> None:
    with serving(answering(answer(body, status))) as peer:
        configure(peer)
        error = failure()
    assert isinstance(error, AnswerError)
    assert (error.error_class, error.may_have_issued) == (ErrorClass.TRANSIENT, may_have_issued)
    assert str(error).startswith(f"HTTP {status[:3]}: ")


def test_call__errcode_under_4xx_is_an_answer(configure: Callable[..., None]) -> None:
    with serving(answering(answer(b'{"errcode": 40013}', "400 Bad Request"))) as peer:
        configure(peer)
        assert transport.call("GET", "/").body == {"errcode": 40013}


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_call__redirect_is_not_followed(configure: Callable[..., None], status: str) -> None:
    with serving(answering(GOOD)) as elsewhere:
        with serving(answering(answer(b"", status, f"Location: {elsewhere.url}/"))) as peer:
            configure(peer)
            with pytest.raises(AnswerError) as caught:
                transport.call("POST", "/", json={"secret": Secret("CANARY")})
        assert not caught.value.may_have_issued
        assert elsewhere.connections == 0


def test_call__size_cap_is_inclusive(configure: Callable[..., None]) -> None:
    body = b'{"a": "' + b"x" * 100 + b'"}'
    with serving(answering(answer(body))) as peer:
        configure(peer, MAX_ANSWER_BYTES=len(body))
        transport.call("GET", "/")
        configure(peer, MAX_ANSWER_BYTES=len(body) - 1)
        assert f"more than {len(body) - 1} bytes" in str(failure())


@pytest.mark.parametrize("framing", ["Content-Length: 100000000", "Transfer-Encoding: chunked", "Connection: close"])
def test_call__endless_body_is_cut_off(configure: Callable[..., None], framing: str) -> None:
    def play(peer: Peer, connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        while peer.pause(0):
            connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n" if "chunked" in framing else b"x" * 4096)

    with serving(play) as peer:
        configure(peer, MAX_ANSWER_BYTES=10_000)
        error = failure()
    assert isinstance(error, AnswerError)
    assert error.may_have_issued


def test_call__compressed_answer_is_refused(configure: Callable[..., None]) -> None:
    bomb = gzip.compress(b'{"a": "' + b"0" * 10_000_000 + b'"}')
    with serving(answering(answer(bomb, "200 OK", "Content-Encoding: gzip"))) as peer:
        configure(peer)
        assert "compressed" in str(failure())
    assert b"accept-encoding: identity" in peer.requests[0].lower()


# -- the total deadline ------------------------------------------------------------------------------------


def drip(prefix: bytes, drop: bytes) -> Callable[[Peer, socket.socket], None]:
    def play(peer: Peer, connection: socket.socket) -> None:
        connection.sendall(prefix)
        while peer.pause(0.03):
            connection.sendall(drop)

    return play


@pytest.mark.parametrize(
    "play",
    [
        drip(b"", b""),
        drip(b"HTTP/1.1 2", b"0"),
        drip(b"HTTP/1.1 200 OK\r\nX-Drip: ", b"."),
        drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" "),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        drip(b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    ],
    ids=["silence", "status line", "header", "100 Continue", "body", "chunked body", "body until close"],
)
def test_deadline__dripping_peer_cannot_stretch_it(
    configure: Callable[..., None], play: Callable[[Peer, socket.socket], None]
) -> None:
    with serving(play) as peer:
        configure(peer, REQUEST_DEADLINE=DEADLINE)
        error = failure()
    assert isinstance(error, TransportError)
    assert error.may_have_issued
    assert str(error) == "no complete answer from 127.0.0.1 within 0.25 s (the request had been sent)"


def test_deadline__of_the_call_wins(configure: Callable[..., None]) -> None:
    with serving(drip(b"", b"")) as peer:
        configure(peer, REQUEST_DEADLINE=30.0)
        assert "within 0.1 s" in str(failure(deadline=0.1))


def test_deadline__slow_name_resolution_sends_nothing(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def slowly(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.15)
        return resolve(*args, **kwargs)

    with serving(answering(GOOD)) as peer:
        configure(peer)
        monkeypatch.setattr(socket, "getaddrinfo", slowly)
        error = failure(deadline=0.1)
    assert not error.may_have_issued
    assert peer.requests == []


def test_deadline__passed_while_connecting_sends_nothing(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = http_adapter._Connection.connect

    def slowly(self: Any) -> None:
        connect(self)
        time.sleep(0.15)

    with serving(answering(GOOD)) as peer:
        configure(peer)
        monkeypatch.setattr(http_adapter._Connection, "connect", slowly)
        error = failure(deadline=0.1)
    assert not error.may_have_issued
    assert peer.requests == []


@pytest.mark.parametrize("record", [b"", b"\x16\x03\x03\x40\x00"], ids=["silent", "dripping"])
def test_deadline__covers_the_tls_handshake(configure: Callable[..., None], record: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def handshake() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(record)
                    while not done.wait(0.03):
                        connection.sendall(record and b"\x02")
                except OSError:
                    return

        thread = threading.Thread(target=handshake)
        thread.start()
        configure(f"https://127.0.0.1:{listener.getsockname()[1]}")
        error = failure(deadline=DEADLINE)
        done.set()
        thread.join(5)
    assert not error.may_have_issued


def test_deadline__connect_timeout(configure: Callable[..., None]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]  # fill the queue: the kernel drops what comes after
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        configure(f"http://127.0.0.1:{listener.getsockname()[1]}", CONNECT_TIMEOUT=0.1, REQUEST_DEADLINE=30.0)
        error = failure()
        for client in waiting:
            client.close()
    assert not error.may_have_issued
    assert str(error) == "127.0.0.1 did not respond in time (nothing was sent)"


# -- whether the request may have reached WeChat ----------------------------------------------------------


def test_failure__refused(configure: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    configure(f"http://127.0.0.1:{port}")
    error = failure()
    assert isinstance(error, TransportError)
    assert not error.may_have_issued
    assert str(error) == "connection to 127.0.0.1 failed: Connection refused (nothing was sent)"


def test_failure__unresolved(configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    configure("https://api.weixin.qq.com")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure()
    assert not error.may_have_issued
    assert str(error) == "the host name api.weixin.qq.com could not be resolved (nothing was sent)"


def test_connect__tries_the_next_address(configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def twice(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if host != "localhost":
            return resolve(host, port, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

    with serving(answering(GOOD)) as peer:  # listens on 127.0.0.1 alone
        configure(f"http://localhost:{peer.port}")
        monkeypatch.setattr(socket, "getaddrinfo", twice)
        assert transport.call("GET", "/").body == {"errcode": 0}


def reset(peer: Peer, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hang_up(peer: Peer, connection: socket.socket) -> None:
    return


def truncate(peer: Peer, connection: socket.socket) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"access_token": ')


def talk_nonsense(peer: Peer, connection: socket.socket) -> None:
    connection.sendall(b"220 mail.example ESMTP\r\n")


@pytest.mark.parametrize("play", [reset, hang_up, truncate, talk_nonsense])
def test_failure__after_sending(configure: Callable[..., None], play: Callable[[Peer, socket.socket], None]) -> None:
    with serving(play) as peer:
        configure(peer)
        error = failure()
    assert isinstance(error, TransportError)
    assert error.may_have_issued
    assert len(peer.requests) == 1


def test_failure__is_a_requests_error(configure: Callable[..., None]) -> None:
    with serving(hang_up) as peer:
        configure(peer)
        with pytest.raises(requests.RequestException):
            transport.call("GET", "/")


def test_failure__of_a_time_limit_passes_through(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class TimeLimit(Exception):
        pass

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        try:
            raise OSError(CANARY)
        except OSError:
            raise TimeLimit  # noqa: B904  a signal handler cannot say what it interrupts

    configure("http://127.0.0.1:9")
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", interrupted)
    with pytest.raises(TimeLimit) as caught:
        transport.call("GET", "/", params={"secret": Secret("CANARY")})
    assert caught.value.__context__ is None
    assert [entry.name for entry in caught.traceback][1:] == ["call"]


# -- connections -------------------------------------------------------------------------------------------


def test_connection__is_kept_alive(configure: Callable[..., None]) -> None:
    with serving(answering(GOOD)) as peer:
        configure(peer)
        for _ in range(3):
            transport.call("GET", "/")
    assert (peer.connections, len(peer.requests)) == (1, 3)


def test_connection__dropped_while_idle_is_replaced(configure: Callable[..., None]) -> None:
    def once(peer: Peer, connection: socket.socket) -> None:
        connection.sendall(GOOD)

    with serving(once) as peer:
        configure(peer)
        transport.call("GET", "/")
        time.sleep(0.1)
        transport.call("GET", "/")
    assert (peer.connections, len(peer.requests)) == (2, 2)


def test_connection__idle_for_long_is_replaced(configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answering(GOOD)) as peer:
        configure(peer)
        transport.call("GET", "/")
        monkeypatch.setattr(http_adapter, "MAX_IDLE", 0.0)
        transport.call("GET", "/")
    assert peer.connections == 2


def test_connection__lost_in_use_sends_nothing_twice(configure: Callable[..., None]) -> None:
    def first_only(peer: Peer, connection: socket.socket) -> bool:
        if len(peer.requests) == 1:
            connection.sendall(GOOD)
        return len(peer.requests) == 1

    with serving(first_only) as peer:
        configure(peer)
        transport.call("GET", "/")
        assert failure().may_have_issued
    assert (peer.connections, len(peer.requests)) == (1, 2)


def test_connection__no_cookies(configure: Callable[..., None]) -> None:
    with serving(answering(answer(b"{}", "200 OK", "Set-Cookie: a=b"))) as peer:
        configure(peer)
        transport.call("GET", "/")
        transport.call("GET", "/")
    assert b"cookie" not in peer.requests[1].lower()


def test_connection__many_threads(configure: Callable[..., None]) -> None:
    def echo(peer: Peer, connection: socket.socket) -> bool:
        connection.sendall(GOOD)
        return True

    with serving(echo) as peer:
        configure(peer, BATCH_THREADS=8)
        with ThreadPoolExecutor(8) as pool:
            bodies = list(pool.map(lambda n: transport.call("GET", "/", params={"n": str(n)}).body, range(80)))
    assert bodies == [{"errcode": 0}] * 80
    assert peer.connections <= 8
    sent = {int(request.split(b" ")[1].removeprefix(b"/?n=")) for request in peer.requests}
    assert sent == set(range(80))


def test_adapter__is_not_shared_with_a_forked_child() -> None:
    # In a process of its own, because forking one with threads is deprecated.
    script = """if True:
        import os
        from django.conf import settings
        settings.configure()
        from wechat_token.platforms import http_adapter
        from wechat_token.conf import get_settings
        parents = http_adapter.get_adapter(get_settings())
        http_adapter._building.acquire()  # as a thread might hold it at the moment of the fork
        child = os.fork()
        if child == 0:
            os._exit(42 if http_adapter.get_adapter(get_settings()) is not parents else 1)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert subprocess.run([sys.executable, "-c", script], timeout=20).returncode == 42


def test_adapter__is_rebuilt_for_new_settings(configure: Callable[..., None]) -> None:
    configure("http://127.0.0.1:9", BATCH_THREADS=3)
    before = http_adapter.get_adapter(get_settings())
    configure("http://127.0.0.1:9", BATCH_THREADS=4)
    assert http_adapter.get_adapter(get_settings()) is not before


# -- trust -------------------------------------------------------------------------------------------------


def test_tls__own_bundle(configure: Callable[..., None], tmp_path: Any) -> None:
    context, bundle = server_tls(tmp_path)
    with serving(answering(GOOD), context) as peer:
        configure(peer, CA_BUNDLE=bundle)
        transport.call("GET", "/")
        transport.call("GET", "/")
    assert peer.connections == 1


def test_tls__unknown_issuer_whatever_the_environment_trusts(
    configure: Callable[..., None], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, bundle = server_tls(tmp_path)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, bundle)
    with serving(answering(GOOD), context) as peer:
        configure(peer)
        error = failure()
    assert not error.may_have_issued
    assert str(error).startswith("the TLS certificate of 127.0.0.1 was not accepted: self-signed certificate")
    assert peer.requests == []


def test_tls__another_hosts_certificate(configure: Callable[..., None], tmp_path: Any) -> None:
    context, bundle = server_tls(tmp_path, "api.weixin.qq.com")
    with serving(answering(GOOD), context) as peer:
        configure(peer, CA_BUNDLE=bundle)
        error = failure()
    assert not error.may_have_issued
    assert "certificate is not valid for '127.0.0.1'" in str(error)


def test_tls__missing_bundle(configure: Callable[..., None]) -> None:
    configure("https://127.0.0.1:9", CA_BUNDLE="/nonexistent.pem")
    with pytest.raises(ConfigurationError, match="CA_BUNDLE"):
        transport.call("GET", "/")


@pytest.mark.parametrize(
    "url",
    [
        "http://api.weixin.qq.com",
        "http://10.0.0.1:8000",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "ftp://api.weixin.qq.com",
        "api.weixin.qq.com",
        "https://",
        "https://user:pass@api.weixin.qq.com",
        "https://api.weixin.qq.com/?a=b",
        "https://api.weixin.qq.com/#a",
        "https://api.weixin.qq.com:port",
        "https://[::1",
        "",
    ],
)
def test_base_url__refused(configure: Callable[..., None], url: str) -> None:
    configure(url)
    with pytest.raises(ConfigurationError, match="API_BASE_URL"):
        transport.call("GET", "/")


@pytest.mark.parametrize(
    "url", ["https://api2.weixin.qq.com", "http://127.0.0.1:8000", "http://[::1]:8000", "http://localhost/x"]
)
def test_base_url__accepted(configure: Callable[..., None], url: str) -> None:
    configure(f"{url}/")
    assert transport.base_url(get_settings()) == url


def test_base_url__plain_http_through_a_distant_proxy(configure: Callable[..., None]) -> None:
    configure("http://127.0.0.1:9", PROXY="http://proxy.example:3128")
    with pytest.raises(ConfigurationError, match="plain http"):
        transport.call("GET", "/")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "proxy:3128", "http://user:CANARY@"])
def test_proxy__refused(configure: Callable[..., None], proxy: str) -> None:
    configure("https://api.weixin.qq.com", PROXY=proxy)
    with pytest.raises(ConfigurationError, match="PROXY") as caught:
        transport.call("GET", "/")
    assert "CANARY" not in visible(caught.value)


# -- proxies -----------------------------------------------------------------------------------------------


def test_proxy__of_the_environment_is_ignored(configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(answering(GOOD)) as peer:
        configure(peer)
        assert transport.call("GET", "/").body == {"errcode": 0}


def test_proxy__forwards_plain_http(configure: Callable[..., None]) -> None:
    with serving(answering(GOOD)) as proxy:
        configure("http://127.0.0.1:9", PROXY=proxy.url)
        transport.call("GET", "/cgi-bin/token", params={"appid": "wx1"})
    assert proxy.requests[0].startswith(b"GET http://127.0.0.1:9/cgi-bin/token?appid=wx1 HTTP/1.1\r\n")


def tunnel(peer: Peer, connection: socket.socket) -> None:
    """Answer CONNECT and pass bytes both ways until the test is over."""
    port = int(peer.requests[-1].split(b" ")[1].rpartition(b":")[2])
    with socket.create_connection(("127.0.0.1", port)) as onward:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        onward.settimeout(0.02)
        connection.settimeout(0.02)
        while peer.pause(0):
            for source, sink in ((connection, onward), (onward, connection)):
                try:
                    data = source.recv(65_536)
                except TimeoutError:
                    continue
                if not data:
                    return
                sink.sendall(data)


def tunnel_into_silence(peer: Peer, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    peer.pause(10)


def test_proxy__tunnels_tls(configure: Callable[..., None], tmp_path: Any) -> None:
    context, bundle = server_tls(tmp_path)
    with serving(answering(GOOD), context) as peer, serving(tunnel) as proxy:
        configure(peer, CA_BUNDLE=bundle, PROXY=proxy.url.replace("//", "//user:CANARY@"))
        transport.call("GET", "/", params={"secret": Secret("CANARY")})
        transport.call("GET", "/", params={"secret": Secret("CANARY")})
    assert (peer.connections, len(peer.requests)) == (1, 2)
    assert b"Proxy-Authorization: Basic " in proxy.requests[0]
    assert b"CANARY" not in proxy.requests[0]
    assert b"Proxy-Authorization" not in peer.requests[0]


@pytest.mark.parametrize(
    "play",
    [
        answering(answer(b"", "407 Proxy Authentication Required")),
        drip(b"HTTP/1.1 200 OK\r\nX-Drip: ", b"."),
        hang_up,
        tunnel_into_silence,
    ],
    ids=["407", "dripping", "hang up", "silence behind it"],
)
def test_proxy__failing_tunnel_sends_nothing(configure: Callable[..., None], play: Any) -> None:
    with serving(play) as proxy:
        configure("https://api.weixin.qq.com", PROXY=proxy.url)
        error = failure(params={"secret": Secret("CANARY")}, deadline=DEADLINE)
    assert not error.may_have_issued
    assert "CANARY" not in str(proxy.requests)


def test_proxy__unreachable(configure: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    configure("https://api.weixin.qq.com", PROXY=f"http://127.0.0.1:{port}")
    error = failure()
    assert not error.may_have_issued
    assert str(error) == "the proxy could not be reached or refused (nothing was sent)"


# -- secrecy -----------------------------------------------------------------------------------------------

CANARY = "c4n4ry0123456789abcdef0123456789"


@pytest.mark.parametrize(
    "play",
    [
        reset,
        hang_up,
        truncate,
        talk_nonsense,
        drip(b"", b""),
        answering(answer(f'{{"access_token": "{CANARY}"'.encode())),
        answering(answer(f"<html>{CANARY}".encode(), "502 Bad Gateway")),
        answering(answer(b"", "302 Found", f"Location: https://example.com/?{CANARY}")),
        answering(answer(b'{"errcode": 1}', "200 OK", f"{CANARY} is no header")),
        answering(GOOD),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_secret__appears_nowhere(
    configure: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    play: Any,
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    secrets: dict[str, Any] = {"appid": "wx1", "secret": Secret(CANARY)}
    error: BaseException | None = None
    with serving(play) as peer:
        configure(peer, REQUEST_DEADLINE=0.5)
        try:
            if method == "GET":
                transport.call("GET", "/", params=secrets)
            else:
                transport.call("POST", "/", json=secrets)
        except UpstreamError as caught:
            error = caught
    assert CANARY in str(peer.requests)
    assert CANARY not in visible(error)
    assert error is None or (error.__cause__, error.__context__) == (None, None)
    assert [record for record in caplog.records if CANARY in f"{record.getMessage()} {record.__dict__}"] == []
    assert CANARY not in "".join(capfd.readouterr())


def test_secret__hidden_from_instrumented_clients(
    configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Error trackers and tracers wrap these two and record the URL they see."""
    seen: list[str] = []

    def watch(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(self: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
            seen.append(url)
            return original(self, method, url, *args, **kwargs)

        monkeypatch.setattr(owner, name, wrapped)

    watch(http.client.HTTPConnection, "putrequest")
    watch(urllib3.HTTPConnectionPool, "urlopen")
    with serving(answering(GOOD)) as peer:
        configure(peer)
        transport.call("GET", "/cgi-bin/token", params={"secret": Secret(CANARY)})
    assert CANARY in str(peer.requests)
    assert seen == ["/cgi-bin/token"] * 2


def test_secret__unencodable_leaves_with_the_error(configure: Callable[..., None]) -> None:
    configure("http://127.0.0.1:9")
    with pytest.raises(TransportError) as caught:
        transport.call("GET", "/", params={"secret": Secret(f"{CANARY}\ud800")})
    assert CANARY not in visible(caught.value)
    assert not caught.value.may_have_issued


# -- with the ``responses`` package ------------------------------------------------------------------------


@responses.activate
def test_responses__success(configure: Callable[..., None]) -> None:
    configure("https://api.weixin.qq.com")
    responses.get(
        "https://api.weixin.qq.com/cgi-bin/token",
        json={"access_token": "t", "expires_in": 7200},
        match=[responses.matchers.query_param_matcher({"secret": "s"})],
    )
    answer = transport.call("GET", "/cgi-bin/token", params={"secret": Secret("s")})
    assert answer.body == {"access_token": "t", "expires_in": 7200}


@pytest.mark.parametrize(
    ("raised", "may_have_issued"),
    [
        (requests.exceptions.ReadTimeout("…"), True),
        (requests.exceptions.ConnectionError("…"), True),
        (requests.exceptions.ConnectTimeout("…"), False),
        (requests.exceptions.SSLError("…"), False),
        (requests.exceptions.ProxyError("…"), False),
    ],
)
@responses.activate
def test_responses__failure(configure: Callable[..., None], raised: Exception, may_have_issued: bool) -> None:
    configure("https://api.weixin.qq.com")
    responses.get("https://api.weixin.qq.com/", body=raised)
    assert failure_of_mock().may_have_issued is may_have_issued


def failure_of_mock() -> TransportError:
    with pytest.raises(TransportError) as caught:
        transport.call("GET", "/")
    return caught.value
