"""Mount these wherever you like: ``path("wechat/", include("wechat_token.urls"))``."""

from __future__ import annotations

from django.urls import path

from .api import accounts, health, openapi, weixin

app_name = "wechat_token"

urlpatterns = [
    path("accounts/<str:appid>/access_token", accounts.access_token, name="access_token"),
    path("accounts/<str:appid>/access_token/refresh", accounts.refresh, name="refresh"),
    path("accounts/<str:appid>/jsapi_signature", accounts.jsapi_signature, name="jsapi_signature"),
    *(
        path(f"accounts/<str:appid>/{kind}{tail}", view, {"kind": kind}, name=f"{name}{kind}")
        for kind in ("jsapi_ticket", "wx_card_ticket")
        for tail, name, view in (("", "", accounts.ticket), ("/refresh", "refresh_", accounts.refresh_ticket))
    ),
    path("cgi-bin/token", weixin.token, name="token"),
    path("cgi-bin/stable_token", weixin.stable_token, name="stable_token"),
    path("cgi-bin/ticket/getticket", weixin.getticket, name="getticket"),
    path("health", health.health, name="health"),
    path("health/live", health.live, name="health_live"),
    path("health/accounts", health.accounts, name="health_accounts"),
    path("openapi.json", openapi.openapi, name="openapi"),
]
