"""System checks: what is wrong with the configuration, where, and what to do."""

from __future__ import annotations

from typing import Any

from django.core import checks

from . import conf


def register() -> None:
    checks.register(check_setting_names, "wechat_token")


def check_setting_names(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    return [
        checks.Error(
            f"WECHAT_TOKEN has an unknown key: {key!r}.",
            hint="Known keys: " + ", ".join(sorted(conf.known_keys())),
            id="wechat_token.E001",
        )
        for key in conf.unknown_keys()
    ]
