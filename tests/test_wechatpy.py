from __future__ import annotations

import io
import logging
from typing import Any

import pytest

pytest.importorskip("wechatpy", reason="wechatpy is not installed")

from wechatpy.exceptions import WeChatClientException

from wechat_token import get_ticket
from wechat_token.contrib.wechatpy import WeChatTokenClient
from wechat_token.exceptions import AccountNotFound, HostNotAllowed, TransportError
from wechat_token.models import Account
from wechat_token.sandbox import FakeWeChat, FakeWeChatServer, Fault

from .conftest import APPID, SECRET, Time, row
from .leaks import visible


@pytest.fixture
def client(account: Account) -> WeChatTokenClient:
    return WeChatTokenClient(APPID)


def last_token(account: Account) -> str:
    return row(account).value.reveal()


def test_client__calls_with_the_token_from_here(client: WeChatTokenClient, weixin: FakeWeChat) -> None:
    assert client.user.get("o1")["openid"] == "o1"
    assert weixin.calls_to(APPID, "stable") == 1


def test_client__takes_an_account(account: Account) -> None:
    assert WeChatTokenClient(account).appid == APPID


def test_client__dead_token_becomes_one_complaint(client: WeChatTokenClient, weixin: FakeWeChat) -> None:
    client.user.get("o1")
    weixin.kill_token(APPID)
    assert client.message.send_text("o1", "hello")["errcode"] == 0
    assert weixin.issued(APPID) == 2
    assert weixin.calls_to(APPID, "custom_send") == 2


def test_client__refused_again_raises_and_ends(client: WeChatTokenClient, weixin: FakeWeChat) -> None:
    client.user.get("o1")
    weixin.inject(Fault("error", errcode=40001), times=10, endpoint="user_info")
    weixin.kill_token(APPID)
    with pytest.raises(WeChatClientException) as caught:
        client.user.get("o1")
    assert caught.value.errcode == 40001
    assert weixin.calls_to("", "user_info") + weixin.calls_to(APPID, "user_info") == 3


def test_client__file_is_uploaded_again_whole(
    client: WeChatTokenClient, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[bytes] = []

    def refuse_once(self: FakeWeChat, method: str, path: str, query: Any, body: bytes, remote_ip: str) -> Any:
        if path != "/cgi-bin/media/upload":
            return handle(self, method, path, query, body, remote_ip)
        if not bodies:
            self.kill_token(APPID)
        bodies.append(body)
        return handle(self, "GET", "/cgi-bin/get_api_domain_ip", query, b"", remote_ip)

    handle = FakeWeChat.handle
    monkeypatch.setattr(FakeWeChat, "handle", refuse_once)
    assert "ip_list" in client.media.upload("image", io.BytesIO(b"picture"))
    assert len(bodies) == 2
    assert b"picture" in bodies[1]


def test_client__access_token_is_the_current_one(client: WeChatTokenClient, account: Account) -> None:
    assert client.access_token == last_token(account)


def test_client__fetch_access_token_renews_nothing(
    client: WeChatTokenClient, account: Account, weixin: FakeWeChat, time: Time
) -> None:
    client.fetch_access_token()
    time.pass_(100)
    answer = client.fetch_access_token()
    assert answer["access_token"] == last_token(account)
    assert 0 < answer["expires_in"] <= 7100
    assert weixin.calls_to(APPID, "stable") == 1


def test_client__calls_that_bring_a_token_along(client: WeChatTokenClient, weixin: FakeWeChat) -> None:
    with pytest.raises(WeChatClientException) as caught:  # the sandbox does not know these calls
        client.customservice.delete_account("test@account")
    assert caught.value.errcode == 40066
    assert caught.value.request.url.endswith("/customservice/kfaccount/del?kf_account=test@account")
    with pytest.raises(WeChatClientException) as caught:
        client.material.add("image", io.BytesIO(b"picture"))
    assert caught.value.request.url.endswith("/material/add_material?type=image")


def test_client__tickets_are_kept_in_its_session(client: WeChatTokenClient, weixin: FakeWeChat) -> None:
    assert client.jsapi.get_jsapi_ticket() == client.jsapi.get_jsapi_ticket()
    assert weixin.calls_to(APPID, "ticket") == 1


def test_client__other_hosts_get_no_token(client: WeChatTokenClient) -> None:
    with pytest.raises(HostNotAllowed):
        client.get("https://elsewhere.example/x")


def test_client__unknown_account(db: None) -> None:
    with pytest.raises(AccountNotFound):
        WeChatTokenClient("wx-unknown").user.get("o1")


def test_client__goes_to_the_api_base_url(db: None, settings: Any) -> None:
    Account.objects.create(appid=APPID, secret=SECRET, name="shop")
    fake = FakeWeChat()
    fake.add_account(APPID, SECRET)
    with FakeWeChatServer(fake) as server:
        settings.WECHAT_TOKEN = {"API_BASE_URL": server.url}
        client = WeChatTokenClient(APPID)
        client.user.get("o1")
        fake.kill_token(APPID)
        assert client.user.get("o1")["subscribe"] == 1


@pytest.mark.parametrize("fault", [Fault("lost_before"), Fault("error", errcode=45009)])
def test_secrecy__errors_and_logs_show_no_token(
    client: WeChatTokenClient,
    account: Account,
    weixin: FakeWeChat,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
) -> None:
    caplog.set_level(logging.DEBUG)
    client.user.get("o1")
    weixin.inject(fault, endpoint="user_info")
    with pytest.raises((WeChatClientException, TransportError)) as caught:
        client.user.get("o1")
    shown = visible(caught.value) + caplog.text + str(getattr(caught.value, "response", ""))
    assert last_token(account) not in shown
    assert SECRET not in shown
    if isinstance(caught.value, WeChatClientException):
        assert "access_token" not in caught.value.request.url + caught.value.response.url


def test_jsapi__tickets_are_those_from_here(client: WeChatTokenClient, weixin: FakeWeChat) -> None:
    assert client.jsapi.get_jsapi_ticket() == client.jsapi.get_ticket()["ticket"] == get_ticket(APPID)
    assert client.jsapi.get_jsapi_card_ticket() == client.jsapi.get_ticket("wx_card")["ticket"]
    assert weixin.calls_to(APPID, "ticket") == 2
