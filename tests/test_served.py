"""Memory and cache: nothing goes back, nothing of another site or account, nothing without end (R18, R32)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from django.db import OperationalError

from tests.conftest import APPID
from tests.ground.caches import SETTING, SharedCache
from wechat_token import process
from wechat_token.encryption import Place, encrypt
from wechat_token.engine import served, serving, site
from wechat_token.engine.schedule import seconds
from wechat_token.engine.served import Entry
from wechat_token.engine.site import Identity

KEY = (APPID, "access_token")


def entry_at(time, version=2, revision=2, key=KEY, value=None, life=7200) -> Entry:
    """What the database has just said."""
    end = time.now() + seconds(life)
    value = f"token {version}.{revision}" if value is None else value
    return Entry(*key, 1, version, revision, value, end, end, end, time.now())


@pytest.fixture
def site_of(monkeypatch):
    """Say which site's process this is."""

    def be(site_id, place="here", is_copy=False):
        monkeypatch.setattr(site, "identity", lambda: Identity(site_id, place, is_copy))
        process.restore(process.fresh())

    return be


@pytest.fixture
def cache(hangar, time, settings, site_of, monkeypatch):
    """One that processes share. Tests play several processes: what one remembers, another does not."""
    SharedCache.clear_all()
    settings.CACHES = SETTING
    monkeypatch.setattr(served, "in_place", lambda: False)
    site_of("mine")
    yield SharedCache
    SharedCache.clear_all()


def in_another_process(do):
    mine = process.snapshot()
    process.restore(process.fresh())
    try:
        return do()
    finally:
        process.restore(mine)


def found_elsewhere(key=KEY) -> str:
    """What a process that knows nothing finds in the cache."""
    entry = in_another_process(lambda: served.look_up(key, None))
    return "" if entry is None else entry.value


# -- memory


def test_remember__an_older_version_does_not_replace_a_newer_one(time):
    newer = served.remember(entry_at(time, 3, 1))
    assert served.remember(entry_at(time, 2, 9)).value == newer.value
    assert served.remember(entry_at(time, 3, 0)).value == newer.value
    assert served.recall(KEY).age == (3, 1)


def test_remember__a_dead_token_is_replaced_by_whatever_is_alive(time):
    served.remember(entry_at(time, 3, 1, life=10))
    time.pass_(10)
    assert served.remember(entry_at(time, 2, 9)).value == "token 2.9"


def test_remember__is_trusted_no_longer_than_the_token_lives(time):
    kept = served.remember(entry_at(time, life=0.5))
    assert kept.fresh_until == kept.dead_at == time.monotonic() + 0.5


@pytest.mark.parametrize("how", [served.drop, served.withdraw])
def test_drop__what_is_known_to_be_dead_is_not_taken_again(time, how):
    late = entry_at(time, 2, 2)
    served.remember(late)
    how(KEY, (2, 3))
    assert served.recall(KEY) is None
    assert served.is_outdated(late)
    served.remember(late)
    assert served.recall(KEY) is None
    assert served.remember(entry_at(time, 3, 4)) == served.recall(KEY)


def test_remember__memory_is_bounded_and_keeps_what_is_asked_for(time, settings):
    settings.WECHAT_TOKEN = {"MEMORY_ENTRIES": 10}
    keys = [(f"wx{number}", "access_token") for number in range(100)]
    for key in keys:
        served.remember(entry_at(time, key=key))
        served.remember(entry_at(time, key=KEY))
    known = [key for key in keys if served.recall(key) is not None]
    assert 10 <= len(known) <= 20
    assert keys[-1] in known
    assert served.recall(KEY) is not None


def test_drop__is_bounded(time, settings):
    settings.WECHAT_TOKEN = {"MEMORY_ENTRIES": 10}
    for number in range(1000):
        served.drop((f"wx{number}", "access_token"), (1, 1))
    served.remember(entry_at(time, 0, 0, key=("wx0", "access_token")))
    assert served.recall(("wx0", "access_token")) is not None  # forgiven: else this would grow without end


# -- cache: what others may find there


def test_publish__is_found_by_other_processes(cache, time):
    served.publish(entry_at(time))
    assert found_elsewhere() == "token 2.2"


def test_look_up__what_has_not_changed_is_not_read_again(cache, time):
    known = served.publish(entry_at(time))
    known = served.recall(KEY)
    assert served.look_up(KEY, known) is known


def test_share__an_older_version_does_not_replace_a_newer_one(cache, time):
    served.publish(entry_at(time, 3, 1))
    in_another_process(lambda: served.publish(entry_at(time, 2, 9)))
    assert found_elsewhere() == "token 3.1"


def test_share__a_newer_version_replaces_an_older_one(cache, time):
    in_another_process(lambda: served.publish(entry_at(time, 2, 9)))
    served.publish(entry_at(time, 3, 1))
    assert found_elsewhere() == "token 3.1"


