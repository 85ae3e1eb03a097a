"""Who uses the admin, and a log row to look at."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from tests.conftest import START
from wechat_token.models import RefreshLog


@pytest.fixture
def boss(db):
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture
def staff(db):
    """Makes a client whose user may do exactly this."""

    def make(*permissions, **options):
        user = User.objects.create_user("staff", is_staff=True)
        user.user_permissions.set(
            Permission.objects.filter(content_type__app_label="wechat_token", codename__in=permissions)
        )
        client = Client(**options)
        client.force_login(user)
        return client

    return make


@pytest.fixture
def entry(account):
    return RefreshLog.objects.create(
        ref=account.ref, kind="access_token", at=START, reason="caller", endpoint="stable", outcome="failed",
        errcode=40164, rid="65f1-rid", duration_ms=12,
    )  # fmt: skip
