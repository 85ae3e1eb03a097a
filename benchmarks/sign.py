"""What a signature costs, in one run: ``sign_jsapi`` beside its floor and wechatpy's, and the view beside an empty one.

The floor is what nobody can leave out: one nonce, one look at the clock, one join, one SHA-1.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from read import APPID, nanoseconds

ROOT = Path(__file__).resolve().parents[1]
URL = "https://shop.example.com/sale/2026?from=singlemessage&isappinstalled=0"
ROUNDS, REQUESTS = 9, 400


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "DATABASE_URL": f"sqlite:///{folder}/db.sqlite3",
            "WECHAT_TOKEN_DATA_DIR": folder,
            "DJANGO_DEBUG": "0",
            "DJANGO_SECRET_KEY": secrets.token_urlsafe(48),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}",
        }
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        from wechat_token.sandbox.testing import fake_wechat

        with fake_wechat() as fake:
            fake.add_account(APPID, "secret")
            key = content()
            in_process()
        views(key)


def content() -> str:
    """An account with its ticket, and a client key."""
    from wechat_token import get_ticket
    from wechat_token.client_keys.keys import make_key
    from wechat_token.models import Account

    account = Account.objects.create(appid=APPID, secret="secret", js_domains="shop.example.com")
    get_ticket(APPID)
    return make_key("benchmark", accounts=[account])[1].reveal()


def in_process() -> None:
    from wechat_token import get_ticket, sign_jsapi

    ticket = get_ticket(APPID)

    def floor() -> str:
        fields = f"noncestr={secrets.token_urlsafe(12)}", f"timestamp={int(time.time())}", f"url={URL}"
        return hashlib.sha1("&".join((f"jsapi_ticket={ticket}", *fields)).encode()).hexdigest()

    rivals: dict[str, Callable[[], object]] = {
        "the floor": floor,
        "sign_jsapi(url, appid)": lambda: sign_jsapi(URL, APPID),
    }
    try:
        from wechatpy import WeChatClient
        from wechatpy.session.memorystorage import MemoryStorage
    except ImportError:
        print("wechatpy is not installed")
    else:
        client = WeChatClient(APPID, "secret", session=MemoryStorage())
        client.session.set(f"{APPID}_jsapi_ticket", ticket, 7000)
        client.session.set(f"{APPID}_jsapi_ticket_expires_at", int(time.time()) + 7000, 7000)

        def wechatpys() -> object:
            nonce, timestamp = secrets.token_urlsafe(12), int(time.time())
            return client.jsapi.get_jsapi_signature(nonce, client.jsapi.get_jsapi_ticket(), timestamp, URL)

        rivals["wechatpy, memory session"] = wechatpys
    figures = {name: nanoseconds(work) for name, work in rivals.items()}
    for name, figure in sorted(figures.items(), key=lambda item: item[1]):
        print(f"{name:34} {figure:12,.0f} ns   {figure / figures['the floor']:8.2f} x")


def views(key: str) -> None:
    """The views of signatures and tokens and an empty one, in turns on one server and one connection each."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "4", "--keep-alive", "60"]
    command += ["-b", f"127.0.0.1:{port}", "--log-level", "error", "sign_site:application"]
    server = subprocess.Popen(command)
    try:
        connection = connected(port)
        paths = {
            "an empty view": "/empty",
            "a token, with a key": f"/wechat/accounts/{APPID}/access_token",
            "signature, with a key": f"/wechat/accounts/{APPID}/jsapi_signature?url={quote(URL, safe='')}",
            "signature, public": f"/wechat/public/jssdk/{APPID}?url={quote(URL, safe='')}",
        }
        rates: dict[str, list[float]] = {name: [] for name in paths}
        for _ in range(ROUNDS):
            for name, path in paths.items():
                rates[name].append(rate(connection, path, key))
        ratios = {
            name: statistics.median(a / b for a, b in zip(rates[name], rates["an empty view"], strict=True))
            for name in paths
        }
        for name in paths:
            print(f"{name:34} {statistics.median(rates[name]):12,.0f} /s   {ratios[name]:8.2f} of an empty view")
    finally:
        server.terminate()
        server.wait()


def connected(port: int) -> http.client.HTTPConnection:
    for _ in range(200):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.connect()
        except OSError:
            time.sleep(0.1)
        else:
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
    raise RuntimeError("the server does not answer")


def rate(connection: http.client.HTTPConnection, path: str, key: str) -> float:
    started = time.perf_counter()
    for _ in range(REQUESTS):
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body!r}")
    return REQUESTS / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
