"""What ``deploy/`` ships: nginx for real, in front of a real gunicorn; of the rest what a machine alone can tell."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from tests.live.site import Site, live_site
from tests.peer import server_tls

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
HOST = "tokens.example.com"
APPID = "wx0123456789abcdef"
TOKEN = f"/wechat/accounts/{APPID}/access_token"

SLOW = 500  # sockets
AT_ONCE = 1.0  # seconds a read may take beside them, on a busy machine
HEADER_TIMEOUT = 5  # nginx.conf's client_header_timeout

needs_nginx = pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="no nginx here")


class ByAddress(http.client.HTTPSConnection):
    """To nginx on loopback, whatever the host's name says."""

    def __init__(self, port: int, trust: ssl.SSLContext) -> None:
        super().__init__(HOST, port, timeout=15, context=trust)
        self._trust = trust

    def connect(self) -> None:
        self.sock = self._trust.wrap_socket(
            socket.create_connection(("127.0.0.1", self.port), 15), server_hostname=HOST
        )


@dataclass
class Gate:
    """nginx with the shipped configuration, and gunicorn with the shipped configuration behind it."""

    site: Site
    folder: Path
    port: int
    trust: ssl.SSLContext
    key: str = ""

    def ask(self, path: str, *, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        with contextlib.closing(ByAddress(self.port, self.trust)) as connection:
            connection.request(method, path, body or None, {"Authorization": f"Bearer {self.key}", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def read(self) -> tuple[int, float]:
        """One reading of a token: status and seconds."""
        began = time.monotonic()
        status, _body = self.ask(TOKEN)
        return status, time.monotonic() - began

    def connect(self, address: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 15, source_address=(address, 0))

    def logs(self) -> str:
        time.sleep(0.2)  # nginx writes after it has answered
        return "\n".join(file.read_text(errors="replace") for file in self.folder.rglob("*.log"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def here(folder: Path, port: int) -> Path:
    """The shipped nginx.conf with its paths and port changed, and nothing else."""
    text = (DEPLOY / "nginx.conf").read_text()
    changes = {
        "user www-data;": "user root;" if os.geteuid() == 0 else "",
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "/run/wechat-token/": f"{folder}/",
        "/etc/wechat-token/tls/fullchain.pem": f"{folder}/certificate.pem",
        "/etc/wechat-token/tls/privkey.pem": f"{folder}/key.pem",
        "/var/log/nginx/": f"{folder}/",
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "\nhttp {": f"\nhttp {{ client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;"
        f" fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;",
    }
    for shipped, mine in changes.items():
        assert shipped in text
        text = text.replace(shipped, mine)
    path = folder / "nginx.conf"
    path.write_text(text)
    return path


@contextlib.contextmanager
def nginx(folder: Path, port: int) -> Iterator[None]:
    command = [shutil.which("nginx", path="/usr/sbin:/usr/bin"), "-c", str(here(folder, port)), "-g", "daemon off;"]
    with (folder / "nginx.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def wait_until_ok(gate: Gate, patience: float = 30) -> None:
    give_up = time.monotonic() + patience
    while time.monotonic() < give_up:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if gate.read()[0] == 200:
                return
        time.sleep(0.1)
    pytest.fail(f"no token through nginx:\n{gate.logs()}")


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    with live_site() as site:
        site.env |= {
            "DJANGO_DEBUG": "0",
            "DJANGO_HTTPS": "1",
            "DJANGO_ALLOWED_HOSTS": HOST,
            "WECHAT_TOKEN_TRUSTED_PROXIES": "1",
        }
        site.add_account(APPID, "stable")
        port = free_port()
        _context, certificate = server_tls(site.folder, HOST)
        gate = Gate(site, site.folder, port, ssl.create_default_context(cafile=certificate))
        gate.key = site.add_key("reader", "--account", APPID)
        with nginx(site.folder, port):
            bind = {"GUNICORN_BIND": f"unix:{site.folder}/gunicorn.sock", "WEB_CONCURRENCY": "1"}
            site.env |= bind
            site.serve("web", "-m", "gunicorn", "-c", str(DEPLOY / "gunicorn.conf.py"), "example_project.wsgi")
            wait_until_ok(gate)
            yield gate


# -- slow clients --------------------------------------------------------------------------------------


def one_byte_of_a_handshake(gate: Gate, number: int) -> socket.socket:
    slow = gate.connect()
    slow.sendall(b"\x16")
    return slow


def one_byte_of_a_request(gate: Gate, number: int) -> socket.socket:
    slow = gate.trust.wrap_socket(gate.connect(), server_hostname=HOST)
    slow.sendall(b"G")
    return slow


def one_byte_of_a_body(gate: Gate, number: int) -> socket.socket:
    """From ten addresses: at one of them, limit_conn would have refused most."""
    slow = gate.trust.wrap_socket(gate.connect(f"127.0.0.{2 + number % 10}"), server_hostname=HOST)
    slow.sendall(f"POST /wechat/cgi-bin/stable_token HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 90\r\n\r\n{{".encode())
    return slow


def is_closed(slow: socket.socket) -> bool:
    slow.settimeout(0)
    try:
        while slow.recv(65_536):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        pass
    return True


@pytest.mark.proof
@needs_nginx
@pytest.mark.parametrize("slowly", [one_byte_of_a_handshake, one_byte_of_a_request, one_byte_of_a_body])
def test_nginx__five_hundred_slow_sockets_hold_nobody_up(gate: Gate, slowly: Any) -> None:
    """R33. On gunicorn alone eight of them stop everybody."""
    with contextlib.ExitStack() as stack:
        sockets = []
        reads = []
        for number in range(SLOW):
            sockets.append(stack.enter_context(contextlib.closing(slowly(gate, number))))
            if number % 100 == 99:
                reads.append(gate.read())
        until = time.monotonic() + HEADER_TIMEOUT / 2
        while time.monotonic() < until:
            reads.append(gate.read())
            time.sleep(0.2)
        assert {status for status, _seconds in reads} == {200}
        assert max(seconds for _status, seconds in reads) < AT_ONCE
        time.sleep(HEADER_TIMEOUT / 2 + 3)  # nginx closes those that time out by and by
        assert sum(map(is_closed, sockets)) == SLOW


@pytest.mark.proof
@needs_nginx
def test_nginx__one_address_cannot_have_all_the_bodies(gate: Gate) -> None:
    """Whoever goes on dripping is not timed out; at the 101st request under way nginx refuses the address."""
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(contextlib.closing(one_byte_of_a_body(gate, 0))) for _ in range(110)]
        time.sleep(0.5)
        for one in slow:
            one.settimeout(0.02)
        refused = 0
        for one in slow:
            with contextlib.suppress(OSError):
                refused += one.recv(100).startswith(b"HTTP/1.1 429")
        assert refused == 10
        assert gate.read()[0] == 200


# -- what nginx lets through ---------------------------------------------------------------------------


@pytest.mark.proof
@needs_nginx
def test_nginx__clients_do_not_choose_their_address(gate: Gate) -> None:
    """S3: a key bound to a network is refused to whoever claims to be in it."""
    elsewhere, here = (
        gate.site.add_key(net, "--account", APPID, "--network", net) for net in ("10.0.0.0/8", "127.0.0.0/8")
    )
    time.sleep(1.2)  # by then every process knows both

    def ask(key: str, **headers: str) -> int:
        return gate.ask(TOKEN, Authorization=f"Bearer {key}", **headers)[0]

    assert ask(here, **{"X-Forwarded-For": "10.1.1.1"}) == 200
    for header in ("X-Forwarded-For", "X-Real-IP", "X_Forwarded_For"):
        assert ask(elsewhere, **{header: "10.1.1.1"}) == 401
    assert ask(elsewhere, Forwarded="for=10.1.1.1") == 401


@pytest.mark.proof
@needs_nginx
def test_nginx__clients_do_not_choose_paths_and_schemes(gate: Gate) -> None:
    forged = {
        "SCRIPT_NAME": "/forged",
        "PATH_INFO": "/admin/",
        "X-Forwarded-Host": "evil.example",
        "X-Script-Name": "/f",
    }
    status, body = gate.ask("/wechat/openapi.json", **forged)
    assert status == 200
    assert json.loads(body)["servers"] == [{"url": "/wechat"}]


@pytest.mark.proof
@needs_nginx
def test_nginx__other_names_get_no_answer(gate: Gate) -> None:
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        gate.ask("/wechat/health", Host="evil.example")


@pytest.mark.proof
@needs_nginx
def test_nginx__logs_have_no_key(gate: Gate) -> None:
    """S2: however the path of ``GET cgi-bin/token`` is spelled, and when gunicorn is not there."""
    query = f"grant_type=client_credential&appid={APPID}&secret={gate.key}"
    assert gate.ask(f"/wechat/cgi-bin/token?{query}")[0] == 200
    assert gate.ask(f"/wechat/cgi-bin/%74oken?{query}")[0] == 200
    gate.ask(f"//wechat/cgi-bin/token/?{query}")
    gate.ask(f"/wechat/health?{query}", **{"Broken Header": "x"})
    gate.ask(f"/wechat/cgi-bin/token?{query}{'x' * 9_000}")
    logs = gate.logs()
    assert logs.count("GET /wechat/cgi-bin/token") >= 2
    assert gate.key[8:] not in logs


@pytest.mark.proof
@needs_nginx
def test_nginx__large_bodies_end_there_or_at_the_service(gate: Gate) -> None:
    path = "/wechat/cgi-bin/stable_token"
    assert gate.ask(path, method="POST", body=b"x" * 70_000)[0] == 413
    status, body = gate.ask(path, method="POST", body=b"x" * 20_000)
    assert (status, json.loads(body)["errcode"]) == (200, 47001)


@pytest.mark.proof
@needs_nginx
def test_nginx__every_answer_has_its_headers(gate: Gate) -> None:
    for path in ("/wechat/health", "/admin/login/", "/nowhere", "/" + "x" * 9_000):
        with contextlib.closing(ByAddress(gate.port, gate.trust)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
        assert answer.headers.get_all("Strict-Transport-Security") == ["max-age=31536000; includeSubDomains"]
        assert answer.headers.get_all("X-Content-Type-Options") == ["nosniff"]
        [policy] = answer.headers.get_all("Content-Security-Policy")
        assert "frame-ancestors 'none'" in policy


@pytest.mark.proof
@needs_nginx
def test_nginx__trace_and_http_are_refused(gate: Gate) -> None:
    assert gate.ask("/wechat/health", method="TRACE")[0] == 405
    with gate.connect() as plain:
        plain.sendall(f"GET /wechat/health HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert plain.recv(100).startswith(b"HTTP/1.1 400")


# -- the other files -----------------------------------------------------------------------------------


UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


@pytest.mark.proof
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd__units_are_sound_and_hardened(unit: Path, tmp_path: Path) -> None:
    """The programs are this machine's; nothing is started."""
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"/opt/wechat-token/venv/bin/\w+", sys.executable, unit.read_text()))
    analyze = ["systemd-analyze", "--man=no"]
    done = subprocess.run([*analyze, "verify", copy], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    done = subprocess.run(
        [*analyze[:1], "security", "--offline=true", "--threshold=20", copy],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()  # an exposure of 2.0 of 10 at most


def test_systemd__units_are_hardened_alike() -> None:
    parts = {re.search(r"# What it may touch.*?(?=\n\[Install\])", unit.read_text(), re.DOTALL)[0] for unit in UNITS}
    assert len(UNITS) == 3
    assert len(parts) == 1


@pytest.mark.django_db
def test_probes__ask_for_what_is_there(account: Any) -> None:
    paths = re.findall(r"^ +path: (/\S+)$", (DEPLOY / "kubernetes.yaml").read_text(), re.MULTILINE)
    assert len(paths) == 2
    for path in paths:
        assert Client().get(path).status_code == 200


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml"])
def test_yaml__is_read_and_starts_what_the_units_start(name: str) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    text = (DEPLOY / name).read_text()
    assert all(yaml.safe_load_all(text))
    started = re.findall(r"\[celery, (.*)\]", text)
    for unit in UNITS:
        command = re.search(r"bin/celery (.*?)\n(?=\w|#)", unit.read_text().replace("\\\n", ""), re.DOTALL)
        if command:
            words = command[1].split()
            assert any(re.findall(r"[^\s,\"]+", one) == words for one in started), words
