"""What follows when an account is saved or deleted: its token is kept in step and its first fetch starts at once."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import F
from django.db.models.signals import post_delete, post_save

from . import background, clock, directory, schedule, shelf
from .models import ACCESS_TOKEN, Account, Token

logger = logging.getLogger("wechat_token")


def connect() -> None:
    post_save.connect(account_saved, sender=Account, dispatch_uid="wechat_token.account_saved")
    post_delete.connect(account_deleted, sender=Account, dispatch_uid="wechat_token.account_deleted")


def account_saved(instance: Account, using: str, raw: bool = False, **kwargs: Any) -> None:
    """Make or wake the account's token (R10: editing retries at once), in the operator's own transaction.

    The token in hand stays and is served until its successor is stored.
    """
    if raw:  # loaddata brings the token rows itself
        return
    now = clock.now()
    Token.objects.using(using).get_or_create(account=instance, kind=ACCESS_TOKEN)
    for token in Token.objects.using(using).filter(account=instance):
        Token.objects.using(using).filter(pk=token.pk).update(
            revision=F("revision") + 1, **schedule.edited(token, now if instance.is_active else None)
        )
        transaction.on_commit(partial(_account_changed, instance.appid, token.kind, token.pk), using=using)


def account_deleted(instance: Account, using: str, **kwargs: Any) -> None:
    transaction.on_commit(partial(_forget, instance.appid, ACCESS_TOKEN), using=using)


def _account_changed(appid: str, kind: str, token_id: int) -> None:
    _forget(appid, kind)
    background.run(("kick", token_id), partial(_kick, token_id))


def _forget(appid: str, kind: str) -> None:
    shelf.forget((appid, kind))
    directory.forget_default()


def _kick(token_id: int) -> None:
    """Tell a worker, in a thread: a broker that is down must not make the admin wait (R7).

    If it cannot be told, nothing is lost: the row is due, and beat or the first caller finds it.
    """
    from .tasks import refresh_token

    refresh_token.apply_async((token_id,), retry=False)
