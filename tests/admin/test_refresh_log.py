"""The refresh log: read only, never counted whole."""

from __future__ import annotations

import pytest
from django.urls import reverse

from tests.admin.pages import (
    LOG,
    page,
)
from tests.conftest import APPID
from wechat_token.admin.lists import BoundedPaginator
from wechat_token.models import RefreshLog


def test_log__cannot_be_written_by_hand(boss, entry):
    assert boss.get(reverse("admin:wechat_token_refreshlog_add")).status_code == 403
    change = reverse("admin:wechat_token_refreshlog_change", args=[entry.pk])
    assert boss.get(change).status_code == 200
    assert boss.post(change, {"outcome": "renewed"}).status_code == 403
    assert boss.post(reverse("admin:wechat_token_refreshlog_delete", args=[entry.pk])).status_code == 403
    assert "delete_selected" not in page(boss.get(reverse(LOG)))


@pytest.mark.parametrize(
    ("term", "found"), [(APPID, 1), ("0123456789ABC", 1), ("shop", 1), ("65f1-rid", 1), ("65f1", 0), ("nobody", 0)]
)
def test_log__search_by_account_or_rid(boss, entry, term, found):
    assert boss.get(reverse(LOG), {"q": term}).context["cl"].result_count == found


@pytest.mark.parametrize(
    ("query", "found"),
    [({"reason": "caller"}, 1), ({"reason": "admin"}, 0), ({"outcome__exact": "failed"}, 1)],
)
def test_log__filters(boss, entry, query, found):
    assert boss.get(reverse(LOG), query).context["cl"].result_count == found


def test_log__error_in_words(boss, entry):
    assert "40164: " in page(boss.get(reverse(LOG)))


def test_log__counts_no_further_than_it_pages(boss, entry, monkeypatch, django_assert_max_num_queries):
    monkeypatch.setattr(BoundedPaginator, "MOST", 2)
    RefreshLog.objects.bulk_create([_copy(entry) for _ in range(5)])
    with django_assert_max_num_queries(5) as captured:
        response = boss.get(reverse(LOG))
    assert response.context["cl"].result_count == 2
    counts = [query["sql"] for query in captured.captured_queries if "COUNT(" in query["sql"]]
    assert counts
    assert all("LIMIT 2" in sql for sql in counts)


def _copy(entry):
    copy = RefreshLog.objects.get(pk=entry.pk)
    copy.pk = None
    return copy
