"""Getting about in the admin, for its tests."""

from __future__ import annotations

from django.contrib.messages import get_messages
from django.urls import reverse

OTHER_APPID = "wxfedcba9876543210"
USUAL_SECRET = "0123456789abcdef0123456789abcdef"
LIST = "admin:wechat_token_account_changelist"
KEYS = "admin:wechat_token_clientkey_changelist"
LOG = "admin:wechat_token_refreshlog_changelist"


def url(view, account):
    return reverse(f"admin:wechat_token_account_{view}", args=[account.pk])


def account_data(**changes):
    data = {"appid": OTHER_APPID, "secret": USUAL_SECRET, "name": "new", "endpoint": "stable", "is_active": "on"}
    return {**data, **changes}


def page(response):
    return response.content.decode()


def told(response):
    return [str(message) for message in get_messages(response.wsgi_request)]


def form_errors(response, field):
    return response.context["adminform"].form.errors.get(field, [])


def act(client, name, accounts, where=LIST, **more):
    return client.post(
        reverse(where), {"action": name, "_selected_action": [a.pk for a in accounts], "index": 0, **more}
    )
