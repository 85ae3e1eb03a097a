"""Secrets that do not show themselves, and WeChat's texts made harmless."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import pprint
import time
from functools import partial
from urllib.parse import quote, quote_plus

import pytest

from wechat_token.redaction import MASK, Secret, clean_errmsg, find_rid, without

CANARY = "canary-7d1f0c3b9a5e4d2c8b6f"


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{!r:>60}".format,
        "{:.3}".format,
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031  the old way is one way to leak
        pprint.pformat,
        lambda secret: repr({"secret": [secret]}),
        lambda secret: json.dumps(secret, default=str),
        lambda secret: logging.LogRecord("x", 10, "f", 1, "%s", (secret,), None).getMessage(),
    ],
)
def test_secret__no_way_of_showing_it_gives_it_away(show):
    shown = show(Secret(CANARY))
    assert not any(CANARY[i : i + 4] in shown for i in range(len(CANARY) - 4))


@pytest.mark.parametrize(
    "use", [pickle.dumps, json.dumps, vars, hash, list, len, lambda s: s + "", lambda s: s.__getstate__()]
)
def test_secret__refusals_do_not_quote_it(use):
    with pytest.raises(TypeError) as caught:
        use(Secret(CANARY))
    assert CANARY not in str(caught.value)


def test_secret__copies_are_itself():
    secret = Secret(CANARY)
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"a": [secret]})["a"][0] is secret


def test_secret__equals_a_secret_with_the_same_text_only():
    assert Secret(CANARY) == Secret(CANARY)
    assert Secret(CANARY) != Secret(CANARY + "x")
    assert Secret(CANARY) != CANARY


def test_secret__half_a_surrogate_pair_can_be_compared():
    """An UnicodeEncodeError would carry the text in its ``object``."""
    assert Secret("\ud800") == Secret("\ud800")


def test_secret__empty_is_false_and_says_so():
    assert not Secret("")
    assert (str(Secret("")), repr(Secret(""))) == ("", "<Secret empty>")
    assert (str(Secret("x")), repr(Secret("x"))) == (MASK, f"<Secret {MASK}>")


# -- WeChat's texts

ERRMSG = "invalid credential, access_token is not latest, hints: [ req_id: O.3GDwNCE-8qYqUa ] rid: 65f0-1a"


def test_clean_errmsg__drops_hints_and_rid():
    assert clean_errmsg(ERRMSG) == "invalid credential, access_token is not latest,"


def test_find_rid__is_what_clean_errmsg_drops():
    assert find_rid(ERRMSG) == "65f0-1a"
    assert find_rid("ok") == ""


@pytest.mark.parametrize("credential", ["0123456789abcdef" * 2, "80_" + "aB3-_" * 30, "a" * 3000])
def test_clean_errmsg__masks_what_looks_like_a_credential(credential):
    assert credential[:29] not in clean_errmsg(f"invalid appsecret {credential} given")


def test_clean_errmsg__cut_through_a_credential_leaves_none_of_it():
    text = "x " * 985 + "0123456789abcdef" * 4  # the cut at 2000 goes through it
    for shift in range(40):
        assert "0123456789" not in clean_errmsg("." * shift + text, limit=5000)


def test_clean_errmsg__zero_width_characters_do_not_hide_a_credential():
    assert clean_errmsg("secret 0123456789abcdef\u200b0123456789abcdef") == f"secret {MASK}"


def test_clean_errmsg__is_one_line_that_can_be_stored_and_reads_in_one_direction():
    cleaned = clean_errmsg("a\r\nb\x1b[31mc\x85d\u2028e\u202ef\ud800g\x00h")
    assert cleaned == "a b [31mc d efg h"
    assert cleaned.encode()


def test_clean_errmsg__takes_anything_and_keeps_to_the_limit():
    assert clean_errmsg(None) == "None"
    assert clean_errmsg({"a": 1}) == "{'a': 1}"
    assert len(clean_errmsg("ab " * 1000, limit=50)) <= 50


@pytest.mark.parametrize("hostile", [" " * 65_000, "hint:[" * 10_000, "rid:" * 16_000, "- " * 32_000])
def test_clean_errmsg__hostile_text_costs_no_time(hostile):
    started = time.perf_counter()
    clean_errmsg(hostile)
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("write", [str, quote, quote_plus, partial(quote, safe=""), json.dumps])
@pytest.mark.parametrize("text", ["0123456789abcdef0123456789abcdef", 'a b/c+d&"ö"=%'])
def test_without__however_it_is_written(write, text):
    assert without(f"invalid {write(text)}!", Secret(text)).replace('"', "") == f"invalid {MASK}!"


def test_without__half_a_surrogate_pair_is_no_error():
    assert without("invalid appsecret", Secret("half a \ud800 pair")) == "invalid appsecret"


@pytest.mark.parametrize("text", ["", "x", "invalid"])
def test_without__what_is_too_short_for_a_secret_is_left(text):
    assert without("invalid appsecret", Secret(text)) == "invalid appsecret"
