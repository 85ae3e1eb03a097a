"""The fake WeChat on a loopback port: the same answers over real HTTP, with faults on the real wire."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import socketserver
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

from .answers import Reply, Wire
from .control import PREFIX, Control
from .status_page import status_page
from .weixin import FakeWeChat

MAX_BODY: Final = 1_048_576
CHUNK: Final = b" " * 65_536
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close() sends RST


class FakeWeChatServer:
    """Serves ``fake`` from its own threads between :meth:`start` and :meth:`stop`, or as a context manager.

    ``port`` 0 takes a free one; :attr:`url` says which. Raises ``ValueError`` for any host but loopback:
    the sandbox and its controls know no authentication. :meth:`start` raises ``OSError`` for a taken port.
    """

    def __init__(self, fake: FakeWeChat, host: str = "127.0.0.1", port: int = 0) -> None:
        if not (host == "localhost" or _is_loopback(host)):
            raise ValueError("the sandbox listens on loopback addresses only")
        self.fake = fake
        self._address = (host, port)
        self._http: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Base URL without a trailing slash. Raises ``RuntimeError`` while not started."""
        if self._http is None:
            raise RuntimeError("the sandbox server is not running")
        host, port = self._http.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def start(self) -> Self:
        if self._http is not None:
            raise RuntimeError("the sandbox server is already running")
        self._http = _Server(self._address, self.fake)
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, name="fake-wechat", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening, cut every open connection and wait for their threads. Harmless when not running."""
        if self._http is None or self._thread is None:
            return
        self._http.shutdown()
        self._thread.join()
        self._http.cut_connections()
        self._http.server_close()
        self._http = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024  # a thundering herd is what the sandbox is for
    daemon_threads = True  # a forgotten stop() must not keep the process alive

    def __init__(self, address: tuple[str, int], fake: FakeWeChat) -> None:
        self.fake = fake
        self.control = Control(fake)
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own asks DNS for the machine's name, which can take seconds, and nobody needs it here.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        try:
            if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER):
                self.close_request(request)  # no orderly shutdown first: a FIN would spoil the reset
            else:
                super().shutdown_request(request)
        finally:
            with self._changed:
                self._open.discard(request)
                self._changed.notify_all()

    def cut_connections(self) -> None:
        """End every connection, also those in the middle of a fault, and wait for their threads."""
        self.stopping.set()
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):  # the peer was faster
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=5)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Peers that hang up are daily business here; only what is no network error is worth a traceback."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "FakeWeChat"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one packet

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def _answer(self) -> None:
        body = self._read_body()
        if body is None:
            return
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        if url.path == "/" and self.command == "GET":
            page = status_page(self.server.fake.state())
            self._send(Reply(200, {"Content-Type": "text/html; charset=utf-8"}, page.encode()))
        elif url.path.startswith(PREFIX):
            self._control(url.path.removeprefix(PREFIX), query, body)
        else:
            remote_ip = str(self.client_address[0])
            self._send(self.server.fake.handle(self.command, url.path, query, body, remote_ip))

    def _read_body(self) -> bytes | None:
        """The body, or None after refusing it: only an announced length of sane size is read."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
            self._send(Reply(400, {"Content-Type": "text/plain"}, b"bad or missing Content-Length\n"))
            return None
        return self.rfile.read(int(length))

    def _control(self, action: str, query: dict[str, str], body: bytes) -> None:
        if "Origin" in self.headers:  # a web page in somebody's browser, not a test or a script
            status, payload = 403, {"error": "the controls are not for web pages"}
        else:
            status, payload = self.server.control.dispatch(self.command, action, query, body)
        self._send(Reply(status, {"Content-Type": "application/json"}, json.dumps(payload).encode()))

    def _send(self, reply: Reply) -> None:
        wire = reply.wire
        if wire is not None and wire.action in ("reset", "refuse", "hang"):
            self._send_nothing(wire)
            return
        if wire is not None and wire.action == "slow":
            self.server.stopping.wait(wire.seconds)
        padding = wire.size if wire is not None and wire.action == "pad" else 0
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body) + padding))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(reply.body, wire, padding)

    def _send_body(self, body: bytes, wire: Wire | None, padding: int) -> None:
        if wire is not None and wire.action == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif wire is not None and wire.action == "drip":
            for byte in body:
                self.wfile.flush()
                if self.server.stopping.wait(wire.seconds):
                    return
                self.wfile.write(bytes((byte,)))
        else:
            while padding > 0:
                self.wfile.write(CHUNK[:padding])
                padding -= len(CHUNK)
            self.wfile.write(body)

    def _send_nothing(self, wire: Wire) -> None:
        self.close_connection = True
        if wire.action == "hang":
            self.server.stopping.wait(wire.seconds)
        else:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The ``Date`` header shows the fake's clock, so that a skewed one can be noticed."""
        return super().date_time_string(self.server.fake.now() if timestamp is None else timestamp)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: request lines carry secrets and tokens."""
