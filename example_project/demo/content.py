"""What the demo's site has in it: accounts, an admin login and a client key."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from wechat_token.client_keys.keys import make_key
from wechat_token.models import Account, Endpoint
from wechat_token.redaction import Secret
from wechat_token.sandbox import FakeWeChat

ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Content:
    accounts: tuple[Account, ...]
    password: str = field(repr=False)
    key: Secret


def create(fake: FakeWeChat | None) -> Content:
    """Fill the empty database. With ``fake``: an account for each endpoint; else the user's own."""
    if fake is None:
        accounts = _user_account()
    else:
        accounts = _fake_accounts(fake)
        _tick_every(1)  # tokens that live for a minute cannot wait for a tick of five seconds
    password = secrets.token_urlsafe(9)
    get_user_model()._default_manager.create_superuser(ADMIN, password=password)
    _key, text = make_key("demo", accounts=accounts, may_refresh=True)
    return Content(accounts, password, text)


def _fake_accounts(fake: FakeWeChat) -> tuple[Account, ...]:
    accounts = []
    for endpoint, name in ((Endpoint.STABLE, "Stable demo"), (Endpoint.CLASSIC, "Classic demo")):
        appid, secret = f"wx{secrets.token_hex(8)}", secrets.token_hex(16)
        fake.add_account(appid, secret)
        accounts.append(Account.objects.create(appid=appid, secret=secret, name=name, endpoint=endpoint))
    return tuple(accounts)


def _user_account() -> tuple[Account, ...]:
    """The account of WECHAT_APPID and WECHAT_SECRET; neither is needed in the environment after that."""
    account = Account(
        appid=os.environ.get("WECHAT_APPID", ""),
        secret=os.environ.pop("WECHAT_SECRET", ""),
        name="My account",
        endpoint=Endpoint.STABLE,
    )
    try:
        account.full_clean()
    except ValidationError as error:
        raise CommandError(f"WECHAT_APPID, WECHAT_SECRET: {' '.join(error.messages)}") from None
    account.save()
    return (account,)


def _tick_every(seconds: int) -> None:
    """Let beat look for due tokens this often, as an operator would set it in the admin."""
    interval, _created = IntervalSchedule.objects.get_or_create(every=seconds, period=IntervalSchedule.SECONDS)
    for task in PeriodicTask.objects.filter(task="wechat_token.refresh_due_tokens"):
        task.interval = interval
        task.save()
