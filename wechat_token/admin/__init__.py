"""The admin. A site with an ``AdminSite`` of its own registers these classes there."""

from __future__ import annotations

from .accounts import AccountAdmin
from .client_keys import ClientKeyAdmin
from .refresh_log import RefreshLogAdmin

__all__ = ["AccountAdmin", "ClientKeyAdmin", "RefreshLogAdmin"]
