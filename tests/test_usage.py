"""Who asked for what: counted in memory, written down in the background."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.outages import database_down
from wechat_token import process
from wechat_token.client_keys import keys, usage
from wechat_token.models import ClientKey, KeyUsage


@pytest.fixture
def key(transactional_db, time):
    return keys.make_key("orders")[0]


def rows():
    return list(KeyUsage.objects.order_by("day", "appid").values_list("appid", "reads", "complaints", "refusals"))


def test_count__adds_up_by_key_account_and_day(key, time):
    for _ in range(3):
        usage.count(key.pk, "wxa", usage.Asked(reads=1))
    usage.count(key.pk, "wxa", usage.Asked(complaints=1))
    usage.count(key.pk, "wxb", usage.Asked(reads=1))
    usage.count(key.pk, "", usage.Asked(refusals=1))
    usage.flush()
    assert rows() == [("", 0, 0, 1), ("wxa", 3, 1, 0), ("wxb", 1, 0, 0)]


def test_count__starts_a_new_row_at_midnight_in_beijing(key, time):
    time.pass_until(dt.datetime(2026, 3, 2, 15, 59, 59, tzinfo=dt.UTC))
    usage.count(key.pk, "wxa", usage.Asked(reads=1))
    time.pass_(1)
    usage.count(key.pk, "wxa", usage.Asked(reads=1))
    usage.flush()
    assert list(KeyUsage.objects.order_by("day").values_list("day", flat=True)) == [
        dt.date(2026, 3, 2), dt.date(2026, 3, 3),
    ]  # fmt: skip


def test_count__writes_the_first_use_at_once_and_then_once_a_minute(key, time, django_assert_num_queries):
    usage.count(key.pk, "wxa", usage.Asked(reads=1))
    assert rows() == [("wxa", 1, 0, 0)]
    with django_assert_num_queries(0):
        for _ in range(100):
            usage.count(key.pk, "wxa", usage.Asked(reads=1))
    time.pass_(60)
    usage.count(key.pk, "wxa", usage.Asked(reads=1))
    assert rows() == [("wxa", 102, 0, 0)]


def test_flush__adds_to_what_other_processes_wrote(key, time):
    for _ in range(2):
        usage.count(key.pk, "wxa", usage.Asked(reads=5))
        process.forget()
    assert rows() == [("wxa", 10, 0, 0)]


def test_flush__keeps_what_the_database_does_not_take(key, time):
    usage.count(key.pk, "wxa", usage.Asked(reads=1))
    usage.count(key.pk, "wxa", usage.Asked(reads=1))
    usage.count(key.pk, "wxb", usage.Asked(reads=1))

    with database_down():
        usage.flush()
    assert rows() == [("wxa", 1, 0, 0)]
    usage.flush()
    assert rows() == [("wxa", 2, 0, 0), ("wxb", 1, 0, 0)]


def test_flush__repeats_no_part_that_was_committed(key, time, monkeypatch):
    monkeypatch.setattr(usage, "ROWS_AT_ONCE", 1)
    usage.flush_if_due()
    for appid in ("wxa", "wxb"):
        usage.count(key.pk, appid, usage.Asked(reads=1))
    with database_down(lambda sql, params: "wxb" in (params or ())):
        usage.flush()
    usage.flush()
    assert rows() == [("wxa", 1, 0, 0), ("wxb", 1, 0, 0)]


def test_flush__meets_a_row_that_appeared_just_now(key, time, monkeypatch):
    usage.count(key.pk, "wxa", usage.Asked(reads=1))
    usage.count(key.pk, "wxa", usage.Asked(reads=2))
    update = type(KeyUsage.objects.all()).update
    answers = iter([0])  # as if the other process's row were not there yet
    monkeypatch.setattr(
        type(KeyUsage.objects.all()), "update", lambda self, **more: next(answers, None) or update(self, **more)
    )
    usage.flush()
    assert rows() == [("wxa", 3, 0, 0)]


def test_flush__passes_over_deleted_keys(key, time, django_assert_num_queries):
    usage.flush_if_due()
    usage.count(key.pk, "wxa", usage.Asked(reads=1))
    key.delete()
    usage.flush()
    assert rows() == []
    with django_assert_num_queries(0):
        usage.flush()


def test_last_used__is_written_once_a_minute_by_all_processes_together(key, time):
    first = time.now()
    for seconds, expected in [(0, first), (59, first), (1, first + dt.timedelta(seconds=60))]:
        time.pass_(seconds)
        process.forget()
        usage.count(key.pk, "wxa", usage.Asked(reads=1))
        assert ClientKey.objects.get().last_used_at == expected


def test_last_used__does_not_look_like_an_edit(key, time):
    before = ClientKey.objects.values("stamp", "updated_at").get()
    usage.count(key.pk, "wxa", usage.Asked(reads=1))
    assert ClientKey.objects.values("stamp", "updated_at").get() == before


def test_prune__once_a_day_and_process(key, time, settings):
    settings.WECHAT_TOKEN = {"LOG_DAYS": 2}
    for day in range(5):
        usage.count(key.pk, f"wx{day}", usage.Asked(reads=1))
        time.pass_(86_400)
    assert [row[0] for row in rows()] == ["wx2", "wx3", "wx4"]
