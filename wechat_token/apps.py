from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class WeChatTokenConfig(AppConfig):
    name = "wechat_token"
    verbose_name = _("WeChat tokens")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import beat, checks, lifecycle, logs
        from .api import access_logs
        from .clients import keyring

        checks.register()
        lifecycle.connect()
        keyring.connect()
        logs.connect()
        access_logs.connect()
        post_migrate.connect(beat.create_periodic_tasks, sender=self, dispatch_uid="wechat_token.beat")
