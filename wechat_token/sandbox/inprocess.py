"""Carries requests of the ``requests`` library to a fake in the same process: no socket, no sleeping.

What goes wrong on the wire becomes the exception ``requests`` would raise, with the texts it would have; they
hold the request's URL, as in real life, so that tests for leaking secrets have something to find.
"""

from __future__ import annotations

import errno
from typing import TypeVar
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

_Error = TypeVar("_Error", bound=BaseException)
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
    if wire.action == "hang" or (read_timeout is not None and wire.duration(len(reply.body)) > float(read_timeout)):
        raise _timed_out(request, read_timeout)
    match wire.action:
        case "reset":
            raise _reset(request)
        case "refuse":
            raise _refused(request)
        case "cut":
            raise _cut(request, len(reply.body))
        case "pad":
            return Reply(reply.status, reply.headers, b" " * wire.size + reply.body)
        case _:
            return reply


# The errors below carry the chain of causes that urllib3 and the socket would leave, innermost first.


def _timed_out(request: requests.PreparedRequest, read_timeout: float | None) -> requests.ReadTimeout:
    late = ReadTimeoutError(_pool(request), request.path_url, f"Read timed out. (read timeout={read_timeout})")
    late.__cause__ = TimeoutError("timed out")
    return _with_cause(requests.ReadTimeout(late, request=request), late)


def _reset(request: requests.PreparedRequest) -> requests.ConnectionError:
    reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    aborted = ProtocolError("Connection aborted.", reset)
    aborted.__cause__ = reset
    return _with_cause(requests.ConnectionError(aborted, request=request), aborted)


def _refused(request: requests.PreparedRequest) -> requests.ConnectionError:
    nobody = NewConnectionError(HTTPSConnection(_host(request)), "Failed to establish a new connection")
    nobody.__cause__ = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    gave_up = MaxRetryError(_pool(request), request.path_url, nobody)
    gave_up.__cause__ = nobody
    return _with_cause(requests.ConnectionError(gave_up, request=request), gave_up)


def _cut(request: requests.PreparedRequest, length: int) -> requests.exceptions.ChunkedEncodingError:
    short = IncompleteRead(length // 2, length - length // 2)
    broken = ProtocolError(f"Connection broken: {short!r}", short)
    broken.__cause__ = short
    return _with_cause(requests.exceptions.ChunkedEncodingError(broken, request=request), broken)


def _with_cause(error: _Error, cause: BaseException) -> _Error:
    error.__cause__ = cause
    return error


def _pool(request: requests.PreparedRequest) -> urllib3.HTTPSConnectionPool:
    return urllib3.HTTPSConnectionPool(_host(request))


def _host(request: requests.PreparedRequest) -> str:
    return urlsplit(request.url or "").hostname or ""
