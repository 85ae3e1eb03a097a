"""What follows when an account is saved or deleted: its token is kept in step and its first fetch starts at once.

In the operator's transaction nothing of ours is locked (R30): only the row of a new account is made there.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

from celery import current_app
from django.db import DatabaseError, transaction
from django.db.models.signals import post_delete, post_save, pre_save

from .. import clock
from ..conf import get_settings
from ..models import ACCESS_TOKEN, Account, Token
from ..signals import on_model
from . import accounts, ground, rows, schedule, served
from .connections import in_test_case, patiently

# By name: the engine knows no task, the tasks know the engine. Beyond the time, beat has found the row by itself.
WAKE: Final = "wechat_token.refresh_token"
WAKE_EXPIRES: Final = 60.0

logger = logging.getLogger("wechat_token")


def connect() -> None:
    on_model(pre_save, account_loaded, Account)
    on_model(post_save, account_saved, Account)
    on_model(post_delete, account_deleted, Account)


def account_loaded(instance: Account, raw: bool = False, **kwargs: Any) -> None:
    """A fixture written by hand knows no ref, and ``loaddata`` calls nothing that would derive it."""
    if raw and not instance.ref:
        instance.ref = instance.appid


def account_saved(instance: Account, using: str, created: bool = False, raw: bool = False, **kwargs: Any) -> None:
    """Make a new account's token row; wake an edited one's when the edit is committed (R10).

    The token in hand stays and is served until its successor is stored. Should the wake be lost, the account's new
    edition says as much to whoever reads the row next.
    """
    if raw:  # loaddata brings the token rows itself
        return
    if created:
        Token.objects.using(using).get_or_create(
            account=instance,
            kind=ACCESS_TOKEN,
            defaults={"edition": instance.edition, "due_at": clock.now() if instance.is_active else None},
        )
    if in_test_case(using):  # whose transaction is never committed
        _forget(instance.ref)
        _make_due(instance.ref)
    transaction.on_commit(partial(_account_changed, instance.ref), using=using)


def account_deleted(instance: Account, using: str, **kwargs: Any) -> None:
    transaction.on_commit(partial(_forget, instance.ref), using=using)


def _account_changed(ref: str) -> None:
    _forget(ref)
    ground.lane("accounts", partial(_wake, ref))


def _forget(ref: str) -> None:
    served.forget_account(ref)
    accounts.forget(ref)


def _wake(ref: str) -> None:
    """Make an edited account's tokens due, so that beat finds them, and tell a worker; on lanes of their own: neither a
    lock nor a broker that is down makes the admin wait (R7), nor the one the other.
    """
    try:
        tokens = patiently(partial(_make_due, ref))
    except DatabaseError as exc:
        logger.warning("The edit of %s was not passed on at once: %s", ref, type(exc).__name__)
        return
    for token in tokens:
        if token.account.is_active and not get_settings().remote_url:
            ground.lane("broker", partial(tell_worker, token.pk))


def _make_due(ref: str) -> list[Token]:
    """The tokens to renew now; none for a new name, which is no reason to ask WeChat."""
    due = []
    for token in rows.of_account(ref):
        is_active = token.account.is_active
        if schedule.is_asleep(token) and is_active:
            continue  # whoever asks for it next sees that the account was edited
        if schedule.is_outdated(token) or is_active is (token.due_at is None):
            rows.write(token, schedule.woken(is_active, clock.now()))
            due.append(token)
        elif not token.version and not token.waits_for:
            due.append(token)
    return due


def tell_worker(token_id: int) -> None:
    """If it cannot be told, nothing is lost: the row is due, and beat or the first caller finds it."""
    current_app.send_task(WAKE, (token_id,), expires=WAKE_EXPIRES, retry=False)
