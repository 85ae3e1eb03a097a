"""The service under a longer prefix."""

from django.urls import include, path

urlpatterns = [path("a/b/c/", include("wechat_token.urls"))]
