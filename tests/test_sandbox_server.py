"""The sandbox over real HTTP on loopback: faults on the wire, the controls, the page, the command."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pytest
import requests

from wechat_token.sandbox import FakeWeChat, FakeWeChatServer, Fault, ManualClock
from wechat_token.sandbox.__main__ import main

APPID = "wx0123456789abcdef"
SECRET = "server-test-secret"
TOKEN_QUERY = {"grant_type": "client_credential", "appid": APPID, "secret": SECRET}
SHORT = 0.2  # seconds a client here waits for an answer that never comes


@pytest.fixture(scope="module")
def server():
    with FakeWeChatServer(FakeWeChat(ManualClock(), seed=7)) as server:
        server.fake.add_account(APPID, SECRET, classic_daily=100_000)
        yield server


@pytest.fixture
def fake(server):
    yield server.fake
    server.fake.clear_faults()
    server.fake.set_life(7200)


@pytest.fixture
def client():
    with new_client() as client:
        yield client


def new_client():
    client = requests.Session()
    client.trust_env = False  # a proxy from the environment would not reach loopback
    return client


def classic(client, server, **options):
    return client.get(f"{server.url}/cgi-bin/token", params=TOKEN_QUERY, **{"timeout": 5, **options})


def control(client, server, action, **parameters):
    return client.post(f"{server.url}/_sandbox/{action}", json=parameters, timeout=5)


def read(client, server, action, **parameters):
    return client.get(f"{server.url}/_sandbox/{action}", params=parameters, timeout=5).json()


# -- plain HTTP


def test_server__answers_as_the_fake_does(client, server, fake):
    answer = classic(client, server)

    assert answer.headers["Content-Type"] == "application/json; encoding=utf-8"
    assert fake.is_valid(answer.json()["access_token"])
    assert fake.calls[-1].remote == "127.0.0.1"


def test_server__reads_posted_bodies(client, server, fake):
    answer = client.post(f"{server.url}/cgi-bin/stable_token", json=TOKEN_QUERY, timeout=5)

    assert fake.is_valid(answer.json()["access_token"])


def test_server__keeps_connections_alive(server, fake):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    ports = set()
    for _ in range(3):
        connection.request("GET", "/cgi-bin/get_api_domain_ip")
        ports.add(connection.sock.getsockname()[1])
        assert json.loads(connection.getresponse().read())["errcode"] == 41001
    connection.close()

    assert len(ports) == 1


def test_server__dates_answers_by_the_fakes_clock(client, server, fake):
    shown = parsedate_to_datetime(classic(client, server).headers["Date"])

    assert shown.timestamp() == int(fake.now())


def test_server__refuses_bodies_of_unknown_length(client, server):
    answer = client.post(f"{server.url}/cgi-bin/stable_token", data=iter([b"{}"]), timeout=5)

    assert answer.status_code == 400


def test_server__serves_a_herd(server, fake):
    address = ("127.0.0.1", urlsplit(server.url).port)
    request = b"GET /cgi-bin/get_api_domain_ip HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    herd = [socket.create_connection(address, timeout=5) for _ in range(200)]
    for member in herd:
        member.sendall(request)
    answers = [member.makefile("rb").readline() for member in herd]
    for member in herd:
        member.close()

    assert answers == [b"HTTP/1.1 200 OK\r\n"] * 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::"])
def test_server__listens_on_loopback_only(host):
    with pytest.raises(ValueError, match="loopback"):
        FakeWeChatServer(FakeWeChat(), host=host)


def test_server__stop_cuts_idle_connections_and_frees_the_port():
    server = FakeWeChatServer(FakeWeChat()).start()
    port = urlsplit(server.url).port
    with socket.create_connection(("127.0.0.1", port), timeout=5) as idle:
        idle.sendall(b"HEAD /cgi-bin/token HTTP/1.1\r\n\r\n")
        assert idle.recv(65_536).startswith(b"HTTP/1.1 200")
        server.stop()
        server.stop()
        assert idle.recv(1) == b""
    with FakeWeChatServer(FakeWeChat(), port=port) as again:
        assert urlsplit(again.url).port == port
    with pytest.raises(RuntimeError):
        _ = again.url


def test_server__starts_once(server):
    with pytest.raises(RuntimeError, match="already"):
        server.start()


def test_server__listens_on_ipv6_loopback(client):
    server = FakeWeChatServer(FakeWeChat(), host="::1")
    try:
        server.start()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    try:
        answer = client.get(f"{server.url}/cgi-bin/get_api_domain_ip", timeout=5)
    finally:
        server.stop()

    assert server.fake.calls[0].remote == "::1"
    assert answer.json()["errcode"] == 41001


def test_server__is_quiet_about_peers_that_hang_up(capfd):
    with FakeWeChatServer(FakeWeChat()) as server:
        server.fake.inject(Fault("huge", size=20_000_000))
        with socket.create_connection(("127.0.0.1", urlsplit(server.url).port), timeout=5) as peer:
            peer.sendall(b"GET /cgi-bin/token HTTP/1.1\r\n\r\n")
            assert peer.recv(1)

    assert capfd.readouterr().err == ""


def test_server__reports_what_is_no_network_error(capfd, monkeypatch):
    with FakeWeChatServer(FakeWeChat()) as server:
        monkeypatch.setattr(server.fake, "handle", lambda *args: 1 / 0)
        with pytest.raises(requests.ConnectionError), new_client() as client:
            client.get(f"{server.url}/cgi-bin/token", timeout=5)

    assert "ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["hang_before", "slow", "drip"])
def test_server__stop_ends_an_unfinished_answer(kind):
    server = FakeWeChatServer(FakeWeChat()).start()
    server.fake.inject(Fault(kind, seconds=600))
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port), timeout=5) as client:
        client.sendall(b"GET /cgi-bin/token HTTP/1.1\r\n\r\n")
        while not server.fake.calls:
            time.sleep(0.005)
        started = time.monotonic()
        server.stop()

    assert time.monotonic() - started < 2


# -- faults on the wire


@pytest.mark.parametrize(("kind", "issued"), [("lost_before", 0), ("lost_after", 1), ("refused", 0)])
def test_wire__reset(client, server, fake, kind, issued):
    before = fake.issued(APPID)
    fake.inject(Fault(kind))

    with pytest.raises(requests.ConnectionError) as caught:
        classic(client, server)
    assert isinstance(caught.value.args[0].args[1], ConnectionResetError)
    assert fake.issued(APPID) - before == issued


@pytest.mark.parametrize("kind", ["hang_before", "hang_after", "slow"])
def test_wire__silence(client, server, fake, kind):
    fake.inject(Fault(kind, seconds=2 * SHORT))

    with pytest.raises(requests.ReadTimeout):
        classic(client, server, timeout=SHORT)


def test_wire__hang_ends_without_an_answer(client, server, fake):
    fake.inject(Fault("hang_after", seconds=0.01))

    with pytest.raises(requests.ConnectionError):
        classic(client, server)


def test_wire__slow_arrives_whole(client, server, fake):
    fake.inject(Fault("slow", seconds=0.05))
    answer = classic(client, server)

    assert answer.elapsed.total_seconds() >= 0.05
    assert fake.is_valid(answer.json()["access_token"])


def test_wire__drip_outlasts_the_timeout_of_single_reads(client, server, fake):
    fake.inject(Fault("drip", seconds=0.003))
    started = time.monotonic()
    answer = classic(client, server, timeout=0.3)

    assert time.monotonic() - started > 0.3
    assert fake.is_valid(answer.json()["access_token"])


def test_wire__huge_is_padded_json(client, server, fake):
    fake.inject(Fault("huge", size=200_000))
    answer = classic(client, server)

    assert len(answer.content) > 200_000
    assert fake.is_valid(answer.json()["access_token"])


def test_wire__cut_ends_before_the_announced_length(client, server, fake):
    fake.inject(Fault("cut"))

    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        classic(client, server)


def test_wire__redirect_and_gateway_page(client, server, fake):
    fake.inject(Fault("redirect"))
    fake.inject(Fault("status"))
    first, second = (classic(client, server, allow_redirects=False) for _ in range(2))

    assert (first.status_code, first.headers["Location"]) == (307, "http://127.0.0.1:9/redirected")
    assert (second.status_code, second.text[:6]) == (502, "<html>")


def test_wire__late_answer_overtaken_by_a_newer_one(client, server, fake):
    fake.inject(Fault("slow", seconds=0.5))
    late = []

    def wait_for_the_late_answer():
        with new_client() as other:
            late.append(classic(other, server).json()["access_token"])

    thread = threading.Thread(target=wait_for_the_late_answer)
    calls = len(fake.calls)
    thread.start()
    while len(fake.calls) == calls:
        time.sleep(0.005)
    newer = classic(client, server).json()["access_token"]
    assert not late
    thread.join()

    after_overlap = fake.now() + 300
    assert fake.is_valid(newer, at=after_overlap)
    assert not fake.is_valid(late[0], at=after_overlap)


# -- controls


def test_control__kill_and_judge_a_token(client, server, fake):
    token = classic(client, server).json()["access_token"]
    assert control(client, server, "is_valid", token=token).json() == {"result": True}
    assert control(client, server, "kill_token", appid=APPID).json() == {"ok": True}

    assert control(client, server, "is_valid", token=token).json() == {"result": False}


def test_control__inject_life_and_outage(client, server, fake):
    control(client, server, "inject", kind="error", errcode=50004, endpoint="classic")
    assert classic(client, server).json()["errcode"] == 50004
    control(client, server, "set_life", seconds=60)
    assert classic(client, server).json()["expires_in"] == 60
    control(client, server, "outage", seconds=30, fault={"kind": "status", "status": 503})
    assert classic(client, server).status_code == 503
    control(client, server, "outage", on=False)

    assert classic(client, server).status_code == 200


def test_control__outage_ends_after_its_seconds(client, server, fake):
    control(client, server, "outage", seconds=30, fault={"kind": "status"})
    fake._clock.advance(30)

    assert classic(client, server).status_code == 200


def test_control__accounts_come_and_change(client, server, fake):
    control(client, server, "add_account", appid="wxnew", secret="one")
    control(client, server, "reset_secret", appid="wxnew", secret="two")
    control(client, server, "freeze", appid="wxnew")
    control(client, server, "set_ip_whitelist", appid="wxnew", entries=["192.0.2.1"])
    control(client, server, "foreign_refresh", appid="wxnew")

    assert read(client, server, "issued", appid="wxnew") == {"result": 1}
    assert read(client, server, "calls_to", appid="wxnew", endpoint="classic") == {"result": 1}
    assert read(client, server, "valid_intervals", appid="wxnew")["result"][0]["serial"] == 1
    shown = next(a for a in read(client, server, "state")["result"]["accounts"] if a["appid"] == "wxnew")
    assert shown["frozen"]
    assert shown["classic"] == {"serial": 1, "ends_in": 7200.0}
    assert shown["used_today"]["classic"] == 1


def test_control__calls_are_limited_to_the_last_ones(client, server, fake):
    classic(client, server)
    last = read(client, server, "calls", limit=1)["result"]

    assert [(call["endpoint"], call["errcode"]) for call in last] == [("classic", 0)]


@pytest.mark.parametrize(
    ("action", "parameters", "status"),
    [
        ("kill_token", {"appid": "wxunknown"}, 404),
        ("no_such_action", {}, 404),
        ("kill_token", {"who": APPID}, 400),
        ("inject", {"kind": "novel"}, 400),
        ("set_life", {"seconds": "long"}, 400),
        ("state", {}, 405),
    ],
)
def test_control__refuses_with_a_status(client, server, fake, action, parameters, status):
    answer = control(client, server, action, **parameters)

    assert answer.status_code == status
    assert answer.json()["error"]


def test_control__body_must_be_an_object(client, server):
    for body in (b"[1]", b"{", b"\xff"):
        assert client.post(f"{server.url}/_sandbox/clear_faults", data=body, timeout=5).status_code == 400


def test_control__says_when_wechat_would_refuse(client, server, fake):
    control(client, server, "add_account", appid="wxpoor", secret="x", classic_daily=0)
    answer = control(client, server, "foreign_refresh", appid="wxpoor")

    assert (answer.status_code, answer.json()["errcode"]) == (409, 45009)


def test_control__is_closed_to_web_pages(client, server):
    answer = client.get(f"{server.url}/_sandbox/state", headers={"Origin": "http://evil.test"}, timeout=5)

    assert answer.status_code == 403


def test_page_and_state__show_no_secret(client, server, fake):
    token = classic(client, server).json()["access_token"]
    page = client.get(f"{server.url}/", timeout=5).text
    shown = page + json.dumps([read(client, server, action) for action in ("state", "calls")])

    assert APPID in page
    assert SECRET not in shown
    assert token not in shown


def test_page__escapes_what_it_shows(client, server, fake):
    fake.add_account("<b>", "x")

    assert "<td><b>" not in client.get(f"{server.url}/", timeout=5).text


# -- the command


def test_command__serves_and_ends_by_itself(capsys):
    assert main(["--port", "0", "--seconds", "0", "--account", f"{APPID}:{SECRET}"]) == 0

    said = capsys.readouterr().out
    assert said.startswith("Sandbox WeChat at http://127.0.0.1:")
    assert APPID in said
    assert SECRET not in said


def test_command__secret_from_the_environment_is_not_printed(capsys, monkeypatch):
    monkeypatch.setenv("WECHAT_SANDBOX_SECRET", SECRET)
    main(["--port", "0", "--seconds", "0"])

    said = capsys.readouterr().out
    assert "secret from $WECHAT_SANDBOX_SECRET" in said
    assert SECRET not in said


def test_command__taken_port_is_one_line_and_exit_code_2(server, capsys):
    port = str(urlsplit(server.url).port)

    assert main(["--port", port, "--seconds", "0"]) == 2
    assert capsys.readouterr().err == f"cannot listen on 127.0.0.1 port {port}: Address already in use\n"


@pytest.mark.parametrize(
    "arguments",
    [["--host", "0.0.0.0"], ["--port", "70000"], ["--life", "0"], ["--account", ":x"]],
)
def test_command__wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)

    assert stopped.value.code == 2


def test_command__runs_as_a_process_with_a_secret_made_up():
    process = subprocess.Popen(
        [sys.executable, "-m", "wechat_token.sandbox", "--port", "0", "--life", "60"],
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "WECHAT_SANDBOX_SECRET"},
    )
    with process, new_client() as client:
        url = process.stdout.readline().split()[3]
        secret = process.stdout.readline().split()[-1]
        query = {"grant_type": "client_credential", "appid": APPID, "secret": secret}
        answer = client.get(f"{url}/cgi-bin/token", params=query, timeout=5).json()
        process.terminate()

        assert answer["expires_in"] == 60
        assert process.wait(30) == 0
