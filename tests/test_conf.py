"""The WECHAT_TOKEN setting: defaults, wrong values, and errors that name the key but not a secret."""

from __future__ import annotations

from dataclasses import fields

import pytest
from django.views.debug import SafeExceptionReporterFilter

from tests.leaks import visible
from wechat_token import conf
from wechat_token.conf import Problem, Settings, get_settings, problems
from wechat_token.exceptions import ConfigurationError

DEFAULTS = {f.name.upper(): f.default for f in fields(Settings)}


@pytest.fixture
def configure(settings):
    def configure(value):
        settings.WECHAT_TOKEN = value

    return configure


@pytest.mark.parametrize("value", [{}, {"REQUEST_DEADLINE": 30}, {"REQUEST_DEADLINE": 1, "LEASE_MARGIN": 0.5}])
def test_lease__outlives_the_request(configure, value):
    """R2: else others would take over while an answer may still come."""
    configure(value)
    settings = get_settings()
    assert settings.lease >= settings.request_deadline + settings.lease_margin


def test_get_settings__every_key_is_optional(configure):
    configure({})
    assert get_settings() == Settings()


def test_get_settings__without_the_setting(settings):
    del settings.WECHAT_TOKEN
    assert get_settings() == Settings()


def test_get_settings__follows_a_change(configure):
    configure({"OVERLAP": 10})
    assert get_settings().overlap == 10
    configure({"OVERLAP": 20})
    assert get_settings().overlap == 20


def test_problems__defaults_have_none(configure):
    """Every annotation of Settings is one that the check understands."""
    configure(DEFAULTS)
    assert problems() == []


@pytest.mark.parametrize("key", sorted(DEFAULTS))
def test_problems__a_wrong_type_is_found_for_every_key(configure, key):
    configure({key: {"a": "dict"}})
    assert [problem.key for problem in problems()] == [key]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("REQUEST_DEADLINE", "10", "a number above 0, not str"),
        ("REQUEST_DEADLINE", 0, "a number above 0, not 0"),
        ("CONNECT_TIMEOUT", -1, "a number above 0, not -1"),
        ("LEASE_MARGIN", 0.0, "a number above 0, not 0.0"),
        ("OVERLAP", -0.5, "a number of 0 or more, not -0.5"),
        ("OVERLAP", float("nan"), "a number of 0 or more, not nan"),
        ("REQUEST_DEADLINE", float("inf"), "a number above 0, not inf"),
        ("REQUEST_DEADLINE", True, "a number above 0, not True"),
        ("BATCH_SIZE", 10.5, "a whole number above 0, not 10.5"),
        ("BATCH_THREADS", 0, "a whole number above 0, not 0"),
        ("DRAIN_DEADLINE", 0, "a number above 0, not 0"),
        ("MEMORY_ENTRIES", 0, "a whole number above 0, not 0"),
        ("MEMORY_ENTRIES", 1e4, "a whole number above 0, not 10000.0"),
        ("PAUSED", 1, "True or False, not 1"),
        ("PAUSED", "False", "True or False, not str"),
        ("PAUSED", None, "True or False, not NoneType"),
        ("PROXY", 3, "a string or None, not 3"),
        ("CACHE_ALIAS", None, "a string, not NoneType"),
        ("ENCRYPTION_KEYS", "one key", "a list of strings or a callable, not str"),
        ("ENCRYPTION_KEYS", [1], "a list of strings or a callable, not list"),
    ],
)
def test_problems__say_what_a_value_has_to_be(configure, key, value, expected):
    configure({key: value})
    assert problems() == [Problem(key, f"WECHAT_TOKEN['{key}'] must be {expected}.")]


@pytest.mark.parametrize(
    ("key", "value"),
    [("OVERLAP", 0), ("OVERLAP", 1), ("PROXY", None), ("BATCH_SIZE", 10**400), ("LOG_DAYS", 1), ("PAUSED", True)],
)
def test_problems__edges_are_fine(configure, key, value):
    configure({key: value})
    assert problems() == []


@pytest.mark.parametrize("value", [None, ["OVERLAP"], "OVERLAP"])
def test_problems__the_setting_has_to_be_a_dict(configure, value):
    configure(value)
    assert problems() == [Problem("", f"WECHAT_TOKEN must be a dict, not {type(value).__name__}.")]


def test_get_settings__wrong_value_names_the_key(configure):
    configure({"BATCH_SIZE": "1000"})
    with pytest.raises(ConfigurationError, match=r"WECHAT_TOKEN\['BATCH_SIZE'\] must be a whole number"):
        get_settings()


def test_get_settings__error_shows_no_other_value(configure):
    configure({"PROXY": "http://user:canary-5c2e@proxy:8080", "ENCRYPTION_KEYS": "canary-91ab", "OVERLAP": "1"})
    with pytest.raises(ConfigurationError) as caught:
        get_settings()
    assert "canary" not in visible(caught.value)


def test_get_settings__repr_shows_neither_keys_nor_proxy(configure):
    configure({"PROXY": "http://user:canary-5c2e@proxy:8080", "ENCRYPTION_KEYS": ["canary-91ab"]})
    assert "canary" not in repr(get_settings())


def test_error_page__masks_the_whole_setting(configure):
    """Django's debug page and error mails list the settings."""
    configure({"PROXY": "http://user:canary-5c2e@proxy:8080"})
    assert "canary" not in repr(SafeExceptionReporterFilter().get_safe_settings())


def test_get_settings__keys_may_be_bytes(configure):
    configure({"ENCRYPTION_KEYS": [b"abc", "def"]})
    assert get_settings().encryption_keys == ("abc", "def")


def test_unknown_keys__are_ignored_at_runtime(configure):
    configure({"OVERLAPS": 1, 5: "x"})
    assert conf.unknown_keys() == ["5", "OVERLAPS"]
    assert get_settings() == Settings()
