"""``python -m tests.fuzz --seconds 600 --seed N``: every parameter and header of the HTTP service, at a real gunicorn.

Two generators: one of bytes, by four clients at once, each request made from the seed and its number; and Schemathesis,
which reads ``openapi.json``. Half of the requests hold a valid key for one account. Loopback only. Exit code 1 after a
server error that is not documented, a hang, a lost worker, growing memory, or a secret in an answer or a log.
"""

from __future__ import annotations

import argparse
import importlib.util
import secrets
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.live.figures import machine
from tests.live.service import Service
from tests.live.site import ROOT, Site, live_site

from . import wire
from .judge import Verdict

CLIENTS: Final = 4
WORKERS: Final = 2
PATIENCE: Final = 20.0  # seconds; longer than WAIT_TIMEOUT
BETWEEN: Final = 1.0  # seconds between samples of memory
APPID: Final = "wx0123456789abcdef"
OTHERS: Final = ("wxfedcba9876543210", "wx00000000000000aa")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None, help="printed; the same seed makes the same requests")
    parser.add_argument(
        "--only", default="", metavar="CLIENT/NUMBER", help="one request of the seed: send it, and print the answer"
    )
    options = parser.parse_args()
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    print(f"seed {seed}, {options.seconds:.0f} s; {machine()}", flush=True)
    verdict = fuzz(seed, options.seconds, options.only)
    print(verdict.report())
    return 1 if verdict.faults else 0


def fuzz(seed: int, seconds: float, only: str = "") -> Verdict:
    with live_site(settings={"TRUSTED_PROXIES": 1}) as site:
        site.env |= {"DJANGO_DEBUG": "0"}
        appsecret = secrets.token_hex(16)
        for appid in (APPID, *OTHERS[:1]):
            site.add_account(appid, "stable", appsecret)
        own, other = (
            site.add_key(name, "--account", appid, "--may-refresh")
            for name, appid in (("own", APPID), ("other", OTHERS[0]))
        )
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        site.env |= {"GUNICORN_BIND": f"127.0.0.1:{port}", "WEB_CONCURRENCY": str(WORKERS)}
        config = ("-c", str(ROOT / "deploy" / "gunicorn.conf.py"), "--max-requests", "0")
        web = site.serve("web", "-m", "gunicorn", *config, "example_project.wsgi")
        wait_for(port)
        verdict = Verdict()
        verdict.secrets.plant("AppSecret", appsecret)
        verdict.secrets.plant("SECRET_KEY", site.env["DJANGO_SECRET_KEY"])
        verdict.secrets.plant("key of another", unshown(other))
        verdict.secrets.plant("token of another", Service(url, other).read(OTHERS[0]).token)
        verdict.keys.plant("key", unshown(own))
        stale = Service(url, own).read(APPID).token
        verdict.tokens.plant("token", stale)
        target = wire.Target(APPID, OTHERS, own, stale)
        if only:
            lane, number = map(int, only.split("/"))
            asked = wire.request(seed, lane, number, target)
            print(asked.wire, exchange(port, asked.wire), sep="\n\n")
        else:
            run(verdict, seed, seconds, port, target, web.pid)
        if Service(url, own).read(APPID).status != 200:
            verdict.fault("afterwards the token is not served")
        leave(site, verdict)
        return verdict


def run(verdict: Verdict, seed: int, seconds: float, port: int, target: wire.Target, server: int) -> None:
    until = time.monotonic() + seconds
    before = children(server)
    threads = [
        threading.Thread(target=client, args=(verdict, seed, lane, port, target, until)) for lane in range(CLIENTS)
    ]
    threads.append(threading.Thread(target=from_description, args=(verdict, seed, port, target, until)))
    for thread in threads:
        thread.start()
    samples: dict[int, list[float]] = {pid: [] for pid in before}
    while time.monotonic() < until:
        for pid, taken in samples.items():
            with suppress(OSError):
                taken.append(resident(pid))
        time.sleep(min(BETWEEN, seconds / 100))
    for thread in threads:
        thread.join()
    verdict.workers(before, children(server))
    for pid, taken in samples.items():
        print(f"worker {pid}: {verdict.memory(pid, taken)}")


def client(verdict: Verdict, seed: int, lane: int, port: int, target: wire.Target, until: float) -> None:
    number = 0
    while time.monotonic() < until:
        asked = wire.request(seed, lane, number, target)
        number += 1
        try:
            answer = exchange(port, asked.wire)
        except OSError as error:  # refused, or nothing for too long
            verdict.fault(f"{asked.number} {asked.line}: {type(error).__name__}")
            continue
        odd_coding = b"transfer-encoding" in asked.wire.lower()
        verdict.answered(f"{asked.number} {asked.line}", answer, with_key=asked.has_key, odd_coding=odd_coding)


def exchange(port: int, asked: bytes) -> bytes:
    """All of the answer; '' if the server hung up. Raises ``TimeoutError`` when nothing comes for too long."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        with suppress(OSError):  # refused before it was all sent
            connection.sendall(asked)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):  # refused with something unread
            while part := connection.recv(65_536):
                answer += part
    return answer


def from_description(verdict: Verdict, seed: int, port: int, target: wire.Target, until: float) -> None:
    """What the description allows and what it forbids, in rounds until the time is up."""
    if importlib.util.find_spec("schemathesis") is None:
        print("schemathesis is not installed: without it")
        return
    from .described import calls

    number = 0
    for number, (about, answer, has_key, odd) in enumerate(calls(seed, f"http://127.0.0.1:{port}", target, until), 1):
        verdict.answered(f"schemathesis {number} {about}", answer, with_key=has_key, odd_coding=odd)
    print(f"of the requests, schemathesis made {number}")


def leave(site: Site, verdict: Verdict) -> None:
    """Nothing of it all in what the processes wrote, nor in the database."""
    site.stop()
    for file in sorted(site.folder.iterdir()):
        if file.is_file() and file.suffix != ".pem":
            verdict.written(file.name, file.read_bytes())


def unshown(key: str) -> str:
    """What of a client key is in no log. Its beginning, ``wxt_`` and eight characters, tells keys apart."""
    return key[12:]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident(pid: int) -> float:
    """MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def wait_for(port: int, patience: float = 30) -> None:
    give_up = time.monotonic() + patience
    while time.monotonic() < give_up:
        with suppress(OSError):
            if exchange(port, b"GET /wechat/openapi.json HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")[9:12] == b"200":
                return
        time.sleep(0.1)
    raise RuntimeError("gunicorn does not come up")


if __name__ == "__main__":
    sys.exit(main())
