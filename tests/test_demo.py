"""``manage.py demo`` as its users run it: as a command of its own, from anywhere, with nothing prepared."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from example_project.demo import environment, processes
from wechat_token.sandbox import FakeWeChat, FakeWeChatServer

MANAGE = Path(__file__).resolve().parent.parent / "manage.py"
APPID, SECRET = "wx00000000000000aa", "canary-demo-secret-51c0ffee"

WITHOUT_PACKAGE = """
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {package!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)

sys.meta_path.insert(0, Missing())
runpy.run_path({manage!r}, run_name="__main__")
"""


class Demo:
    """A running demo and the lines it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, seconds: float = 40) -> re.Match[str]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.text):
                return found
            if self.process.poll() is not None:
                self._reader.join(5)
                found = re.search(pattern, self.text)
                assert found is not None, self.text
                return found
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} did not come: {self.text}")

    def end(self, seconds: float = 40) -> int:
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code


@contextlib.contextmanager
def demo(folder: Path, *arguments: str, **variables: str) -> Iterator[Demo]:
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DJANGO_", "WECHAT_")) and name != "DATABASE_URL"
    }
    with subprocess.Popen(
        [sys.executable, str(MANAGE), "demo", "--folder", str(folder), *arguments],
        cwd=folder,
        env=environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield Demo(process)
        finally:
            if process.poll() is None:
                process.terminate()


def fetch(url: str, key: str = "", body: object = None) -> str:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
        return str(answer.read().decode())


def left_running(folder: Path) -> list[str]:
    """Ids of processes that were started for a demo in ``folder``, where the system shows them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"WECHAT_TOKEN_DATA_DIR=" + str(folder).encode() in (process / "environ").read_bytes():
                found.append(process.name)
    return found


def assert_nothing_left(folder: Path) -> None:
    assert list(folder.iterdir()) == []
    assert left_running(folder) == []


def is_signed(page: str, ticket: str) -> bool:
    """Whether the page hands wx.config a valid signature of its own address."""
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page)[1])  # type: ignore[index]
    given = data["config"]
    text = f"jsapi_ticket={ticket}&noncestr={given['nonceStr']}&timestamp={given['timestamp']}&url={data['url']}"
    return bool(given["signature"] == hashlib.sha1(text.encode()).hexdigest())


@pytest.mark.proof
def test_demo__renews_serves_and_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path, "--port", "0", "--seconds", "13", "--life", "10") as run:
        run.wait_for("Every refresh")
        assert left_running(tmp_path)
        site = run.wait_for(r"Admin +(http://\S+)/admin/")[1]
        fake = run.wait_for(r"Fake WeChat +(http://\S+)/")[1]
        key, url = run.wait_for(r'curl -s -H "Authorization: Bearer (\S+)" (\S+)').groups()
        served = json.loads(fetch(url, key))
        in_wechats_shape = json.loads(fetch(run.wait_for(r'curl -s "(\S+)"')[1]))
        accepted = json.loads(fetch(f"{fake}/_sandbox/is_valid", body={"token": served["access_token"]}))
        page = fetch(run.wait_for(r"(http://\S+/page/\S+)")[1])
        ticket = json.loads(fetch(url.replace("access_token", "jsapi_ticket"), key))["ticket"]
        style = re.search(r'href="(/static/\S+\.css)"', fetch(f"{site}/admin/login/"))
        assert style is not None
        assert fetch(site + style[1])
        code = run.end()

    assert code == 0, run.text
    assert accepted == {"result": True}
    assert in_wechats_shape["access_token"] == served["access_token"]
    assert served["access_token"] not in run.text
    assert is_signed(page, ticket)
    assert ticket not in page + run.text
    assert len(re.findall(r"first token, version 1", run.text)) == 2
    assert re.search(r"stable +renewed after \d+ s, version \d+", run.text)
    assert re.search(r"classic +renewed after \d+ s, version \d+", run.text)
    assert re.search(r"Verdict: [1-9]\d* reads, 0 dead tokens served, 0 reads without a token", run.text)
    assert_nothing_left(tmp_path)


def test_demo__sigterm_halfway_puts_everything_away(tmp_path: Path) -> None:
    with demo(tmp_path, "--port", "0") as run:
        run.wait_for("Starting")
        run.process.send_signal(signal.SIGTERM)
        code = run.end(20)

    assert code == 0, run.text
    assert "Traceback" not in run.text
    assert_nothing_left(tmp_path)


@pytest.mark.proof
def test_demo__credentials_of_the_user_at_another_wechat(tmp_path: Path) -> None:
    fake = FakeWeChat()
    fake.add_account(APPID, SECRET)
    with (
        FakeWeChatServer(fake) as server,
        demo(
            tmp_path, "--port", "0", "--seconds", "1.5",
            WECHAT_APPID=APPID, WECHAT_SECRET=SECRET, WECHAT_API_BASE_URL=server.url,
        ) as run,
    ):  # fmt: skip
        code = run.end()

    assert code == 0, run.text
    assert fake.calls_to(APPID, "stable") == 1
    assert "No token is put to the test here" in run.text
    assert SECRET not in run.text
    assert_nothing_left(tmp_path)


@pytest.mark.proof
def test_demo__wrong_credentials_are_told_and_fail_the_run(tmp_path: Path) -> None:
    fake = FakeWeChat()
    fake.add_account(APPID, "another secret")
    with (
        FakeWeChatServer(fake) as server,
        demo(
            tmp_path, "--port", "0", "--seconds", "0.5",
            WECHAT_APPID=APPID, WECHAT_SECRET=SECRET, WECHAT_API_BASE_URL=server.url,
        ) as run,
    ):  # fmt: skip
        code = run.end()

    assert code == 1
    assert "errcode 40125" in run.text
    assert run.lines[-1].startswith(f"CommandError: {APPID} never got a token")
    assert_nothing_left(tmp_path)


def test_demo__unwritable_folder_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.touch()
    with demo(tmp_path, "--port", "0", "--folder", str(folder)) as run:
        code = run.end()

    assert code == 1
    assert run.lines == [
        f"CommandError: Cannot write into {folder}: Not a directory. Name another place with --folder."
    ]


def test_demo__taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=rf"^Port {port} cannot be used: .*--port {port + 1}\.$"):
            call_command("demo", port=port)


def test_demo__appid_without_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WECHAT_APPID", APPID)
    monkeypatch.delenv("WECHAT_SECRET", raising=False)
    with pytest.raises(CommandError, match="Set both"):
        call_command("demo", port=0)


@pytest.mark.parametrize("package", ["celery", "django", "django_celery_beat"])
def test_manage__missing_package_is_one_line(package: str) -> None:
    script = WITHOUT_PACKAGE.format(package=package, manage=str(MANAGE))
    done = subprocess.run(
        [sys.executable, "-c", script, "demo"],
        cwd=MANAGE.parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.startswith(f"The package {package} is missing. Install it: ")
    assert done.stderr.count("\n") == 1


def test_environment__nothing_of_the_users_services_comes_along(tmp_path: Path) -> None:
    user = {
        "PATH": "/bin",
        "DATABASE_URL": "postgres://db/live",
        "REDIS_URL": "redis://cache",
        "CELERY_BROKER_URL": "redis://broker",
        "DJANGO_SECRET_KEY": "the live one",
        "WECHAT_API_BASE_URL": "https://api.weixin.qq.com",
    }
    environ = environment.demo_environ(user, tmp_path)

    assert environ["PATH"] == "/bin"
    assert not {"DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL"} & environ.keys()
    assert environ["DJANGO_SECRET_KEY"] != "the live one"
    assert environ["WECHAT_API_BASE_URL"].startswith("http://127.0.0.1:")


def test_environment__real_wechat_is_left_as_the_user_set_it(tmp_path: Path) -> None:
    user = {"WECHAT_APPID": APPID, "WECHAT_SECRET": SECRET}
    assert "WECHAT_API_BASE_URL" not in environment.demo_environ(user, tmp_path)


def test_children__one_that_ends_by_itself_is_reported_with_its_log(tmp_path: Path) -> None:
    with processes.Children(tmp_path) as children:
        children.start("web server", "-c", "print('no room'); raise SystemExit(3)")
        children.running[0].process.wait(20)
        with pytest.raises(CommandError, match=r"^The web server ended by itself \(exit code 3\).*:\n  no room$"):
            children.check()


def test_children__stubborn_one_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    children = processes.Children(tmp_path)
    children.start(
        "Celery worker",
        "-c",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
    )
    [child] = children.running
    while "deaf" not in child.tail():
        time.sleep(0.02)
    children.stop()

    assert child.process.returncode == -signal.SIGKILL


def test_children__appsecret_is_not_handed_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WECHAT_SECRET", SECRET)
    with processes.Children(tmp_path) as children:
        children.start("web server", "-c", "import os; print(os.environ.get('WECHAT_SECRET'))")
        [child] = children.running
        child.process.wait(20)

    assert child.tail().strip() == "None"
