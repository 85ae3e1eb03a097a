"""Security events: one line and one signal each, with nothing in them that was not meant to be there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Time
from wechat_token import security, signals
from wechat_token.redaction import Secret, one_line


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    logger, handler, records = logging.getLogger("wechat_token.security"), logging.Handler(), []
    monkeypatch.setattr(handler, "emit", records.append)
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "level", logging.INFO)
    yield records
    logger.removeHandler(handler)


def told(name: str, /, **fields: Any) -> list[dict[str, Any]]:
    heard: list[dict[str, Any]] = []

    def hear(**kwargs: Any) -> None:
        heard.append(kwargs)

    signals.security_event.connect(hear)
    try:
        security.event(name, **fields)
    finally:
        signals.security_event.disconnect(hear)
    return heard


def test_event__is_a_line_and_a_signal(db: None, lines: list[logging.LogRecord]) -> None:
    (heard,) = told("key_made", key="AbCd", name="crm shop", may_complain=True, accounts={"wxb", "wxa"}, address=None)
    fields = {"key": "AbCd", "name": "crm shop", "may_complain": "yes", "accounts": "wxa,wxb"}
    assert (heard["name"], heard["fields"], heard["sender"]) == ("key_made", fields, None)
    (record,) = lines
    assert record.getMessage() == 'event=key_made key=AbCd name="crm shop" may_complain=yes accounts=wxa,wxb'
    assert (record.event, record.fields) == ("key_made", fields)


def test_event__cannot_be_forged_by_a_field(db: None, lines: list[logging.LogRecord]) -> None:
    security.event("key_made", name='x" event=token_read key="y\nevent=z \\')
    text = lines[0].getMessage()
    assert text == r'event=key_made name="x\" event=token_read key=\"y\\nevent=z \\"'


def test_event__shows_no_secret_that_was_handed_in(db: None, lines: list[logging.LogRecord]) -> None:
    (heard,) = told("token_read", token=Secret("canary-token-of-the-shop"))
    assert "canary" not in lines[0].getMessage() + repr(vars(lines[0])) + repr(heard)


def test_event__survives_a_receiver_that_fails(db: None, lines: list[logging.LogRecord]) -> None:
    def fail(**kwargs: Any) -> None:
        raise ValueError

    signals.security_event.connect(fail)
    try:
        security.event("token_revealed", user="boss")
    finally:
        signals.security_event.disconnect(fail)
    assert "event=token_revealed user=boss" in [record.getMessage() for record in lines]


def test_event__that_strangers_cause_is_limited_by_cause(db: None, time: Time, lines: list[logging.LogRecord]) -> None:
    for _ in range(50):
        security.event("account_refused", key="loud")
    security.event("account_refused", key="calm")
    assert [record.fields["key"] for record in lines] == ["loud"] * security.PER_MINUTE + ["calm"]
    time.pass_(61)
    security.event("account_refused", key="loud")
    assert lines[-1].fields["left_out"] == "40"


def test_event__that_strangers_cause_is_limited_altogether(
    db: None, time: Time, lines: list[logging.LogRecord]
) -> None:
    for number in range(500):
        security.event("login_failed", address=f"192.0.2.{number}")
    assert len(lines) == security.ALTOGETHER


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\r\x1b[2J", r"a\nb\r\x1b[2J"),
        ("\u202egnp", r"\u202egnp"),
        ("\ud800", r"\ud800"),
        ("微信　商城 👨‍👩‍👧", "微信　商城 👨‍👩‍👧"),
        (ValueError("a\nb"), r"a\nb"),
    ],
)
def test_one_line__shows_what_would_act(text: object, line: str) -> None:
    assert one_line(text) == line


def test_one_line__has_an_end() -> None:
    assert len(one_line("x" * 1_000_000)) < 5_000
