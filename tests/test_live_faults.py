"""Faults between real processes and real services, in short. The long run: ``python -m tests.live chaos``."""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.live import outage, services
from tests.live.link import Link
from tests.live.site import Site, live_site
from tests.live.verdict import EarlyEnd, Pause, Read, judge, load
from wechat_token.sandbox import FakeWeChat, Fault, ManualClock

LEASE = 5.0
FIRST, SECOND = "wx00000000000first", "wx0000000000second"

reasons = "; ".join(filter(None, map(services.missing, ("postgres", "redis"))))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    settings = {"REQUEST_DEADLINE": 2.5, "LEASE_MARGIN": LEASE - 2.5, "CACHE_SECONDS": 1}
    with live_site("postgres", redis=True, settings=settings, linked=True) as site:
        for appid in (FIRST, SECOND):
            site.add_account(appid, "classic")
            token_of(site, appid)
        yield site


with_services = [
    pytest.mark.proof,
    pytest.mark.services,
    pytest.mark.skipif(bool(reasons), reason=reasons),
]


def mark(test: Callable[..., None]) -> Callable[..., None]:
    for decorator in with_services:
        test = decorator(test)
    return test


def token_of(site: Site, appid: str) -> str:
    """What a new process gets, which has nothing in its memory."""
    tokens: list[str] = json.loads(site.run("-m", "tests.live.readers", "stampede", appid, "1"))
    return tokens[0]


class Watch:
    """A reader that has been reading for a while."""

    def __init__(self, site: Site, appid: str) -> None:
        self.log = site.folder / f"watch-{time.monotonic_ns()}.log"
        with self.log.open("w") as out:
            self.child = site.start("-m", "tests.live.readers", "loop", appid, "60", "0.05", stdout=out)
        self.wait_for(lambda reads: len(reads) > 5)

    def reads(self) -> list[Read]:
        return load([self.log])

    def wait_for(self, condition: Callable[[list[Read]], bool], patience: float = 15) -> None:
        give_up_at = time.monotonic() + patience
        while not condition(self.reads()):
            assert time.monotonic() < give_up_at, self.reads()[-3:]
            time.sleep(0.05)

    def stop(self) -> list[Read]:
        os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        return self.reads()


# -- the cache -------------------------------------------------------------------------------------


def cache_key(site: Site, appid: str, redis: Any) -> bytes:
    """Between its parts stands which site the entry is of."""
    [key] = redis.keys(f"{site.run_name}:1:wechat_token:*:{appid}:access_token")
    return key


@mark
@pytest.mark.parametrize("spoiled", ["flushed", "garbage", "another account's entry"])
def test_cache__spoiled_entry_is_neither_served_nor_fetched_anew(site: Site, spoiled: str) -> None:
    """R1, R13: the database knows better."""
    token, _ = token_of(site, FIRST), token_of(site, SECOND)
    calls = site.fake.calls_to(FIRST, "classic")
    with services.admin("redis") as redis:
        key = cache_key(site, FIRST, redis)
        if spoiled == "flushed":
            services.delete_keys(f"{site.run_name}*")
        else:
            redis.set(key, b"\x80garbage" if spoiled == "garbage" else redis.get(cache_key(site, SECOND, redis)))
    assert token_of(site, FIRST) == token
    assert site.fake.calls_to(FIRST, "classic") == calls


@mark
def test_cache__hanging_does_not_slow_down_warm_reads(site: Site) -> None:
    """R13. The promised millisecond is measured by ``python -m tests.live outage``; a busy machine gets five."""
    site.add_account(outage.APPID, "classic")
    reader = outage.Reader(site)
    assert reader.phase("healthy", 1, save=False).errors == 0
    site.links["cache"].hang()
    try:
        phase = reader.phase("hanging", 3, save=False)
    finally:
        site.links["cache"].up()
    assert phase.errors == 0
    assert phase.dead == 0
    assert phase.reads.p99 < 0.005, phase
    assert phase.reads.longest > 0.4, "the cache did not hang"


# -- the database ----------------------------------------------------------------------------------


@mark
def test_database__ended_sessions_are_replaced_without_an_error(site: Site) -> None:
    """A process without requests, in which nobody else replaces dead connections."""
    watch = Watch(site, FIRST)
    site.database.end_sessions()
    token = token_of(site, FIRST)
    site.fake.kill_token(FIRST)
    site.run("-m", "tests.live.readers", "complain", FIRST, "1", token)
    services.delete_keys(f"{site.run_name}*")  # only the database can tell the watcher
    newest = token_of(site, FIRST)
    services.delete_keys(f"{site.run_name}*")
    assert newest != token
    watch.wait_for(lambda reads: reads[-1].token == newest)
    assert not [read.error for read in watch.stop() if read.error]


