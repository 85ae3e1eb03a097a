"""What goes wrong: at WeChat, on the way there, in this site's own services, in its configuration, at its clients."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from cryptography.fernet import Fernet

from tests import peer
from wechat_token import clock
from wechat_token.api import service
from wechat_token.client_keys import keys
from wechat_token.models import Account
from wechat_token.platforms.http_adapter import Adapter
from wechat_token.redaction import Secret
from wechat_token.sandbox import Fault

from .scene import Scene
from .site import APPIDS, ODD_SECRET, PLAIN_SECRET, PROXY_PASSWORD

SetUp = Callable[[Scene, pytest.MonkeyPatch], None]
NOWHERE = "127.0.0.1:9"  # the discard port: nobody answers there


@dataclass(frozen=True, slots=True)
class Failure:
    """``set_up`` makes it happen to a site that holds tokens; ``proof`` is one of ``Scene.marks()`` afterwards."""

    name: str
    proof: str
    set_up: SetUp


FAILURES: Final[list[Failure]] = []


def failure(name: str, proof: str) -> Callable[[SetUp], SetUp]:
    def add(set_up: SetUp) -> SetUp:
        FAILURES.append(Failure(name, proof, set_up))
        return set_up

    return add


# -- WeChat refuses ----------------------------------------------------------------------------------


@failure("wrong AppSecret", "upstream 40125")
def wrong_secret(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for appid in APPIDS:
        scene.fake.reset_secret(appid, "another")


@failure("unknown AppID", "upstream 40013")
def unknown_appid(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.fake._api.accounts.clear()


@failure("address not whitelisted", "upstream 40164")
def not_whitelisted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for appid in APPIDS:
        scene.fake.set_ip_whitelist(appid, ["192.0.2.1"])


@failure("AppSecret frozen", "upstream 40243")
def frozen(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for appid in APPIDS:
        scene.fake.freeze(appid)


@failure("tokens revoked", "renewed")
def revoked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for appid in APPIDS:
        scene.fake.kill_token(appid, stuck=True)


def _errcode(name: str, code: int) -> None:
    @failure(name, f"upstream {code}")
    def set_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        scene.fake.outage(fault=Fault("error", errcode=code))


_errcode("day's quota spent", 45009)
_errcode("unknown errcode", 987654)


# -- WeChat's answer is of no use (R11) --------------------------------------------------------------


def _fault(name: str, kind: str, *, proof: str, deadline: float | None = None, **figures: Any) -> None:
    @failure(name, proof)
    def set_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        if deadline is not None:
            scene.configure(REQUEST_DEADLINE=deadline)
        scene.fake.outage(fault=Fault(kind, obeyed=True if kind == "status" else None, **figures))


_fault("HTTP 502", "status", proof="lost")
_fault("HTML instead of JSON", "html", proof="lost")
_fault("empty answer", "empty", proof="lost")
_fault("truncated JSON", "truncated", proof="lost")
_fault("huge answer", "huge", proof="lost", size=100_000)
_fault("redirect", "redirect", proof="failed")
_fault("life not a number", "life_nan", proof="lost")
_fault("life negative", "life_negative", proof="lost")
_fault("token with control characters", "value_control", proof="lost")

# -- nothing arrives ---------------------------------------------------------------------------------

_fault("connection refused", "refused", proof="failed")
_fault("reset before the request was read", "lost_before", proof="lost")
_fault("reset instead of an answer", "lost_after", proof="lost")
_fault("answer cut short", "cut", proof="lost")
_fault("no answer in time", "hang_after", proof="lost", deadline=0.05)
_fault("dripping answer", "drip", proof="lost", deadline=0.05, seconds=0.02)


# -- what answers repeats the request it got ---------------------------------------------------------


def _echo(name: str, write: Callable[[bytes], bytes], proof: str) -> None:
    @failure(name, proof)
    def set_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        def play(server: peer.Peer, connection: socket.socket) -> bool:
            connection.sendall(write(server.requests[-1]))
            return True

        scene.configure(API_BASE_URL=scene.stack.enter_context(peer.serving(play)).url)


def _in_errmsg(request: bytes) -> bytes:
    text = f"invalid appsecret in {request.decode('latin-1')} rid: 1-2-3"
    return peer.http(json.dumps({"errcode": 40001, "errmsg": text}).encode())


def _in_headers(request: bytes) -> bytes:
    line, _, rest = request.partition(b"\r\n")
    return peer.http(b"{}", "200 OK", f"X-Request: {line.decode()}", rest.decode("latin-1").replace("\r\n", " "))


_echo("request repeated in errmsg", _in_errmsg, "upstream 40001")
_echo("request repeated in an error page", lambda request: peer.http(request, "502 Bad Gateway"), "lost")
_echo("request repeated in broken headers", _in_headers, "lost")
_echo(
    "redirect that repeats the request",
    lambda request: peer.http(
        b"", "307 Temporary Redirect", f"Location: http://{NOWHERE}{request.split()[1].decode()}"
    ),
    "failed",
)
_echo("no HTTP at all", lambda request: request, "lost")


# -- the way there -----------------------------------------------------------------------------------


@failure("no TLS at the other end", "failed")
def no_tls(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(API_BASE_URL=scene.server.url.replace("http:", "https:"))


@failure("certificate not trusted", "failed")
def certificate(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    context, _path = peer.server_tls(scene.folder)
    server = scene.stack.enter_context(peer.serving(peer.answering(b""), context))
    scene.configure(API_BASE_URL=server.url)


@failure("host name unknown", "failed")
def unknown_host(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    found = socket.getaddrinfo

    def look_up(host: str, *args: Any, **kwargs: Any) -> Any:
        if host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    scene.configure(API_BASE_URL="https://api.example.invalid")


@failure("proxy down", "failed")
def proxy_down(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(PROXY=f"http://site:{PROXY_PASSWORD.reveal()}@{NOWHERE}")


@failure("time limit during the call", "lost")
def time_limit(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(self: Adapter, request: Any, **kwargs: Any) -> Any:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(Adapter, "send", send)


# -- the site's own services -------------------------------------------------------------------------


def _let_waiting_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monotonic, waited = clock.monotonic, [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + sum(waited))
    monkeypatch.setattr(clock, "sleep", lambda seconds: waited.append(20 * seconds))


@failure("database locked before the call", "OperationalError")
def database_locked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    _let_waiting_take_no_time(monkeypatch)
    scene.impatient_database()
    scene.is_locked = True


@failure("database locked when the token is to be stored", "OperationalError")
def database_locked_at_store(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    _let_waiting_take_no_time(monkeypatch)
    scene.impatient_database()
    answer = scene.fake.handle

    def handle(method: str, path: str, *args: Any) -> Any:
        reply = answer(method, path, *args)
        scene.lock_database()
        return reply

    monkeypatch.setattr(scene.fake, "handle", handle)


@failure("table missing", "service_unavailable")
def table_missing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    _let_waiting_take_no_time(monkeypatch)

    def rename(old: str, new: str) -> None:
        with closing(sqlite3.connect(scene.database)) as raw:
            raw.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename("wechat_token_token", "gone")
    scene.repairs.append(partial(rename, "gone", "wechat_token_token"))


@failure("cache down", "The cache does not answer (%s); tokens are read from the database.")
def cache_down(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = "django.core.cache.backends.redis.RedisCache"
    location = f"redis://{NOWHERE}/0"
    scene.override(CACHES={"default": {"BACKEND": backend, "LOCATION": location}})


@failure("broker down", "OperationalError")
def broker_down(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.use_broker(f"amqp://{NOWHERE}//")


# -- the configuration -------------------------------------------------------------------------------


@failure("encryption keys changed", "EncryptionKeyError")
def keys_changed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(ENCRYPTION_KEYS=[Fernet.generate_key().decode()])


@failure("encryption key malformed", "ConfigurationError")
def key_malformed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(ENCRYPTION_KEYS=[PROXY_PASSWORD.reveal()])


@failure("setting of the wrong type", "ConfigurationError")
def wrong_setting(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(PROXY=[PROXY_PASSWORD.reveal()])


@failure("central server of remote mode down", "CentreUnavailable")
def centre_down(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(REMOTE_URL=f"http://{NOWHERE}/wechat", REMOTE_KEY=scene.keys["live"].reveal())


@failure("central server of remote mode refuses the key", "CentreUnavailable")
def centre_refuses(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def play(server: peer.Peer, connection: socket.socket) -> bool:
        told = json.dumps({"error": {"code": "invalid_key", "message": server.requests[-1].decode("latin-1")}})
        connection.sendall(peer.http(told.encode(), "401 Unauthorized"))
        return True

    url = scene.stack.enter_context(peer.serving(play)).url
    scene.configure(REMOTE_URL=f"{url}/wechat", REMOTE_KEY=scene.keys["live"].reveal())


@failure("account inactive", "AccountInactive")
def inactive(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    Account.objects.update(is_active=False)


@failure("AppSecret typed into the box of the AppID", "HTTP 200")
def wrong_box(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.admin("wechat_token/account/add/", {"appid": PLAIN_SECRET.reveal(), "secret": ODD_SECRET.reveal()})


# -- clients of the HTTP service ---------------------------------------------------------------------


def _presented(name: str, key: Callable[[Scene], Secret], proof: str = "invalid_key") -> None:
    @failure(name, proof)
    def set_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        scene.service_only = True
        scene.presented = key(scene)
        scene.canaries.plant("what was presented", scene.presented.reveal().removeprefix(keys.MARK))


_presented("client key unknown", lambda scene: keys.generate())
_presented("AppSecret presented as client key", lambda scene: PLAIN_SECRET)
_presented("odd AppSecret presented as client key", lambda scene: ODD_SECRET)
_presented("client key expired", lambda scene: scene.keys["expired"])
_presented("client key revoked", lambda scene: scene.keys["revoked"])
_presented("client key from elsewhere", lambda scene: scene.keys["elsewhere"])
_presented("client key of other accounts", lambda scene: scene.keys["other accounts"], "account_not_found")
_presented("client key that may not complain", lambda scene: scene.keys["reading"], "refresh_not_allowed")


@failure("complaint about another account's token", "HTTP 200")
def another_accounts_token(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.fake.add_account("wxanother000001", "another")
    scene.complained_about = Secret(scene.fake.fetch_stable("wxanother000001", "another").token)
    scene.canaries.plant("another account's token", scene.complained_about.reveal())


@failure("complaint that is no token", "invalid_stale_token")
def no_token(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.service_only = True
    scene.complained_about = Secret(ODD_SECRET.reveal() * 100)


@failure("body that is no JSON", "invalid_json")
def no_json(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.service_only = True
    monkeypatch.setattr(Scene, "_complaint", lambda scene, appid: f"{{{PLAIN_SECRET.reveal()}")


@failure("fault in the engine whose text holds the token", "internal_error")
def fault_in_the_engine(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(key: Any, *args: Any, **kwargs: Any) -> Any:
        raise LookupError(scene.current_token(key[0]))

    monkeypatch.setattr(service, "complain_about", broken)
    monkeypatch.setattr(service, "current_entry", broken)
    scene.service_only = True  # it has to answer for what is not meant to be raised; a site's own code does not
