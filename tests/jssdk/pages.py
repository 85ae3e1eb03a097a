"""A site with pages for WeChat, and WeChat's check of what they hand to wx.config."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template import engines
from django.urls import include, path, re_path
from django.views.decorators.csrf import csrf_exempt

from wechat_token.api import public
from wechat_token.sandbox import FakeWeChat

HOST = "shop.example.com"
POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self'"
STUB = (Path(__file__).parent / "jweixin.js").read_text()


class WeChat:
    """What WeChat knows and saw. One for each test."""

    def __init__(self, fake: FakeWeChat, appid: str) -> None:
        self.fake, self.appid = fake, appid
        self.tickets: set[str] = set()  # that were handed out; a signature is checked with those that live
        self.domains = {HOST}
        self.keep: str | None = None  # what a cache between keeps of the page
        self.lang = "en"
        self.asked: list[str] = []

    def verdict(self, config: dict[str, object], url: str) -> dict[str, object]:
        if url.split("/")[2] not in self.domains:
            return {"errMsg": "config:invalid url domain", "realAuthUrl": sorted(self.domains)}
        for ticket in filter(self.fake.is_valid, self.tickets):
            text = f"jsapi_ticket={ticket}&noncestr={config['nonceStr']}&timestamp={config['timestamp']}&url={url}"
            if config["appId"] == self.appid and config["signature"] == hashlib.sha1(text.encode()).hexdigest():
                denied = "chooseWXPay" in config["jsApiList"]
                return {"errMsg": "config:permission denied" if denied else "config:ok"}
        return {"errMsg": "config:invalid signature", "realAuthUrl": [url]}


wechat: WeChat = None  # of the test that runs


@csrf_exempt
def check(request: HttpRequest) -> JsonResponse:
    body = json.loads(request.body)
    return JsonResponse(wechat.verdict(body["config"], body["url"]))


def stub(request: HttpRequest) -> HttpResponse:
    return HttpResponse(STUB, content_type="text/javascript")


def page(request: HttpRequest, *, ask: bool = True, api: str = "scanQRCode") -> HttpResponse:
    """A page with the one tag. ``ask`` False: as if ``public_urls`` were not mounted."""
    if "as" in request.GET:  # a proxy that tells the server another address than the browser has
        request.META["RAW_URI"] = request.GET["as"]
    template = engines["django"].from_string(
        f'<!doctype html><html lang="{wechat.lang}"><body>{{% load wechat_token %}}{{% wechat_jssdk "{api}" %}}'
    )
    html = template.render({}, request)
    if not ask:
        html = re.sub(r'"ask": "[^"]*"', '"ask": ""', html)
    if wechat.keep == "":
        wechat.keep = html
    return _strictly(wechat.keep or html)


def app(request: HttpRequest) -> HttpResponse:
    """A single-page app in history mode: any path is this file, and two lines of script are all there is."""
    return _strictly(
        f'<!doctype html><html lang="{wechat.lang}"><body><script src="/jweixin.js"></script>'
        f'<script src="/static/wechat_token/jssdk.js" data-ask="/wechat/public/jssdk/{wechat.appid}" '
        'data-apis="scanQRCode, updateAppMessageShareData"></script>'
    )


def _strictly(html: str) -> HttpResponse:
    return HttpResponse(html, headers={"Content-Security-Policy": POLICY})


def noted(request: HttpRequest, ref: str) -> HttpResponse:
    """``public/jssdk``, and what it is asked to sign."""
    wechat.asked.append(request.GET["url"])
    return public.jssdk(request, ref)


urlpatterns = [
    path("wechat/public/jssdk/<str:ref>", noted),
    path("wechat/", include("wechat_token.public_urls")),
    path("weixin/check", check),
    path("jweixin.js", stub),
    re_path("^app/", app),
    path("alone/", page, {"ask": False}),
    path("paying/", page, {"api": "chooseWXPay"}),
    re_path("^", page),
]
