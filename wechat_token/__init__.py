"""WeChat credentials for a Django site and its company: one owner of the AppSecret, one refresh at a time.

The public names are loaded on first use, so that importing the package before Django's apps are ready
(in settings, in ``INSTALLED_APPS``) costs nothing and breaks nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "WeChatSession",
    "aget_access_token",
    "aget_ticket",
    "arefresh_access_token",
    "arefresh_ticket",
    "asign_card",
    "asign_jsapi",
    "get_access_token",
    "get_ticket",
    "refresh_access_token",
    "refresh_ticket",
    "sign_card",
    "sign_jsapi",
]

if TYPE_CHECKING:
    from .contrib.jssdk.signing import asign_card, asign_jsapi, sign_card, sign_jsapi
    from .engine import (
        aget_access_token,
        aget_ticket,
        arefresh_access_token,
        arefresh_ticket,
        get_access_token,
        get_ticket,
        refresh_access_token,
        refresh_ticket,
    )
    from .session import WeChatSession

_ELSEWHERE = {
    "WeChatSession": ".session",
    **dict.fromkeys(("asign_card", "asign_jsapi", "sign_card", "sign_jsapi"), ".contrib.jssdk.signing"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_ELSEWHERE.get(name, ".engine"), __name__), name)
    globals()[name] = value  # the next access skips this function
    return value
