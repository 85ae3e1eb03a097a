"""What browsers may ask without a key. Mount it where pages can reach it, apart from :mod:`wechat_token.urls`::

path("wechat/", include("wechat_token.public_urls"))
"""

from __future__ import annotations

from django.urls import path

from .api import public

app_name = "wechat_token_public"

urlpatterns = [
    path("public/jssdk/<str:ref>", public.jssdk, name="jssdk"),
]
