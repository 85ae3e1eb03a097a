"""What lies in a cache that others can write to: believed only if it is whole and of this very account."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import APPID, SECRET
from tests.ground.caches import SETTING, SharedCache
from wechat_token import get_access_token, process
from wechat_token.models import Account
from wechat_token.sandbox import FakeWeChat, FakeWeChatServer

OTHER = "wxfedcba9876543210"


@pytest.fixture
def weixin(transactional_db, settings) -> Iterator[FakeWeChat]:
    """Over a socket: in memory it would keep the tokens out of the cache."""
    with FakeWeChatServer(FakeWeChat(seed=1)) as server:
        settings.WECHAT_TOKEN = {"API_BASE_URL": server.url}
        settings.CACHES = SETTING
        for appid in (APPID, OTHER):
            server.fake.add_account(appid, SECRET)
            Account.objects.create(appid=appid, secret=SECRET)
        yield server.fake
    SharedCache.clear_all()


def name_of(appid: str) -> str:
    [name] = [name for name in SharedCache.stored if appid in name]
    return name


def test_cache__holds_what_another_process_reads(weixin, django_assert_num_queries):
    token = get_access_token(APPID)
    process.forget()
    with django_assert_num_queries(1) as queries:  # which site this is
        assert get_access_token(APPID) == token
    assert "wechat_token_site" in queries.captured_queries[0]["sql"]
    assert weixin.calls_to(APPID, "stable") == 1


@pytest.mark.parametrize("spoiled", ["garbage", "bytes", "cut short", "another account's", "of another kind"])
def test_cache__spoiled_entry_counts_as_nothing(weixin, spoiled):
    token, _other = get_access_token(APPID), get_access_token(OTHER)
    name = name_of(APPID)
    SharedCache.stored[name] = {
        "garbage": "garbage",
        "bytes": b"\x80garbage",
        "cut short": SharedCache.stored[name][:-4],
        "another account's": SharedCache.stored[name_of(OTHER)],
        "of another kind": ["a", "list"],
    }[spoiled]
    process.forget()
    assert get_access_token(APPID) == token
    assert weixin.calls_to(APPID, "stable") == 1


def test_cache__shows_no_token(weixin):
    token = get_access_token(APPID)
    assert token not in repr(SharedCache.stored)
    assert SECRET not in repr(SharedCache.stored)
