"""Carries requests of the ``requests`` library to a fake in the same process: no socket, no sleeping.

What goes wrong on the wire becomes the exception ``requests`` would raise, with the texts it would have; they
hold the request's URL, as in real life, so that tests for leaking secrets have something to find.
"""

from __future__ import annotations

import errno
from urllib.parse import parse_qsl, urlsplit

import requests
import urllib3
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import (
    IncompleteRead,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)

from .answers import Reply, Wire
from .weixin import FakeWeChat

Timeout = float | tuple[float | None, float | None] | None


def send(
    fake: FakeWeChat,
    request: requests.PreparedRequest,
    timeout: Timeout = None,
    *,
    remote_ip: str = "127.0.0.1",
) -> Reply:
    """The fake's reply to ``request``, or the exception its transport would have raised.

    A reply that takes longer than the read ``timeout`` is a ``ReadTimeout`` at once, one that takes less
    arrives at once. Without a timeout every reply arrives, except one that never would.
    """
    url = urlsplit(request.url or "")
    body = request.body or b""
    reply = fake.handle(
        request.method or "GET",
        url.path,
        dict(parse_qsl(url.query, keep_blank_values=True)),
        body.encode() if isinstance(body, str) else body,
        remote_ip,
    )
    return _carried(reply, reply.wire, request, timeout) if reply.wire else reply


def _carried(reply: Reply, wire: Wire, request: requests.PreparedRequest, timeout: Timeout) -> Reply:
    read_timeout = timeout[1] if isinstance(timeout, tuple) else timeout
    if wire.action == "hang" or (
        read_timeout is not None and wire.duration(len(reply.body)) > float(read_timeout)
    ):
        raise _timed_out(request, read_timeout)
    match wire.action:
        case "reset":
            broken = ProtocolError(
                "Connection aborted.", ConnectionResetError(errno.ECONNRESET, "reset by peer")
            )
            raise requests.ConnectionError(broken, request=request) from broken
        case "refuse":
            raise _refused(request)
        case "cut":
            part = len(reply.body) // 2
            short = ProtocolError("Connection broken", IncompleteRead(part, len(reply.body) - part))
            raise requests.exceptions.ChunkedEncodingError(short, request=request) from short
        case "pad":
            return Reply(reply.status, reply.headers, b" " * wire.size + reply.body)
        case _:
            return reply


def _timed_out(request: requests.PreparedRequest, read_timeout: float | None) -> requests.ReadTimeout:
    pool = urllib3.HTTPSConnectionPool(_host(request))
    reason = ReadTimeoutError(pool, request.path_url, f"Read timed out. (read timeout={read_timeout})")
    return requests.ReadTimeout(reason, request=request)


def _refused(request: requests.PreparedRequest) -> requests.ConnectionError:
    pool = urllib3.HTTPSConnectionPool(_host(request))
    reason = NewConnectionError(HTTPSConnection(_host(request)), "Failed to establish a new connection")
    return requests.ConnectionError(MaxRetryError(pool, request.path_url, reason), request=request)


def _host(request: requests.PreparedRequest) -> str:
    return urlsplit(request.url or "").hostname or ""