@mark
def test_database__read_only_sends_nothing_and_renews_afterwards(site: Site) -> None:
    """R2, R4: no intent, no request; the old token is served meanwhile."""
    watch = Watch(site, SECOND)
    before = watch.reads()[-1].token
    with site.database.read_only():
        site.database.make_due(SECOND)
        calls = site.fake.calls_to(SECOND, "classic")
        time.sleep(2)
        assert site.fake.calls_to(SECOND, "classic") == calls
    watch.wait_for(lambda reads: reads[-1].token not in ("", before))
    assert site.fake.calls_to(SECOND, "classic") == calls + 1
    assert not [read.error for read in watch.stop() if read.error]


REFRESHES = """
import datetime as dt
from wechat_token.engine import Reason, patiently, refresh_each
from wechat_token.models import Token
due = Token.objects.filter(account__appid={appid!r})
for _ in range({times}):
    patiently(lambda: due.update(due_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)))
    print(*refresh_each([({appid!r}, "access_token")], reason=Reason.SCHEDULE))
"""


@mark
def test_database__serializable_by_default_is_not_in_the_way(site: Site) -> None:
    """R1, R2: every write is one conditional statement, which needs no more than READ COMMITTED and asks for it."""
    calls = site.fake.calls_to(SECOND, "classic")
    with site.database.serializable(), site.database.rows_in_use():
        outcomes = site.shell(REFRESHES.format(appid=SECOND, times=20)).split()
    assert outcomes == ["renewed"] * 20
    assert site.fake.calls_to(SECOND, "classic") == calls + 20


# -- processes -------------------------------------------------------------------------------------


@mark
def test_frozen_holder__its_late_answer_is_fenced_off(site: Site) -> None:
    """R2: SIGSTOP in the middle of the fetch until the lease is over, then SIGCONT."""
    appid = "wx00000000000froze"
    site.add_account(appid, "classic")
    site.fake.inject(Fault("slow", seconds=1), endpoint="classic", appid=appid)
    holder = site.start("-m", "tests.live.readers", "loop", appid, "60", stdout=subprocess.DEVNULL)
    give_up_at = time.monotonic() + 20
    while site.fake.issued(appid) < 1 and time.monotonic() < give_up_at:
        time.sleep(0.02)
    os.killpg(holder.pid, signal.SIGSTOP)
    time.sleep(LEASE + 0.5)
    token = token_of(site, appid)
    os.killpg(holder.pid, signal.SIGCONT)
    time.sleep(1)
    assert site.fake.calls_to(appid, "classic") == 2
    assert site.fake.is_valid(token)
    assert token_of(site, appid) == token
    os.killpg(holder.pid, signal.SIGKILL)


# -- the judge and the link themselves -------------------------------------------------------------


def test_judge__finds_dead_tokens_and_errors_and_knows_an_early_end() -> None:
    clock = ManualClock()
    fake = FakeWeChat(clock, life=100, seed=1)
    fake.add_account(FIRST, "secret")
    token = fake.fetch_classic(FIRST, "secret").token
    born = fake.now()
    good = Read("reader-1.1", FIRST, born + 99, born + 101, token)
    dead = Read("reader-1.1", FIRST, born + 100.5, born + 101, token)
    error = Read("reader-1.1", FIRST, born, born + 1, error="TokenUnavailable: …")
    verdict = judge([error, good, dead], fake, [], seed=1)
    assert verdict.dead == [dead]
    assert verdict.errors == [error]
    assert not verdict.is_kept
    early_end = EarlyEnd(FIRST, born + 100, born + 102)
    verdict = judge([good, dead], fake, [early_end], seed=1, frozen=[Pause("reader-1", born + 99, born + 102)])
    assert verdict.is_kept
    assert verdict.behind_our_back == 1
    assert verdict.longest_read == 0.0


def test_judge__measures_the_repair_of_a_token_that_nobody_got() -> None:
    clock = ManualClock()
    fake = FakeWeChat(clock, seed=1)
    fake.add_account(FIRST, "secret")
    fake.fetch_classic(FIRST, "secret")
    clock.advance(31)
    token = fake.fetch_classic(FIRST, "secret").token
    verdict = judge([Read("reader-1.1", FIRST, fake.now(), fake.now(), token)], fake, [], seed=1)
    assert verdict.longest_repair == 31
    assert not verdict.is_kept


@pytest.fixture
def echo() -> Iterator[int]:
    class Echo(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(100):
                self.request.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def is_over(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


def test_link__carries_hangs_cuts_and_refuses(echo: int) -> None:
    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", link.port), timeout=0.3)

    with Link("127.0.0.1", echo) as link:
        with connect() as peer:
            peer.sendall(b"one")
            assert peer.recv(3) == b"one"
            link.hang()
            peer.sendall(b"two")
            with pytest.raises(TimeoutError):
                peer.recv(3)
            link.up()
            assert peer.recv(3) == b"two"
            link.cut()
            assert is_over(peer)
        link.down()
        with pytest.raises(ConnectionRefusedError):
            connect()
        link.up()
        with connect() as peer:
            peer.sendall(b"three")
            assert peer.recv(5) == b"three"
