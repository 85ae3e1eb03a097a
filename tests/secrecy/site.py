"""The parts of a site with secrets in it: the secrets, its database file, its Celery, its HTTP answers."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery, _state
from django.conf import settings
from django.core.servers.basehttp import WSGIRequestHandler, WSGIServer
from django.db import connections
from django.db.backends.signals import connection_created

from example_project import broker
from example_project.settings import sqlite
from wechat_token import get_access_token, process
from wechat_token.redaction import Secret

PLAIN = "wx5ec7e7c0ffee0001"  # an AppSecret as WeChat makes them, on the stable endpoint
ODD = "wx5ec7e7c0ffee0002"  # one with characters that URLs, JSON and HTML write differently, on the classic endpoint
APPIDS = (PLAIN, ODD)

PLAIN_SECRET = Secret("f3b18c6d0a972e45d1c8b7a60f9e5d34")
ODD_SECRET = Secret("Xq7+/=&%20\"Zk<ö>'Wm4\\uPd9;Tc#Jh?Ls")
ENCRYPTION_KEY = Secret("Q2FuYXJ5RW5jcnlwdGlvbktleU9mVGhlUHJvb2YhISE=")
PROXY_PASSWORD = Secret("canaryProxyPassword83f1")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of the site, and what was asked."""

    call: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


class Shy(dict[str, str]):
    """Headers whose repr shows nothing: they lie in frames of tests."""

    def __repr__(self) -> str:
        return "<headers>"


@contextmanager
def database_file(path: Path) -> Iterator[None]:
    """Let "default" be this SQLite file, in every thread, with its statements logged."""
    before, mine = connections.settings["default"], connections["default"]
    here = {**before, **sqlite(str(path)), "TEST": before["TEST"], "CONN_MAX_AGE": None}
    here["OPTIONS"]["init_command"] += "PRAGMA synchronous=OFF;"  # nobody needs it after a power cut
    connections.settings["default"] = here
    del connections["default"]
    connection_created.connect(_log_statements)
    try:
        yield
    finally:
        connection_created.disconnect(_log_statements)
        connections["default"].close()
        connections.settings["default"] = before
        connections["default"] = mine


def _log_statements(connection: Any, **kwargs: Any) -> None:
    connection.force_debug_cursor = True


@contextmanager
def celery_app(folder: Path, url: str) -> Iterator[Celery]:
    """A Celery app of this scene's own: messages and results are files."""
    default, current = _state.default_app, _state._tls.current_app
    broker.register()
    app = Celery("site", set_as_current=False, broker=url, backend=f"file://{folder / 'results'}")
    if url == broker.URL:
        app.conf.broker_transport_options = broker.options(folder / "messages")
    else:  # it is down, and waiting for it proves nothing
        app.conf.broker_transport_options = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
    app.conf.timezone = settings.CELERY_TIMEZONE
    app.set_default()
    app.set_current()

    @app.task(name="site.publish", shared=False)
    def publish(appid: str) -> None:
        """As a site's own task would: it fails when there is no token."""
        get_access_token(appid)

    app.finalize()
    try:
        yield app
    finally:
        app.close()
        _state.default_app, _state._tls.current_app = default, current


def new_process() -> None:
    """Forget what a process keeps between requests."""
    process.forget()


def through_a_server(application: Any, path: str) -> None:
    """A GET from a socket through Django's own server, with what it, gunicorn and uvicorn write about it."""
    server = WSGIServer(("127.0.0.1", 0), WSGIRequestHandler)
    server.set_app(application)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with socket.create_connection(server.server_address[:2]) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        while client.recv(65_536):
            pass
    thread.join()
    server.server_close()
    atoms = {"r": f"GET {path} HTTP/1.1", "q": path.partition("?")[2], "s": "200", "h": "127.0.0.1"}
    logging.getLogger("gunicorn.access").info('%(h)s "%(r)s" %(s)s %(q)s', atoms)
    broken = f"Invalid HTTP request line: {f'GET {path} HTTP/1.1 x'!r}"
    logging.getLogger("gunicorn.error").warning(f"Invalid request from ip=127.0.0.1: {broken}")  # noqa: G004  as it does
    line = ("127.0.0.1:5000", "GET", path, "1.1", 200)
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *line)
