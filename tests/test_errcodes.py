from __future__ import annotations

import pytest
from django.utils.translation import override

from wechat_token.exceptions import AnswerError, APIError, ErrorClass, TransportError
from wechat_token.platforms import errcodes
from wechat_token.platforms.official_account import OfficialAccountAccessToken

SOURCE = OfficialAccountAccessToken()
T, Q, H = ErrorClass.TRANSIENT, ErrorClass.QUOTA, ErrorClass.HUMAN

CLASSES = {
    -1: T,
    **dict.fromkeys([40001, 40013, 40125, 40164, 40243, 48017, 50004, 50007, 61004, 61005, 61006, 61011], H),
    **dict.fromkeys([89501, 89502, 89503, 89504, 89505, 89506, 89507], H),
    **dict.fromkeys([40002, 41002, 41004, 43002, 44002, 47001, 61024], H),  # our request is wrong: somebody must look
    **dict.fromkeys([45009, 45011, 48006], Q),
}


def test_table__holds_the_documented_codes() -> None:
    assert {code: meaning.error_class for code, meaning in errcodes.FETCHING.items()} == CLASSES


def test_lookup__unknown() -> None:
    assert SOURCE.lookup(12345).error_class is ErrorClass.UNKNOWN


@pytest.mark.parametrize(("code", "seconds"), [(89507, 3600), (89506, 86_400), (45009, None), (-1, None)])
def test_lookup__retry_after(code: int, seconds: float | None) -> None:
    assert SOURCE.lookup(code).retry_after == seconds


def test_lookup__minute_limit_waits_just_over_a_minute() -> None:
    assert 60 < (SOURCE.lookup(45011).retry_after or 0) < 90


@pytest.mark.parametrize("code", [*CLASSES, 12345])
def test_meaning__texts_are_whole(code: int) -> None:
    meaning = SOURCE.lookup(code)
    with override("en"):
        texts = [str(meaning.summary), str(meaning.action), meaning.advise(), meaning.advise("203.0.113.7")]
    for text in texts:
        assert text.endswith(".")
        assert "%" not in text


@pytest.mark.parametrize("code", [40164, 61004])
def test_advise__names_the_address_to_whitelist(code: int) -> None:
    with override("en"):
        assert "203.0.113.7" in SOURCE.lookup(code).advise("203.0.113.7")
        assert "this server's public IP address" in SOURCE.lookup(code).advise()


def test_advise__address_where_it_does_not_matter() -> None:
    with override("en"):
        assert "203.0.113.7" not in SOURCE.lookup(40125).advise("203.0.113.7")


def test_explain() -> None:
    refused = APIError("…", error_class=H, errcode=40125)
    garbage = AnswerError("…", error_class=T)
    silence = TransportError("…", may_have_issued=True)
    assert [SOURCE.explain(error) for error in (refused, garbage, silence)] == [
        SOURCE.lookup(40125),
        errcodes.UNUSABLE_ANSWER,
        errcodes.NO_ANSWER,
    ]


@pytest.mark.parametrize(
    ("errmsg", "address"),
    [
        ("invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist rid: 61a2-7b-cc", "203.0.113.7"),
        ("invalid ip 203.0.113.7, not in whitelist hint: [abc]", "203.0.113.7"),
        ("invalid ip ::ffff:203.0.113.7, not in whitelist", "203.0.113.7"),
        ("invalid ip 2001:db8::7, not in whitelist", "2001:db8::7"),
        ("access clientip is not registered requestIP: 203.0.113.7 rid: 61a2-7b-cc", "203.0.113.7"),
        ("access clientip is not registered requestIP: 203.0.113.7.", "203.0.113.7"),
        ("invalid ip 999.1.1.1, not in whitelist", ""),
        ("invalid ip address", ""),
        ("invalid credential", ""),
        ("", ""),
    ],
)
def test_find_egress_ip(errmsg: str, address: str) -> None:
    assert errcodes.find_egress_ip(errmsg) == address


def test_dead_token_codes__are_those_of_section_7_2() -> None:
    assert {40001, 40014, 42001} == errcodes.DEAD_TOKEN_CODES
