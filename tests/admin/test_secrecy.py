"""S2: what an operator enters and what WeChat issues shows up nowhere."""

from __future__ import annotations

import logging
import sys

from django.contrib.admin.models import LogEntry
from django.core.signals import got_request_exception
from django.urls import reverse
from django.views.debug import ExceptionReporter

from tests.admin.pages import (
    LIST,
    LOG,
    account_data,
    act,
    page,
    told,
    url,
)
from tests.conftest import APPID, SECRET, row
from wechat_token.models import Token


def test_error_report__holds_no_secret(boss, monkeypatch):
    """S2: what Django mails and logs when saving fails, with the locals of every frame."""
    reports = []

    def keep(request, **kwargs):
        reporter = ExceptionReporter(request, *sys.exc_info())
        reports.append(reporter.get_traceback_html() + reporter.get_traceback_text())

    def fail(*args, **kwargs):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("django.db.models.Model.save", fail)
    got_request_exception.connect(keep, weak=False, dispatch_uid="keep")
    try:
        boss.raise_request_exception = False
        response = boss.post(reverse("admin:wechat_token_account_add"), account_data(secret=SECRET))
    finally:
        got_request_exception.disconnect(dispatch_uid="keep")
    assert response.status_code == 500
    assert "the disk is full" in reports[0]
    assert SECRET not in reports[0]


def test_secrets__are_on_no_page_in_no_log_and_no_record(boss, account, weixin, caplog):
    """Everything an operator does, at DEBUG, with a planted secret."""
    answers = []

    def do(response):
        answers.append(response)
        return response

    with caplog.at_level(logging.DEBUG):
        do(boss.post(url("refresh", account), follow=True))
        do(boss.post(url("change", account), account_data(secret=SECRET), follow=True))
        do(boss.post(url("change", account), account_data(secret=SECRET, endpoint="nonsense")))
        do(boss.post(reverse("admin:wechat_token_account_add"), account_data(appid="no way", secret=SECRET)))
        do(act(boss, "refresh_selected", [account]))
        weixin.reset_secret(APPID, "another")
        Token.objects.update(sent_at=None)
        do(boss.post(url("refresh", account), follow=True))
        views = [url(view, account) for view in ("change", "history", "delete")]
        for address in (reverse(LIST), *views, reverse(LOG), reverse("admin:index")):
            do(boss.get(address))
    token = row(account).value.reveal()
    assert token
    records = [f"{e.change_message} {e.object_repr}" for e in LogEntry.objects.all()]
    places = [caplog.text, *records]
    for response in answers:
        places += [page(response), str(response.headers), str(response.cookies), *told(response)]
    for secret in (SECRET, token):
        assert not [place for place in places if secret in place]
