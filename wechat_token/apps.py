from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class WeChatTokenConfig(AppConfig):
    name = "wechat_token"
    verbose_name = _("WeChat tokens")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from functools import partial

        from . import beat, checks, logs, security
        from .api import access_logs
        from .client_keys import keyring
        from .diagnosis import watch
        from .engine import connect as connect_engine
        from .engine import lane

        security.deliver_by(partial(lane, "security"))
        checks.register()
        connect_engine()
        keyring.connect()
        logs.connect()
        access_logs.connect()
        watch.connect()
        post_migrate.connect(beat.create_periodic_tasks, sender=self, dispatch_uid="wechat_token.beat")
