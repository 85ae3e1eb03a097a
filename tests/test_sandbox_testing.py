"""The fake under ``requests``, in memory: what users' tests are built on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests

import wechat_token
from wechat_token.sandbox import FakeWeChat, Fault, inprocess
from wechat_token.sandbox.testing import fake_wechat

APPID = "wx0123456789abcdef"
SECRET = "in-memory-test-secret"
BASE = "https://api.weixin.qq.com"
TOKEN_QUERY = {"grant_type": "client_credential", "appid": APPID, "secret": SECRET}


@pytest.fixture
def fake():
    with fake_wechat(seed=7) as fake:
        fake.add_account(APPID, SECRET)
        yield fake


def classic(timeout=5):
    return requests.get(f"{BASE}/cgi-bin/token", params=TOKEN_QUERY, timeout=timeout)


def test_fake_wechat__answers_requests(fake):
    answer = classic()

    assert answer.headers["Content-Type"] == "application/json; encoding=utf-8"
    assert fake.is_valid(answer.json()["access_token"])


def test_fake_wechat__reads_posted_json(fake):
    answer = requests.post(f"{BASE}/cgi-bin/stable_token", json=TOKEN_QUERY, timeout=5)

    assert fake.is_valid(answer.json()["access_token"])


def test_fake_wechat__lets_nothing_else_out(fake):
    with pytest.raises(requests.ConnectionError, match="refused by Responses"):
        requests.get("https://example.org/", timeout=5)
    with pytest.raises(requests.ConnectionError, match="refused by Responses"):
        requests.get("https://api.weixin.qq.com.example.org/cgi-bin/token", timeout=5)


def test_fake_wechat__stands_in_for_another_address():
    with fake_wechat(base_url="http://127.0.0.1:1/") as fake:
        answer = requests.get("http://127.0.0.1:1/cgi-bin/nothing", timeout=5)

    assert answer.json()["errcode"] == 40066
    assert fake.calls[-1].endpoint == "unknown"


def test_fake_wechat__takes_a_fake_or_options():
    mine = FakeWeChat()
    with fake_wechat(mine) as fake:
        assert fake is mine
    with pytest.raises(TypeError), fake_wechat(mine, seed=1):
        pass


@pytest.mark.parametrize(
    ("kind", "expected", "issued"),
    [
        ("lost_before", requests.ConnectionError, 0),
        ("lost_after", requests.ConnectionError, 1),
        ("refused", requests.ConnectionError, 0),
        ("hang_before", requests.ReadTimeout, 0),
        ("hang_after", requests.ReadTimeout, 1),
        ("slow", requests.ReadTimeout, 1),
        ("drip", requests.ReadTimeout, 1),
        ("cut", requests.exceptions.ChunkedEncodingError, 1),
    ],
)
def test_wire__becomes_the_exception_of_requests(fake, kind, expected, issued):
    fake.inject(Fault(kind, seconds=6))

    with pytest.raises(expected) as caught:
        classic(timeout=(9, 5))  # to connect, to read
    assert type(caught.value) is expected
    assert caught.value.request.url.startswith(BASE)
    assert fake.issued(APPID) == issued


@pytest.mark.parametrize(
    ("kind", "innermost"),
    [("lost_after", ConnectionResetError), ("refused", ConnectionRefusedError), ("hang_after", TimeoutError)],
)
def test_wire__leads_to_the_error_of_the_socket(fake, kind, innermost):
    fake.inject(Fault(kind))

    with pytest.raises(requests.RequestException) as caught:
        classic()
    root = caught.value
    while root.__cause__ is not None:
        root = root.__cause__
    assert type(root) is innermost


def test_wire__refused_names_the_url_as_in_real_life(fake):
    fake.inject(Fault("refused"))

    with pytest.raises(requests.ConnectionError, match=SECRET):
        classic()


@pytest.mark.parametrize(("kind", "timeout"), [("slow", 7), ("slow", None), ("drip", None)])
def test_wire__in_time_arrives_at_once(fake, kind, timeout):
    fake.inject(Fault(kind, seconds=6))

    assert fake.is_valid(classic(timeout=timeout).json()["access_token"])


def test_wire__hang_never_arrives(fake):
    fake.inject(Fault("hang_after"))

    with pytest.raises(requests.ReadTimeout):
        classic(timeout=None)


def test_wire__huge_is_padded_json(fake):
    fake.inject(Fault("huge", size=100_000))
    answer = classic()

    assert len(answer.content) > 100_000
    assert fake.is_valid(answer.json()["access_token"])


def test_inprocess__can_come_from_any_address():
    fake = FakeWeChat()
    fake.add_account(APPID, SECRET, ip_whitelist=["192.0.2.1"])
    request = requests.Request("GET", f"{BASE}/cgi-bin/token", params=TOKEN_QUERY).prepare()

    assert inprocess.send(fake, request).json()["errcode"] == 40164
    assert "access_token" in inprocess.send(fake, request, remote_ip="192.0.2.1").json()


def test_plugin__gives_a_fixture_without_django(tmp_path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["wechat_token.sandbox.pytest_plugin"]\n')
    (tmp_path / "test_users_code.py").write_text(
        "import sys, requests\n"
        "def test_fixture(fake_wechat):\n"
        "    answer = requests.get('https://api.weixin.qq.com/cgi-bin/user/info', timeout=1)\n"
        "    assert answer.json()['errcode'] == 41001\n"
        "    assert len(fake_wechat.calls) == 1\n"
        "    assert 'django.conf' not in sys.modules\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", str(tmp_path)]
    environment = os.environ | {
        "PYTHONPATH": str(Path(wechat_token.__file__).parents[1]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # pytest-django would bring Django
    }
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert "1 passed" in run.stdout, run.stdout + run.stderr
