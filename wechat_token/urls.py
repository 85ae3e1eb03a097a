from __future__ import annotations

app_name = "wechat_token"

urlpatterns: list[object] = []
