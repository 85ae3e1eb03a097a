"""A server of raw bytes on a loopback port, for answers that no well-meaning HTTP server gives."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Play = Callable[["Peer", socket.socket], bool | None]


class Peer:
    """Reads requests and lets ``play(peer, connection)`` answer each; true keeps the connection open."""

    def __init__(self, play: Play, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._open: list[socket.socket] = []
        self.stopped = threading.Event()
        self._play = play
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def pause(self, seconds: float) -> bool:
        """Whether to go on: the test is not over."""
        return not self.stopped.wait(seconds)

    def close(self) -> None:
        self.stopped.set()
        for sleeper in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sleeper.shutdown(socket.SHUT_RDWR)  # wakes accept() and recv()
        self._listener.close()
        for thread in list(self._threads):
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self._tls is not None:
                connection = stack.enter_context(self._tls.wrap_socket(connection, server_side=True))
                self._open.append(connection)
            while (request := self._read(connection)) is not None:
                self.requests.append(request)
                if not self._play(self, connection):
                    return

    def _read(self, connection: socket.socket) -> bytes | None:
        received = b""
        while not self.stopped.is_set():
            head, end, body = received.partition(b"\r\n\r\n")
            if end and len(body) >= _content_length(head):
                return received
            chunk = connection.recv(65_536)
            if not chunk:
                return None
            received += chunk
        return None


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0


@contextlib.contextmanager
def serving(play: Play, tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    peer = Peer(play, tls)
    try:
        yield peer
    finally:
        peer.close()


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def answering(answer: bytes) -> Play:
    """Each request gets this answer, and the connection stays open."""

    def play(peer: Peer, connection: socket.socket) -> bool:
        connection.sendall(answer)
        return True

    return play


def server_tls(folder: Path, name: str = "127.0.0.1") -> tuple[ssl.SSLContext, str]:
    """A server's TLS context for ``name``, and the path of the self-signed certificate behind it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path = folder / "key.pem"
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return context, str(path)
