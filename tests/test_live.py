"""Real processes: the shows of the protocol, in short. The long runs: ``python -m tests.live``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.live import services
from tests.live.renewal import keep_alive
from tests.live.site import Site, live_site
from wechat_token.sandbox import Fault

DATABASES = {"sqlite": (), "postgres": ("postgres", "redis"), "mariadb": ("mariadb",)}


def _param(database: str, names: tuple[str, ...]) -> object:
    reasons = [reason for reason in map(services.missing, names) if reason]
    marks = [pytest.mark.services, pytest.mark.proof] if names else []
    marks += [pytest.mark.skip(reason="; ".join(reasons))] if reasons else []
    return pytest.param(database, id="+".join(names) or database, marks=marks)


@pytest.fixture(scope="module", params=[_param(*item) for item in DATABASES.items()])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    settings = {"REQUEST_DEADLINE": 2.5, "LEASE_MARGIN": 2.5, "WAIT_TIMEOUT": 15}
    with live_site(request.param, redis=request.param == "postgres", settings=settings) as site:
        yield site


@pytest.fixture(params=[pytest.param("classic", marks=pytest.mark.proof), "stable"])
def endpoint(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def appid(request: pytest.FixtureRequest, site: Site, endpoint: str) -> str:
    appid = f"wx{abs(hash(request.node.name)):016x}"[:18]
    site.add_account(appid, endpoint)
    return appid


def at_once(site: Site, what: str, appid: str, processes: int, *more: str) -> list[str]:
    return json.loads(site.run("-m", "tests.live.readers", what, appid, str(processes), *more))


@pytest.mark.proof
def test_stampede__thirty_processes_one_call(site: Site, appid: str, endpoint: str) -> None:
    """R1."""
    got = at_once(site, "stampede", appid, 30)
    assert len(got) == 30
    assert len(set(got)) == 1, got
    assert site.fake.is_valid(got[0])
    assert site.fake.calls_to(appid, endpoint) == 1


@pytest.mark.proof
@pytest.mark.parametrize("endpoint", ["classic"])
def test_complaints__thirty_processes_about_a_live_token(site: Site, appid: str, endpoint: str) -> None:
    """R8: one probe, no refresh."""
    [token] = at_once(site, "stampede", appid, 1)
    assert set(at_once(site, "complain", appid, 30, token)) == {token}
    assert site.fake.calls_to(appid, "classic") == 1
    assert site.fake.calls_to(appid, "get_api_domain_ip") == 1


@pytest.mark.proof
def test_complaints__thirty_processes_about_a_dead_token(site: Site, appid: str, endpoint: str) -> None:
    """R8, R9: one refresh; on stable the plain call brings the new token, no forced one is spent."""
    [token] = at_once(site, "stampede", appid, 1)
    site.fake.kill_token(appid)
    got = at_once(site, "complain", appid, 30, token)
    assert len(set(got)) == 1, got
    assert site.fake.is_valid(got[0])
    assert site.fake.calls_to(appid, endpoint) == 2


@pytest.fixture
def complain_over_http(site: Site, appid: str) -> Callable[[int, str], list[dict[str, object]]]:
    """N threads, each a client of its own, complain at one moment to a web server of several processes."""
    key = site.run("manage.py", "wechat_token", "add-key", appid, "--account", appid, "--may-refresh").strip()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = ("--workers", "3", "--threads", "4", "--bind", f"127.0.0.1:{port}")
    site.serve("web", "-m", "gunicorn", "example_project.wsgi", *workers)
    url = f"http://127.0.0.1:{port}/wechat/accounts/{appid}/access_token/refresh"

    def post(stale: str, start: threading.Barrier) -> dict[str, object]:
        start.wait()
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(
                url, json={"stale_token": stale}, headers={"Authorization": f"Bearer {key}"}, timeout=30
            )
            return answer.json()

    def complain(clients: int, stale: str) -> list[dict[str, object]]:
        wait_for_port(port)
        start = threading.Barrier(clients)
        with ThreadPoolExecutor(clients) as pool:
            return [done.result() for done in [pool.submit(post, stale, start) for _ in range(clients)]]

    return complain


def wait_for_port(port: int, patience: float = 20) -> None:
    give_up = time.monotonic() + patience
    while time.monotonic() < give_up:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


@pytest.mark.proof
@pytest.mark.parametrize("endpoint", ["classic"])
def test_complaints__thirty_clients_over_http(site: Site, appid: str, complain_over_http) -> None:
    """R8: about a live token no refresh, about a dead one a single refresh that all of them get."""
    [token] = at_once(site, "stampede", appid, 1)
    answers = complain_over_http(30, token)
    assert {answer["access_token"] for answer in answers} == {token}
    assert site.fake.calls_to(appid, "classic") == 1
    site.fake.kill_token(appid)
    site.shell("from wechat_token.models import Token; Token.objects.update(probe_after=None)")  # the verdict of 2 s
    answers = complain_over_http(30, token)
    [new] = {answer["access_token"] for answer in answers}
    assert site.fake.is_valid(str(new))
    assert all(answer["refreshed"] for answer in answers)
    assert site.fake.calls_to(appid, "classic") == 2


@pytest.mark.parametrize("endpoint", ["classic"])
def test_refresh_command__leaves_its_row(site: Site, appid: str) -> None:
    """R15: the process ends as soon as it has its answer, and what is written after that is written all the same."""
    site.run("manage.py", "wechat_token", "refresh", appid)
    log = f"RefreshLog.objects.filter(ref={appid!r}).values_list('reason', 'outcome')"
    assert site.shell(f"from wechat_token.models import RefreshLog; print(*{log})").split() == [
        "('command',", "'renewed')",
    ]  # fmt: skip


@pytest.mark.parametrize("endpoint", ["classic"])
def test_refresh_command__tells_who_listens(site: Site, appid: str) -> None:
    """The alert of a streak is given once: not to a process that ends before it."""
    site.fake.reset_secret(appid, "another")
    with pytest.raises(RuntimeError, match="1 account was not refreshed") as caught:
        site.run("manage.py", "wechat_token", "refresh", appid)
    assert f"{appid} access_token needs attention" in str(caught.value)


@pytest.mark.proof
def test_killed_holder__others_take_over_within_the_lease(site: Site, appid: str, endpoint: str) -> None:
    """R5: SIGKILL in the middle of the fetch."""
    site.fake.inject(Fault("hang_after", seconds=20), endpoint=endpoint, appid=appid)
    holder = site.start("-m", "tests.live.readers", "loop", appid, "20", stdout=subprocess.DEVNULL)
    give_up = time.monotonic() + 20
    while site.fake.issued(appid) < 1 and time.monotonic() < give_up:
        time.sleep(0.02)
    os.killpg(holder.pid, signal.SIGKILL)
    killed = time.monotonic()
    [token] = at_once(site, "stampede", appid, 1)
    assert site.fake.is_valid(token)
    assert time.monotonic() - killed < 15
    assert site.fake.calls_to(appid, endpoint) == 2


@pytest.mark.proof
@pytest.mark.services
@pytest.mark.skipif(
    bool(services.missing("postgres") or services.missing("redis")),
    reason=services.missing("postgres") or services.missing("redis"),
)
def test_celery__worker_and_beat_keep_short_tokens_alive() -> None:
    """Real worker, real beat, Redis as broker, PostgreSQL: every token served works at that moment."""
    verdict = keep_alive(seconds=25, life=12, database="postgres", broker="redis", beat_interval=1)
    assert verdict.reads > 100
    assert verdict.dead == 0, verdict
    assert verdict.errors == 0, verdict
    assert verdict.by_schedule >= 2
    assert verdict.calls <= verdict.ideal * 1.5, verdict
