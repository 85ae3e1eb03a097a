"""What ``requests`` sends through: its adapter, with connections that keep three promises.

* A timeout of ``requests`` is per socket read, and a dripping peer stretches it without end. Here the
  connect, the TLS handshake and every read get what is left of one **total deadline** (R2, R11).
* A failed call must say whether **the request may have reached WeChat** (R2). The connection notes the
  moment before its first byte leaves; nothing is guessed from exception types, and nothing is sent twice.
* The **query string holds a secret** on the classic endpoint and a token on probes. It joins the request
  line in the connection's last step: urllib3's log lines and errors, and tools that instrument urllib3 or
  ``http.client``, see the bare path (S2).
"""

from __future__ import annotations

import contextvars
import http.client
import io
import os
import socket
import ssl
import threading
from typing import Any, Final, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from .. import clock, process
from ..conf import Settings
from ..exceptions import ConfigurationError
from ..redaction import Secret

# A pooled connection idle for longer (seconds) is replaced: the further end, or a NAT between, may have
# dropped it in silence, and a classic request lost in it would make the stored token suspect (R2).
MAX_IDLE: Final = 20.0


class Exchange:
    """One request on its way: how much time is left, what nobody may see, and how far it got."""

    __slots__ = ("_ends", "deadline", "query", "sent", "settings", "target")

    def __init__(self, settings: Settings, deadline: float) -> None:
        self.settings = settings
        self.deadline = deadline
        self._ends = clock.monotonic() + deadline
        self.query: Secret | None = None  # set once requests hands over to our connections
        self.target: Secret | None = None  # stands for the whole path, where that is a secret
        self.sent = False

    @property
    def is_over(self) -> bool:
        return clock.monotonic() >= self._ends

    def remaining(self, *, at_most: float = float("inf")) -> float:
        """A socket timeout. Raises ``TimeoutError`` when the deadline has passed."""
        left = self._ends - clock.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return min(left, at_most)


under_way: contextvars.ContextVar[Exchange] = contextvars.ContextVar("wechat_token_exchange")


class _TimedReader(io.RawIOBase):
    """A socket's bytes, each read limited by what is left of the exchange's deadline."""

    def __init__(self, sock: socket.socket, exchange: Exchange) -> None:
        self._sock = sock
        self._exchange = exchange
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._exchange.remaining())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedSocket:
    """The one method of a socket that ``http.client.HTTPResponse`` uses."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._sock, under_way.get()))


class _Response(http.client.HTTPResponse):
    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(cast(socket.socket, _TimedSocket(sock)), debuglevel, method, url)

    def begin(self) -> None:
        super().begin()
        if self.msg.defects:
            # urllib3 would log the lines it could not read, which may be a body that holds a token.
            raise http.client.HTTPException("the headers are malformed")


class _Connection(HTTPConnection):
    response_class = _Response
    debuglevel = 0  # raising http.client's own, a common recipe for debugging, prints requests to stdout

    _last_used = float("-inf")

    @property
    def is_connected(self) -> bool:
        return clock.monotonic() - self._last_used < MAX_IDLE and super().is_connected

    def _new_conn(self) -> socket.socket:
        """urllib3's own spends the connect timeout on each address of the host in turn, without a total."""
        exchange = under_way.get()
        most = exchange.settings.connect_timeout
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        failure: OSError = OSError("the name has no address")
        for *_, address in found:
            try:
                sock = socket.create_connection((str(address[0]), int(address[1])), exchange.remaining(at_most=most))
            except OSError as error:
                failure = error
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = sock  # so that the pool closes it, should the deadline have passed
            # For the TLS handshake, to which the ssl module applies it as a total.
            sock.settimeout(exchange.remaining(at_most=most))
            return sock
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, "no connection in time") from failure
        raise NewConnectionError(self, "no connection") from failure

    def _tunnel(self) -> None:
        super()._tunnel()
        exchange = under_way.get()
        self.sock.settimeout(exchange.remaining(at_most=exchange.settings.connect_timeout))

    def endheaders(self, message_body: Any = None, *, encode_chunked: bool = False) -> None:
        """The step just before the request's first byte leaves. A proxy's CONNECT does not pass here."""
        exchange = under_way.get()
        if self.sock is None:
            self.connect()
        # Raises if a slow DNS has used up the time: then surely nothing was sent.
        self.sock.settimeout(exchange.remaining())
        self._last_used = clock.monotonic()
        exchange.sent = True
        super().endheaders(message_body, encode_chunked=encode_chunked)

    def send(self, data: Any) -> None:
        """Every piece of a body gets what is left: a peer that reads slowly cannot stretch it either."""
        if self.sock is not None:
            self.sock.settimeout(under_way.get().remaining())
        super().send(data)

    def _encode_request(self, request: str) -> bytes:
        """``http.client``'s hook for the finished request line, where the query comes back in."""
        method, target, version = request.split(" ")
        exchange = under_way.get()
        query = exchange.query
        path = exchange.target.reveal() if exchange.target else target
        return f"{method} {path}{f'?{query.reveal()}' if query else ''} {version}".encode("ascii")


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class Adapter(HTTPAdapter):
    """Pools of our connections for one process and one state of the settings. It never re-sends a request."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._tls = _tls_context(settings.ca_bundle)
        super().__init__(
            pool_connections=2,
            pool_maxsize=settings.batch_threads + 4,
            max_retries=urllib3.Retry(0, read=False),
        )

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, proxy_ssl_context=self._tls, **kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return manager

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """One context for all connections: requests would read the whole CA bundle again for each of them."""
        host, _tls = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"ssl_context": self._tls}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """The context holds what is trusted; requests would add its own bundle to it."""

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        url, _, query = super().request_url(request, proxies).partition("?")
        under_way.get().query = Secret(query)
        return url


class WebhookAdapter(Adapter):
    """For addresses of which every part but the host is a secret."""

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        target = super().request_url(request, proxies)
        parts = urlsplit(target)  # through a plain-http proxy it is a whole URL
        if parts.netloc:
            target = parts._replace(path="/").geturl()
            under_way.get().target = Secret(f"{parts.scheme}://{parts.netloc}{parts.path}")
            return target
        under_way.get().target = Secret(target)
        return "/"


def _tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    path = ca_bundle or DEFAULT_CA_BUNDLE_PATH
    try:
        if os.path.isdir(path):
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except OSError as error:
        raise ConfigurationError(f"WECHAT_TOKEN['CA_BUNDLE'] cannot be read: {error.strerror}") from error
    return context


BUILT_AT_MOST: Final = 8  # beyond, the oldest goes: settings of a test, or from before an edit

_built: list[Adapter]  # one for each platform's settings
_building: threading.Lock
process.keep(globals(), _built=list, _building=threading.Lock)


def get_adapter(settings: Settings) -> Adapter:
    """This process's adapter, made anew when the settings have changed. Raises ``ConfigurationError``."""
    adapter = _find(settings)
    if adapter is None:
        with _building:
            adapter = _find(settings)
            if adapter is None:
                adapter = Adapter(settings)
                _built[:] = [*_built[1 - BUILT_AT_MOST :], adapter]
    return adapter


def _find(settings: Settings) -> Adapter | None:
    return next((adapter for adapter in _built if adapter.settings is settings), None)
