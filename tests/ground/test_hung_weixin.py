"""WeChat does not answer about one account: its callers are told so, and nobody else notices."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from .site import AT_ONCE, SLACK, WAIT, Ground, on
from .stage import add_key, aside, ask, together, wait_until, weixin

THREADS = 4  # of the one gunicorn worker
WAITING = 4  # threads of a process that may wait for one account


def serve(port: int) -> None:
    """Scene: gunicorn with one worker, as a site would start it."""
    from gunicorn.app.wsgiapp import WSGIApplication

    class Site(WSGIApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            options = {"bind": [f"127.0.0.1:{port}"], "worker_class": "gthread", "workers": 1, "threads": THREADS,
                       "loglevel": "warning"}  # fmt: skip
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            from example_project.wsgi import application

            return application

    Site().run()


@contextmanager
def service(ground: Ground, **wechat: Any) -> Iterator[Service]:
    key = ground.play(add_key, "--all-accounts")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    play = ground.start(serve, port, seconds=60, wechat=wechat)
    try:
        assert wait_until(lambda: _is_open(port), 15) is not None
        yield Service(port, key)
    finally:
        play.kill()


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Service:
    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._headers = {"Authorization": f"Bearer {key}"}

    def read(self, appid: str) -> dict[str, Any]:
        """One request on a connection of its own."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=15)
        try:
            connection.request("GET", f"/wechat/accounts/{appid}/access_token", headers=self._headers)
            answer = connection.getresponse()
            body = json.loads(answer.read())
            return {"status": answer.status, "retry": answer.headers.get("Retry-After"),
                    "token": body.get("access_token"), "seconds": time.monotonic() - began}  # fmt: skip
        finally:
            connection.close()


@on("postgres", "mariadb", "sqlite")
def test_hanging_account_over_http__one_waits_and_healthy_accounts_are_read(ground: Ground) -> None:
    """R33: twelve clients and four threads. One healthy account is known to the worker, another is not yet."""
    hanging, known, new = ground.account(), ground.account(token=True), ground.account(token=True)
    ground.hang(hanging)
    with service(ground, REQUEST_DEADLINE=10.0) as web, ThreadPoolExecutor(12) as clients:
        assert web.read(known)["status"] == 200
        asking = [clients.submit(web.read, hanging) for _ in range(12)]
        time.sleep(0.3)
        healthy = []
        while not all(done.done() for done in asking):
            healthy += [web.read(known), web.read(new)]
            time.sleep(0.1)
        answers = [done.result() for done in asking]
    assert {answer["status"] for answer in answers} == {503}
    assert all(int(answer["retry"]) >= 1 for answer in answers)
    took = sorted(answer["seconds"] for answer in answers)
    assert took[-2] < WAIT / 2, f"all but one were to be refused at once: {took}"
    assert took[-1] < WAIT + SLACK, took
    assert len(healthy) > 10
    assert {answer["status"] for answer in healthy} == {200}
    healthy_took = sorted(answer["seconds"] for answer in healthy)
    assert healthy_took[len(healthy) * 9 // 10] < 0.5, healthy_took
    assert healthy_took[-1] < WAIT / 2, healthy_took


def crowd(appid: str) -> dict[str, Any]:
    """Scene: twelve threads of one process ask at one moment, one more a little later."""
    late: list[dict[str, Any]] = []

    def come_late() -> None:
        time.sleep(1.6)
        late.append(ask(appid))

    latecomer = threading.Thread(target=come_late)
    latecomer.start()
    answers = together(12, lambda: ask(appid))
    latecomer.join()
    return {"answers": answers, "late": late}


@on("postgres", "mariadb", "sqlite")
def test_hanging_account_in_a_process__four_wait_on_and_newcomers_are_refused(ground: Ground) -> None:
    """In a fetch's first second anybody may wait: most fetches end in it."""
    appid = ground.account()
    ground.hang(appid)
    told = ground.play(crowd, appid, wechat={"REQUEST_DEADLINE": 10.0})
    took = sorted(answer["seconds"] for answer in told["answers"])
    assert took[12 - WAITING - 1] < 1.0 + SLACK, took
    assert took[-1] < WAIT + SLACK, took
    assert told["late"][0]["seconds"] < AT_ONCE, told["late"]
    for answer in (*told["answers"], *told["late"]):
        assert "TokenUnavailable" in answer["error"], answer


def beside(hanging: str, good: str, other: str) -> dict[str, Any]:
    """Scene: threads wait for one account; what others cost meanwhile, with a token and without."""
    waiting = aside(lambda: together(8, lambda: ask(hanging)))
    assert wait_until(lambda: weixin("calls_to", appid=hanging, endpoint="classic")) is not None
    answers = [ask(good), ask(other)]
    waiting.join()
    return {"good": answers[0], "other": answers[1]}


@on("postgres", "sqlite")
def test_hanging_account_in_a_process__others_do_not_wait(ground: Ground) -> None:
    hanging, good, other = ground.account("classic"), ground.account("classic", token=True), ground.account("classic")
    ground.hang(hanging)
    told = ground.play(beside, hanging, good, other)
    assert told["good"]["token"] == ground.stored(good)
    assert told["good"]["seconds"] < AT_ONCE
    assert told["other"]["token"] == ground.stored(other)
    assert told["other"]["seconds"] < 0.5