def test_share__what_this_process_knows_to_be_dead_stays_here(cache, time):
    late = entry_at(time, 2, 2)
    with cache.fails("set", "delete"):
        served.withdraw(KEY, (2, 3))
    time.pass_(served.CACHE_REST + 1)
    served.share(replace(late, loaded_at=time.now()))
    assert found_elsewhere() == ""


def test_share__no_old_news(cache, time):
    """Somebody may have withdrawn it meanwhile, and the cache have forgotten that."""
    late = entry_at(time)
    time.pass_(served.NEWS_SECONDS + 0.1)
    served.share(late)
    assert found_elsewhere() == ""


def test_share__what_was_held_up_on_its_way_is_taken_back(cache, time, monkeypatch):
    put = cache.set

    def slow(self, *args, **options):
        time.pass_(served.NEWS_SECONDS + 0.1)
        put(self, *args, **options)

    monkeypatch.setattr(cache, "set", slow)
    served.share(entry_at(time))
    assert found_elsewhere() == ""


def test_withdraw__others_find_nothing_and_take_nothing_older(cache, time):
    late = entry_at(time, 2, 2)
    served.publish(late)
    in_another_process(lambda: served.withdraw(KEY, (2, 3)))

    def read_and_share():
        assert served.look_up(KEY, None) is None
        assert served.is_outdated(late)
        served.publish(late)

    in_another_process(read_and_share)
    assert found_elsewhere() == ""
    assert served.look_up(KEY, served.recall(KEY)) is None
    assert served.recall(KEY) is None


def test_withdraw__is_known_here_although_the_cache_failed(cache, time):
    """The 220 of 300 reads of a dead token: the cache still had it."""
    served.publish(entry_at(time, 2, 2))
    with cache.fails("set", "delete"):
        served.withdraw(KEY, (2, 3))
    time.pass_(served.CACHE_REST + 1)
    assert found_elsewhere() == "token 2.2"
    assert served.look_up(KEY, None) is None


def test_withdraw__a_cache_that_failed_is_told_when_it_is_back(cache, time, hangar):
    served.publish(entry_at(time, 2, 2))
    with cache.fails("set"):
        served.withdraw(KEY, (2, 3))
    assert found_elsewhere() == "token 2.2"
    hangar.let_go()
    assert found_elsewhere() == ""


def test_withdraw__does_not_undo_a_newer_token(cache, time):
    served.publish(entry_at(time, 3, 9))
    in_another_process(lambda: served.withdraw(KEY, (2, 3)))
    assert found_elsewhere() == "token 3.9"


def test_is_confirmed__by_the_database_within_cache_seconds(time):
    entry = entry_at(time)
    assert served.is_confirmed(entry, time.now() + seconds(59))
    assert not served.is_confirmed(entry, time.now() + seconds(60))
    assert not served.is_confirmed(entry, time.now() - seconds(6))  # a clock is wrong


# -- cache: whose


class OneForAll(SharedCache):
    """Gives whoever asks for a token the one that was put there last."""

    def _called(self, name, key, version):
        return super()._called(name, "anybodys" if APPID in key or key.endswith("access_token") else key, version)


def test_look_up__another_accounts_entry_counts_as_nothing(cache, time, settings):
    settings.CACHES = {"default": {"BACKEND": "tests.test_served.OneForAll"}}
    served.publish(entry_at(time))
    assert found_elsewhere() == "token 2.2"
    assert found_elsewhere(("wxanother0000000", "access_token")) == ""
    assert found_elsewhere((APPID, "jsapi_ticket")) == ""


@pytest.mark.parametrize("garbage", ["", "nonsense", b"bytes", 7, ["list"]])
def test_look_up__garbage_counts_as_nothing(cache, time, garbage):
    served.publish(entry_at(time))
    for name in [name for name in cache.stored if APPID in name]:
        cache.stored[name] = garbage
    assert found_elsewhere() == ""


def test_cache__another_site_finds_nothing(cache, time, site_of):
    served.publish(entry_at(time))
    site_of("theirs")
    assert found_elsewhere() == ""
    served.publish(entry_at(time, 9, 9))
    site_of("mine")
    assert found_elsewhere() == "token 2.2"


def test_cache__a_copy_of_the_database_finds_nothing(cache, time, site_of):
    served.publish(entry_at(time))
    site_of("mine", "on staging", is_copy=True)
    assert found_elsewhere() == ""
    served.publish(entry_at(time, 9, 9))
    site_of("mine")
    assert found_elsewhere() == "token 2.2"


def left_alone(cache, time):
    cache.calls.clear()
    served.publish(entry_at(time, 9, 9))
    served.look_up(KEY, None)
    served.withdraw(KEY, (9, 10))
    served.forget(KEY)
    return not cache.calls


