"""The example project's URLs, and views of a site that uses tokens in its own requests."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from wechat_token import WeChatSession, get_access_token, refresh_access_token


def complain(request: HttpRequest, appid: str) -> HttpResponse:
    refresh_access_token(appid, stale_token=get_access_token(appid))
    return HttpResponse("complained")


def call(request: HttpRequest, appid: str) -> HttpResponse:
    with WeChatSession(appid) as wx:
        wx.post("/cgi-bin/message/custom/send", json={"touser": "o1"}).raise_for_status()
    return HttpResponse("called")


def fail(request: HttpRequest) -> HttpResponse:
    raise RuntimeError(request.GET["planted"])


urlpatterns = [
    path("site/fail", fail),
    path("site/<str:appid>/complain", complain),
    path("site/<str:appid>/call", call),
    path("", include("example_project.urls")),
]
