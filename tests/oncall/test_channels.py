"""How people are reached: each robot in its own format, hostile receivers, and no address where others could see it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import threading
import time as real_time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
import responses
from django.core import mail

from tests.conftest import START
from wechat_token.diagnosis import channels
from wechat_token.diagnosis.channels import Message
from wechat_token.diagnosis.problems import Problem, Severity
from wechat_token.diagnosis.telling import Event

CANARY = "canary-4f9a7c1e-webhook-key"
PROBLEM = Problem(
    "whitelist/203.0.113.9", Severity.CRITICAL, "206 accounts: 40164", ("Add it.", "Wait."), 206, ("wxa", "wxb", "wxc")
)
BROKEN = Message(Event.BROKEN, PROBLEM.id, PROBLEM.text, START, START, PROBLEM)
OVER = Message(Event.OVER, PROBLEM.id, PROBLEM.text, START, START)

WECOM = f"https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={CANARY}"
DINGTALK = f"https://oapi.dingtalk.com/robot/send?access_token={CANARY}"
FEISHU = f"https://open.feishu.cn/open-apis/bot/v2/hook/{CANARY}"
PLAIN = f"http://10.0.0.5:8080/{CANARY}?token={CANARY}"


@pytest.fixture
def told(settings, time):
    """Send to one webhook; why it failed, '' if it did not."""

    def tell(hook, message=BROKEN):
        settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "ALERT_WEBHOOKS": [hook]}
        (channel,) = channels.configured()
        assert CANARY not in repr(channel)
        return channels.try_to_send(channel, message)

    return tell


@pytest.fixture
def net():
    with responses.RequestsMock() as net:
        yield net


def sent(net):
    (call,) = net.calls
    return call.request, json.loads(call.request.body)


@pytest.mark.parametrize(
    ("url", "answer", "path"),
    [
        (WECOM, {"errcode": 0, "errmsg": "ok"}, ("text", "content")),
        (DINGTALK, {"errcode": 0, "errmsg": "ok"}, ("text", "content")),
        (FEISHU, {"code": 0, "msg": "success"}, ("content", "text")),
        (FEISHU, {"StatusCode": 0, "StatusMessage": "success"}, ("content", "text")),
    ],
)
def test_robots__get_their_own_format(told, net, url, answer, path):
    net.post(url, json=answer)
    assert told(url) == ""
    _request, body = sent(net)
    text = body
    for name in path:
        text = text[name]
    assert text.splitlines()[:3] == ["206 accounts: 40164", "1. Add it.", "2. Wait."]
    assert "docs/operations.md#whitelist" in text


def test_wecom__cuts_a_long_text_between_characters(told, net):
    net.post(WECOM, json={"errcode": 0})
    long = Problem("x", Severity.WARNING, "账号" * 2000)
    assert told(WECOM, Message(Event.BROKEN, "x", long.text, START, START, long)) == ""
    text = sent(net)[1]["text"]["content"]
    assert 1990 < len(text.encode()) <= 2048


def test_dingtalk__is_signed(told, net):
    net.post("https://oapi.dingtalk.com/robot/send", json={"errcode": 0})
    assert told({"url": DINGTALK, "secret": "SEC-canary"}) == ""
    query = parse_qs(urlsplit(sent(net)[0].url).query)
    (stamp,) = query["timestamp"]
    expected = hmac.new(b"SEC-canary", f"{stamp}\nSEC-canary".encode(), hashlib.sha256).digest()
    assert query["sign"] == [base64.b64encode(expected).decode()]
    assert stamp == str(int(START.timestamp()) * 1000)


def test_feishu__is_signed(told, net):
    net.post(FEISHU, json={"code": 0})
    assert told({"url": FEISHU, "secret": "canary"}) == ""
    body = sent(net)[1]
    expected = hmac.new(f"{body['timestamp']}\ncanary".encode(), b"", hashlib.sha256).digest()
    assert body["sign"] == base64.b64encode(expected).decode()


def test_plain__gets_documented_fields(told, net):
    net.post(PLAIN, status=204)
    assert told(PLAIN) == ""
    assert sent(net)[1] == {
        "event": "broken",
        "cause": "whitelist/203.0.113.9",
        "severity": "critical",
        "text": "206 accounts: 40164",
        "steps": ["Add it.", "Wait."],
        "count": 206,
        "examples": ["wxa", "wxb", "wxc"],
        "runbook": "docs/operations.md#whitelist",
        "host": channels.host_name(),
        "since": "2026-03-02T04:00:00+00:00",
        "at": "2026-03-02T04:00:00+00:00",
    }


def test_plain__is_told_the_end(told, net):
    net.post(PLAIN, body="thanks")
    assert told(PLAIN, OVER) == ""
    body = sent(net)[1]
    assert (body["event"], body["text"], body["severity"]) == ("over", "Over: 206 accounts: 40164", None)


@pytest.mark.parametrize(
    ("url", "answer", "wrong"),
    [
        (WECOM, {"json": {"errcode": 93000, "errmsg": f"invalid webhook url {CANARY}"}}, "errcode 93000"),
        (FEISHU, {"json": {"code": 19021, "msg": CANARY}}, "errcode 19021"),
        (FEISHU, {"json": {"code": CANARY * 9}}, "errcode canary"),
        (WECOM, {"json": ["errcode"]}, "an answer that is not this robot's"),
        (WECOM, {"json": {}}, "an answer that is not this robot's"),
        (WECOM, {"body": "<html>login"}, "an answer that is not this robot's"),
        (WECOM, {"status": 500, "json": {"errcode": 0}}, "HTTP 500"),
        (PLAIN, {"status": 500}, "HTTP 500"),
        (PLAIN, {"status": 302, "headers": {"Location": "http://elsewhere.example/"}}, "HTTP 302"),
        (PLAIN, {"status": 404}, "HTTP 404"),
    ],
)
def test_webhook__an_answer_that_is_no_success(told, net, url, answer, wrong):
    net.post(url, **answer)
    found = told(url)
    assert found.startswith(wrong)
    assert CANARY not in found


def test_mail__goes_to_all_of_them_in_one(settings, time):
    settings.WECHAT_TOKEN = {"ALERT_EMAILS": ["oncall@example.com", "second@example.com"]}
    assert channels.send(BROKEN) == {"mail"}
    (letter,) = mail.outbox
    assert letter.to == ["oncall@example.com", "second@example.com"]
    assert letter.subject == "[wechat_token] 206 accounts: 40164"
    assert "2. Wait." in letter.body


def test_mail__that_fails_is_a_failure_without_its_text(settings, time, monkeypatch):
    def fail(self):
        raise OSError(f"cannot log in with {CANARY}")

    settings.WECHAT_TOKEN = {"ALERT_EMAILS": ["oncall@example.com"]}
    monkeypatch.setattr(channels.EmailMessage, "send", fail)
    (channel,) = channels.configured()
    assert channels.try_to_send(channel, BROKEN) == "OSError"


def test_mail__server_that_hangs_is_left_in_time(settings, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(channels, "MAIL_SECONDS", 0.2)
    monkeypatch.setattr(channels, "aside", lambda name, work: threading.Thread(target=work, daemon=True).start())
    monkeypatch.setattr(channels.EmailMessage, "send", lambda self: over.wait(5))
    settings.WECHAT_TOKEN = {"ALERT_EMAILS": ["oncall@example.com"]}
    (channel,) = channels.configured()
    began = real_time.monotonic()
    assert "no end within" in channels.try_to_send(channel, BROKEN)
    assert real_time.monotonic() - began < 1.0
    over.set()


def test_send__leaves_out_who_has_it(settings, time, net):
    settings.WECHAT_TOKEN = {"ALERT_EMAILS": ["oncall@example.com"], "ALERT_WEBHOOKS": [PLAIN]}
    assert channels.send(BROKEN, but={channel.id for channel in channels.configured()}) == set()


# -- a real receiver -------------------------------------------------------------------------------


@contextmanager
def receiver(answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(self.path)
            answer(self)

        def log_message(self, *args):
            pass

    requests: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook/{CANARY}?key={CANARY}"
        assert requests in ([], [f"/hook/{CANARY}?key={CANARY}"])
    finally:
        server.shutdown()
        server.server_close()


def hang(handler):
    real_time.sleep(1.0)


def drip(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        real_time.sleep(0.04)


def accept(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@pytest.fixture
def really_told(settings, monkeypatch):
    monkeypatch.setattr(channels, "WEBHOOK_SECONDS", 0.3)

    def tell(url):
        settings.WECHAT_TOKEN = {"ALERT_WEBHOOKS": [url]}
        (channel,) = channels.configured()
        return channels.try_to_send(channel, BROKEN)

    return tell


def test_receiver__on_a_private_address_is_the_operators_choice(really_told):
    with receiver(accept) as url:
        assert really_told(url) == ""


@pytest.mark.parametrize("answer", [hang, drip])
def test_receiver__that_does_not_come_to_an_end_is_left_in_time(really_told, answer):
    with receiver(answer) as url:
        began = real_time.monotonic()
        wrong = really_told(url)
    assert real_time.monotonic() - began < 0.9
    assert "no complete answer from webhook 1 within 0.3 s" in wrong


def test_receiver__nobody_sees_its_address(really_told, caplog):
    """Neither path nor query, at DEBUG, whether it answers or not."""
    with caplog.at_level(logging.DEBUG), receiver(accept) as url:
        assert really_told(url) == ""
        assert "webhook 1" in really_told("http://127.0.0.1:9/" + CANARY)
    assert CANARY not in "\n".join(f"{record.getMessage()} {record.exc_info}" for record in caplog.records)