def test_cache__is_left_alone_by_a_fake_wechat(cache, time):
    with served.isolated():
        assert left_alone(cache, time)
    assert not left_alone(cache, time)


def test_cache__is_left_alone_by_a_paused_site(cache, time, settings):
    settings.WECHAT_TOKEN = {"PAUSED": True}
    assert left_alone(cache, time)


def test_cache__that_fails_is_left_alone_for_a_while(cache, time):
    with cache.fails("get"):
        served.look_up(KEY, None)
    assert left_alone(cache, time)
    time.pass_(served.CACHE_REST)
    assert not left_alone(cache, time)


# -- a database that is down


def test_current_entry__database_down_and_another_process_replaced_the_token(cache, time, monkeypatch):
    """R18: whoever cannot ask the database hears of it from the cache within a second all the same."""

    def down(*args, **kwargs):
        raise OperationalError("down")

    monkeypatch.setattr(serving, "read_here", down)
    old = entry_at(time, 2)
    served.remember(replace(old, loaded_at=time.now() - seconds(300)))
    time.pass_(1.5)
    assert serving.current_entry(KEY).value == old.value
    in_another_process(lambda: served.publish(entry_at(time, 3)))
    time.pass_(1.1)
    assert serving.current_entry(KEY).value == "token 3.2"


def test_current_entry__a_database_that_is_down_is_not_asked_each_second(cache, time, monkeypatch):
    """R13: each question may take as long as the driver lets it."""
    asked = []

    def down(*args, **kwargs):
        asked.append(time.elapsed)
        raise OperationalError("down")

    monkeypatch.setattr(serving, "read_here", down)
    served.remember(replace(entry_at(time), loaded_at=time.now() - seconds(300)))
    for _ in range(20):
        time.pass_(1.1)
        serving.current_entry(KEY)
    assert 3 <= len(asked) <= 5


# -- what does not belong there (S8)


def entry_in(cache, name_part):
    [name] = [name for name in cache.stored if name_part in name]
    return name


@pytest.mark.parametrize("to", [("wx-another", "access_token"), (APPID, "jsapi_ticket")])
def test_look_up__an_entry_opens_under_no_other_name(cache, time, to):
    for key in (KEY, to):
        served.share(entry_at(time, key=key))
    mine, other = (entry_in(cache, f":{ref}:{kind}") for ref, kind in (KEY, to))
    cache.stored[other] = cache.stored[mine]
    assert in_another_process(lambda: served.look_up(to, None)) is None
    assert found_elsewhere() == "token 2.2"


def test_look_up__an_entry_of_another_site_does_not_open(cache, time, site_of):
    served.share(entry_at(time))
    there = dict(cache.stored)
    cache.stored.clear()
    site_of("yours")
    served.share(entry_at(time, value="yours"))
    name = entry_in(cache, APPID)
    cache.stored[name] = next(iter(there.values()))
    assert in_another_process(lambda: served.look_up(KEY, None)) is None


def test_look_up__an_entry_of_another_installation_does_not_open(cache, time, settings):
    served.share(entry_at(time))
    settings.SECRET_KEY = "of another installation, of the same length"
    assert in_another_process(lambda: served.look_up(KEY, None)) is None


def sealed_as(text):
    return encrypt(text, Place("cache", f"mine/access_token/{APPID}"))


@pytest.mark.parametrize(
    "make",
    [
        lambda good: "",
        lambda good: good[:-9],
        lambda good: good + good,
        lambda good: "x" * 10_000_000,
        lambda good: sealed_as(" " * 10_000_000),
        lambda good: b"bytes",
        lambda good: ["a list"],
        lambda good: sealed_as(""),
        lambda good: sealed_as("null"),
        lambda good: sealed_as("{}"),
        lambda good: sealed_as(json.dumps([*KEY, 1, 9, 9, "token", 9e99, 9e99, None, 1])),
        lambda good: sealed_as(json.dumps([*KEY, 1, 9, 9, ["token"], 2e9, 2e9, None, 2e9])),
        lambda good: sealed_as(json.dumps([*KEY, 1, 9, 9, "of a later version", 2e9, 2e9, None, 2e9, "more"])),
        lambda good: sealed_as(json.dumps([*KEY, 1, 9, 9, "of an earlier one", 2e9])),
    ],
    ids=range(14),
)
def test_look_up__what_is_no_entry_is_nothing_and_is_written_over(cache, time, make):
    served.share(entry_at(time))
    name = entry_in(cache, APPID)
    cache.stored[name] = make(cache.stored[name])
    assert in_another_process(lambda: served.look_up(KEY, None)) is None
    in_another_process(lambda: served.share(entry_at(time, revision=3)))
    assert found_elsewhere() == "token 2.3"


def test_share__everything_it_writes_is_text(cache, time):
    served.share(entry_at(time))
    served.withdraw(KEY, (3, 3))
    assert {type(value) for value in cache.stored.values()} == {str}
