"""``python -m tests.sdks.drive NAME``: one SDK through the steps; prints one line of JSON."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import requests
from requests.adapters import HTTPAdapter

APPID, CENTRE, KEY, FAKE = (os.environ.get(name, "") for name in ("APPID", "CENTRE", "KEY", "FAKE_WECHAT"))

Steps = tuple[Callable[[], str], Callable[[], bool]]


def redirect() -> None:
    """What an SDK sends to https://api.weixin.qq.com arrives at the fake WeChat."""
    real = HTTPAdapter.send

    def send(self: HTTPAdapter, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        url = str(request.url)
        if url.startswith("https://api.weixin.qq.com/"):
            request.url = FAKE + url.removeprefix("https://api.weixin.qq.com")
        return real(self, request, **kwargs)

    HTTPAdapter.send = send  # type: ignore[method-assign]


def wechat_session() -> Steps:
    from wechat_token import WeChatSession, get_access_token

    wx = WeChatSession(APPID)
    return (
        lambda: get_access_token(APPID),
        lambda: wx.get("/cgi-bin/user/info", params={"openid": "o1"}).json()["openid"] == "o1",
    )


def wechatpy_drop_in() -> Steps:
    from wechat_token.contrib.wechatpy import WeChatTokenClient

    client = WeChatTokenClient(APPID)
    return lambda: client.access_token, lambda: client.user.get("o1")["openid"] == "o1"


def wechatpy_recipe() -> Steps:
    from .recipes.central_token import CentralToken
    from .recipes.wechatpy_client import CentralWeChatClient

    client = CentralWeChatClient(APPID, CentralToken(CENTRE, APPID, KEY), CENTRE)
    return lambda: client.access_token, lambda: client.user.get("o1")["openid"] == "o1"


def wechat_django_recipe() -> Steps:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from wechat_django.models import WeChatApp

    from .recipes.wechat_django_client import install

    install()
    app = WeChatApp.objects.create(
        title="shop", name="shop", appid=APPID, appsecret=KEY,
        configurations={"ACCESSTOKEN_URL": f"{CENTRE}/cgi-bin/token"},
    )  # fmt: skip
    return lambda: app.client.access_token, lambda: app.client.user.get("o1")["openid"] == "o1"


def werobot_recipe() -> Steps:
    from .recipes.central_token import CentralToken
    from .recipes.werobot_client import CentralClient

    client = CentralClient({"APP_ID": APPID}, CentralToken(CENTRE, APPID, KEY))
    return client.get_access_token, lambda: client.get_user_info("o1")["openid"] == "o1"


PAGE = "https://shop.example.com/sale?from=singlemessage"


def sign_in_process() -> dict[str, Any]:
    from wechat_token import sign_jsapi

    return dict(sign_jsapi(PAGE, APPID))


def sign_with_wechatpy(client: Any) -> dict[str, Any]:
    signature = client.jsapi.get_jsapi_signature("nonce", client.jsapi.get_jsapi_ticket(), 1414587457, PAGE)
    return {"nonceStr": "nonce", "timestamp": 1414587457, "signature": signature}


def sign_with_wechatpy_drop_in() -> dict[str, Any]:
    from wechat_token.contrib.wechatpy import WeChatTokenClient

    return sign_with_wechatpy(WeChatTokenClient(APPID))


def sign_with_wechatpy_recipe() -> dict[str, Any]:
    from .recipes.central_token import CentralToken
    from .recipes.wechatpy_client import CentralWeChatClient

    return sign_with_wechatpy(CentralWeChatClient(APPID, CentralToken(CENTRE, APPID, KEY), CENTRE))


def sign_over_http() -> dict[str, Any]:
    from .recipes.central_signature import sign_page

    return sign_page(CENTRE, APPID, KEY, PAGE)


SIGNERS: dict[str, Callable[[], dict[str, Any]]] = {
    "session": sign_in_process,
    "session-remote": sign_in_process,
    "wechatpy": sign_with_wechatpy_drop_in,
    "wechatpy-remote": sign_with_wechatpy_drop_in,
    "wechatpy-http": sign_with_wechatpy_recipe,
    "werobot": sign_over_http,
}


def is_signed(signed: dict[str, Any]) -> bool:
    """Whether this is what WeChat computes with the ticket of the token server."""
    auth = {"Authorization": f"Bearer {KEY}"}
    ticket = requests.get(f"{CENTRE}/accounts/{APPID}/jsapi_ticket", headers=auth, timeout=10).json()["ticket"]
    text = f"jsapi_ticket={ticket}&noncestr={signed['nonceStr']}&timestamp={signed['timestamp']}&url={PAGE}"
    return bool(signed["signature"] == hashlib.sha1(text.encode()).hexdigest())


DRIVERS: dict[str, tuple[str, Callable[[], Steps]]] = {
    "session": ("requests", wechat_session),
    "session-remote": ("requests", wechat_session),
    "wechatpy": ("wechatpy", wechatpy_drop_in),
    "wechatpy-remote": ("wechatpy", wechatpy_drop_in),
    "wechatpy-http": ("wechatpy", wechatpy_recipe),
    "wechat-django": ("wechat-django", wechat_django_recipe),
    "werobot": ("WeRoBot", werobot_recipe),
}


def main(name: str) -> None:
    package, prepare = DRIVERS[name]
    report: dict[str, Any] = {"version": version(package), "steps": {}}
    steps = report["steps"]
    try:
        if os.environ.get("DJANGO_SETTINGS_MODULE"):
            import django

            django.setup()
        redirect()
        token, call = prepare()
        steps["token"] = len(token()) > 20
        steps["call"] = call()
        if name in SIGNERS:
            steps["signed"] = is_signed(SIGNERS[name]())
        requests.post(f"{FAKE}/_sandbox/kill_token", json={"appid": APPID}, timeout=10).raise_for_status()
        steps["revoked"] = call()
    except Exception:
        report["error"] = traceback.format_exc()
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
