"""A cache that carries text only, and the check that says which does not."""

from __future__ import annotations

import pickle

import pytest
from django.core.cache.backends.redis import RedisSerializer
from django.core.checks import Warning

from wechat_token import checks
from wechat_token.text_cache import TextSerializer, unpickles

BACKENDS = "django.core.cache.backends"
REDIS = f"{BACKENDS}.redis.RedisCache"


class OwnSerializer(RedisSerializer):
    """Still a pickling one."""


@pytest.mark.parametrize("text", ["", "x", "12", "密钥", "a" * 100_000])
def test_serializer__text_comes_back(text):
    serializer = TextSerializer()
    assert serializer.loads(serializer.dumps(text)) == text


@pytest.mark.parametrize("value", [1, True, None, b"bytes", ["canary"], {"canary": 1}])
def test_serializer__nothing_else_goes_in(value):
    with pytest.raises(TypeError, match="text only") as caught:
        TextSerializer().dumps(value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("value", [pickle.dumps(["x"]), b"\xff"])
def test_serializer__bytes_that_are_no_text_are_a_value_error(value):
    with pytest.raises(ValueError, match="utf-8"):
        TextSerializer().loads(value)


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        ({"BACKEND": REDIS, "LOCATION": "redis://127.0.0.1"}, True),
        ({"BACKEND": REDIS, "OPTIONS": {"serializer": f"{BACKENDS}.redis.RedisSerializer"}}, True),
        ({"BACKEND": REDIS, "OPTIONS": {"serializer": OwnSerializer}}, True),
        ({"BACKEND": REDIS, "OPTIONS": {"serializer": OwnSerializer()}}, True),
        ({"BACKEND": REDIS, "OPTIONS": {"serializer": "wechat_token.text_cache.TextSerializer"}}, False),
        ({"BACKEND": REDIS, "OPTIONS": {"serializer": TextSerializer()}}, False),
        ({"BACKEND": f"{BACKENDS}.filebased.FileBasedCache", "LOCATION": "/nowhere"}, True),
        ({"BACKEND": f"{BACKENDS}.db.DatabaseCache", "LOCATION": "table"}, True),
        ({"BACKEND": f"{BACKENDS}.memcached.PyMemcacheCache", "LOCATION": "127.0.0.1:1"}, True),
        ({"BACKEND": f"{BACKENDS}.memcached.PyMemcacheCache", "OPTIONS": {"serde": TextSerializer()}}, False),
        ({"BACKEND": f"{BACKENDS}.memcached.PyLibMCCache", "LOCATION": "127.0.0.1:1"}, True),
        ({"BACKEND": f"{BACKENDS}.locmem.LocMemCache"}, False),
        ({"BACKEND": f"{BACKENDS}.dummy.DummyCache"}, False),
        ({"BACKEND": "tests.ground.caches.SharedCache"}, False),  # cannot tell: no alarm
    ],
)
def test_check__says_where_the_alias_unpickles(settings, cache, expected):
    settings.CACHES = {"default": {"BACKEND": f"{BACKENDS}.locmem.LocMemCache"}, "tokens": cache}
    settings.WECHAT_TOKEN = {"CACHE_ALIAS": "tokens"}
    assert unpickles("tokens") is expected
    warning = Warning(
        "The cache 'tokens' unpickles what it reads.",
        hint="Whoever can write to the server behind it can run code in every process of this site. Tokens need no "
        "pickle: give them an alias of their own with the serializer wechat_token.text_cache.TextSerializer, and name "
        "it in WECHAT_TOKEN['CACHE_ALIAS'].",
        id="wechat_token.W020",
    )
    assert checks.check_cache_text() == ([warning] if expected else [])


def test_check__knows_nothing_of_other_aliases(settings):
    settings.CACHES = {"default": {"BACKEND": f"{BACKENDS}.locmem.LocMemCache"}, "sessions": {"BACKEND": REDIS}}
    assert checks.check_cache_text() == []
