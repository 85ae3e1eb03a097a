"""Client keys in the URLs of access logs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from urllib.parse import unquote

import pytest

from wechat_token.api import access_logs
from wechat_token.client_keys import keys
from wechat_token.redaction import MASK

KEY = keys.generate().reveal()
SHOWN = KEY[: len(keys.MARK) + keys.SHOWN_LENGTH]
PATH = f"/wechat/cgi-bin/token?grant_type=client_credential&appid=wx0123456789abcdef&secret={KEY}"
CALL = "/wechat/cgi-bin/token?secret={}&grant_type=client_credential"


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {vars(record)!r}")


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    handler = Lines()
    loggers = [logging.getLogger(name) for name in access_logs.LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield handler.lines
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_masked__keeps_the_start_by_which_the_admin_names_a_key() -> None:
    assert access_logs.masked(f"GET {PATH} HTTP/1.1") == f"GET {PATH} HTTP/1.1".replace(KEY, f"{SHOWN}{MASK}")


@pytest.mark.parametrize("secret", ["f3b18c6d0a972e45d1c8b7a60f9e5d34", "a%20b%26c", "wxt_tooShort"])
def test_masked__whatever_was_sent_in_the_place_of_a_key(secret: str) -> None:
    assert access_logs.masked(f'"GET {CALL.format(secret)}" 200') == f'"GET {CALL.format(MASK)}" 200'


@pytest.mark.parametrize(
    "line",
    [
        CALL.replace("secret", "%73ecret").format(KEY.replace("wxt", "%77x%74")),
        CALL.replace("secret", "s%65%63ret").format("".join(f"%{ord(char):02X}" for char in KEY)),
        CALL.replace("secret", "%2573ecret").format("".join(f"%25{ord(char):02x}" for char in KEY)),
        CALL.replace("cgi-bin/token", "cgi%2Dbin%2Ft%6Fken").replace("secret", "%73ecret").format("canary" * 5),
        f"Invalid request from ip=127.0.0.1: Invalid HTTP Header: 'Authorization Bearer {KEY}'",
        f"Invalid HTTP header name: 'AUTHORIZATION BEARER {KEY.upper()}'",
        f"Invalid HTTP Header: 'Authorization  bearer {'canary' * 5}'",
        f"Obsolete line folding is unacceptable: {KEY[:-3]!r}",
    ],
    ids=range(8),  # the key is another one in each process of xdist
)
def test_masked__however_it_is_spelled(line: str) -> None:
    shown = unquote(unquote(access_logs.masked(line))).lower()
    assert MASK in shown
    assert KEY[12:28].lower() not in shown
    assert "canarycanary" not in shown


@pytest.mark.parametrize(
    "line",
    [
        "GET /shop/?secret=sauce HTTP/1.1",
        "GET /wechat/health HTTP/1.1",
        "GET /%73ecret=5",
        "Bearer of news: wxt_short",
        "",
    ],
)
def test_masked__other_lines_are_left_alone(line: str) -> None:
    assert access_logs.masked(line) == line


def test_masked__parameter_without_a_value() -> None:
    assert access_logs.masked(CALL.format("")) == CALL.format(MASK)


@pytest.mark.parametrize("name", access_logs.LOGGERS)
def test_filter__lines_as_servers_write_them(name: str, lines: list[str]) -> None:
    logger = logging.getLogger(name)
    logger.info('"%s" %s %s', f"GET {PATH} HTTP/1.1", "200", "179")  # runserver
    atoms = {"r": f"GET {PATH} HTTP/1.1", "q": PATH.partition("?")[2], "{authorization}i": f"Bearer {KEY}", "B": 179}
    logger.info("%(r)s %(q)s %({authorization}i)s %(B)d", atoms)  # gunicorn
    logger.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:5000", "GET", PATH, "1.1", 200)  # uvicorn
    logger.info(f"GET {PATH}")  # noqa: G004  as a server might
    assert len(lines) == 4
    for line in lines:
        assert KEY not in line
        assert SHOWN in line


def test_filter__errors_that_quote_a_key(lines: list[str]) -> None:
    logger = logging.getLogger("gunicorn.error")
    try:
        raise ValueError(f"Invalid HTTP Header: 'Authorization {KEY}'")
    except ValueError as error:
        logger.exception("Error handling request %s", PATH)
        logger.warning("Invalid request: %s", error)
    assert len(lines) == 2
    assert not [line for line in lines if KEY in line]
    assert "ValueError: Invalid HTTP Header" in lines[0]


def test_filter__numbers_stay_numbers(lines: list[str]) -> None:
    logging.getLogger("gunicorn.access").info("%d %.3f", 200, 0.5)
    assert lines[0].startswith("200 0.500 ")


def test_filter__lines_without_arguments_pass(lines: list[str]) -> None:
    logging.getLogger("django.server").info("Broken pipe")
    assert lines[0].startswith("Broken pipe ")
