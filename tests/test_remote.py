from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any

import pytest
import requests
import responses
from asgiref.sync import async_to_sync

from wechat_token import (
    WeChatSession,
    aget_ticket,
    arefresh_ticket,
    get_access_token,
    get_ticket,
    process,
    refresh_access_token,
    refresh_ticket,
    sign_card,
    sign_jsapi,
)
from wechat_token.conf import get_settings
from wechat_token.engine import Reason, clear_memory, drain, refresh_now
from wechat_token.exceptions import (
    AccountAmbiguous,
    AccountNotFound,
    CentreUnavailable,
    ConfigurationError,
    ErrorClass,
    RefreshRateLimited,
    TokenUnavailable,
)
from wechat_token.models import Account

from .conftest import APPID, Time, row
from .ground.caches import SETTING, SharedCache
from .leaks import visible
from .live.site import live_site
from .sdks.server import serve

CENTRE = "https://tokens.example/wechat"
KEY = "wxt_canary-key-51d0c2"
READ = f"{CENTRE}/accounts/{APPID}/access_token"
COMPLAIN = f"{READ}/refresh"
OLD, NEW = "canary-token-old-71bd", "canary-token-new-8c3e"


def answer(token: str = OLD, expires_in: Any = 7200, **more: Any) -> dict[str, Any]:
    return {"access_token": token, "expires_in": expires_in, "expires_at": "2026-03-02T06:00:00Z", **more}


def refusal(code: str, **details: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": "some text", **details}}


@pytest.fixture(autouse=True)
def site(settings: Any) -> None:
    """A remote site. Without the ``db`` fixture, touching the database is an error."""
    settings.WECHAT_TOKEN = {"REMOTE_URL": f"{CENTRE}/", "REMOTE_KEY": f"{KEY}\n"}


@pytest.fixture
def centre() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


# -- reading -------------------------------------------------------------------------------------------------


def test_read__asks_the_centre_with_the_key(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(READ, json=answer())
    assert get_access_token(APPID) == OLD
    assert centre.calls[0].request.headers["Authorization"] == f"Bearer {KEY}"


def test_read__is_answered_from_memory_for_thirty_seconds(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(READ, json=answer())
    for _ in range(30):
        get_access_token(APPID)
        time.pass_(0.99)
    assert len(centre.calls) == 1


@pytest.mark.usefixtures("own_connections")
def test_read__looks_again_in_the_background(time: Time, centre: responses.RequestsMock) -> None:
    """R4: whoever has a usable token does not wait for the server."""
    may_answer = threading.Event()

    def slow(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        assert may_answer.wait(10)
        return 200, {}, json.dumps(answer(NEW))

    centre.get(READ, json=answer())
    get_access_token(APPID)
    centre.remove("GET", READ)
    centre.add_callback("GET", READ, slow)
    time.pass_(31)
    assert get_access_token(APPID) == OLD
    may_answer.set()
    for _ in range(200):
        if get_access_token(APPID) == NEW:
            return
        sleep(0.02)
    pytest.fail("nobody looked again")


def test_read__token_in_hand_serves_while_the_centre_is_down_until_it_is_dead(
    time: Time, centre: responses.RequestsMock
) -> None:
    centre.get(READ, json=answer(expires_in=600))
    get_access_token(APPID)
    centre.replace("GET", READ, body=requests.ConnectionError())
    while time.elapsed < 599:
        assert get_access_token(APPID) == OLD
        time.pass_(7)
    time.pass_(7)
    with pytest.raises(CentreUnavailable):
        get_access_token(APPID)


@pytest.fixture
def shared_cache(settings: Any) -> Iterator[None]:
    settings.CACHES = SETTING
    yield
    SharedCache.clear_all()


@pytest.mark.usefixtures("shared_cache")
def test_read__of_a_second_process_comes_from_the_shared_cache(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(READ, json=answer())
    get_access_token(APPID)
    clear_memory()
    assert get_access_token(APPID) == OLD
    assert len(centre.calls) == 1


@pytest.mark.usefixtures("shared_cache")
def test_read__older_answer_in_the_shared_cache_is_not_taken(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(READ, json=answer())
    get_access_token(APPID)
    late = dict(SharedCache.stored)
    time.pass_(2)
    centre.post(COMPLAIN, json=answer(NEW, refreshed=True))
    refresh_access_token(APPID, stale_token=OLD)
    SharedCache.stored.update(late)  # by a process whose read was slow
    time.pass_(2)
    assert get_access_token(APPID) == NEW


@pytest.mark.usefixtures("own_connections")
def test_read__of_many_threads_is_one_request(centre: responses.RequestsMock) -> None:
    def slow(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        sleep(0.2)
        return 200, {}, json.dumps(answer())

    centre.add_callback("GET", READ, slow)
    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(lambda _: get_access_token(APPID), range(20))) == {OLD}
    assert len(centre.calls) == 1


def test_read__token_taken_away_at_the_centre_is_dropped(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(READ, json=answer())
    get_access_token(APPID)
    centre.replace("GET", READ, status=404, json=refusal("account_not_found"))
    time.pass_(31)
    get_access_token(APPID)
    time.pass_(31)
    with pytest.raises(AccountNotFound):
        get_access_token(APPID)


def test_read__without_account_means_the_one_in_the_settings(
    time: Time, centre: responses.RequestsMock, settings: Any
) -> None:
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "REMOTE_APPID": APPID}
    centre.get(READ, json=answer())
    assert get_access_token() == OLD


def test_read__without_any_account() -> None:
    with pytest.raises(AccountAmbiguous, match="REMOTE_APPID"):
        get_access_token()


def test_read__odd_appid_stays_one_path_segment(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(f"{CENTRE}/accounts/..%2Fhealth%3F/access_token", json=answer())
    assert get_access_token("../health?") == OLD


# -- failures ------------------------------------------------------------------------------------------------


def test_failure__is_tried_three_times_and_then_told(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(READ, body=requests.ConnectionError())
    with pytest.raises(CentreUnavailable, match="token server") as caught:
        get_access_token(APPID)
    assert len(centre.calls) == 3
    assert caught.value.error_class is ErrorClass.TRANSIENT


def test_failure__that_passes_is_not_seen(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(READ, body=requests.ConnectionError())
    centre.get(READ, status=502, body="<html>")
    centre.get(READ, json=answer())
    assert get_access_token(APPID) == OLD


def test_failure__lets_the_centre_rest_longer_and_longer(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(READ, body=requests.ConnectionError())
    for _ in range(600):
        with pytest.raises(CentreUnavailable):
            get_access_token(APPID)
        time.pass_(1)
    assert 30 <= len(centre.calls) <= 90  # three every thirty seconds or so


def test_failure__with_a_token_in_hand_rests_too(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(READ, json=answer())
    get_access_token(APPID)
    centre.replace("GET", READ, body=requests.ConnectionError())
    for _ in range(600):
        get_access_token(APPID)
        time.pass_(1)
    assert 15 <= len(centre.calls) <= 40


def test_failure__is_logged_once_a_streak(
    time: Time, centre: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    centre.get(READ, status=500, body="")
    for _ in range(100):
        with pytest.raises(CentreUnavailable):
            get_access_token(APPID)
        time.pass_(1)
    assert len(caplog.records) == 1


def test_failure__wrong_key_is_said_and_not_tried_again_soon(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(READ, status=401, json=refusal("invalid_key"))
    for _ in range(29):
        with pytest.raises(CentreUnavailable, match="refuses REMOTE_KEY") as caught:
            get_access_token(APPID)
        time.pass_(1)
    assert len(centre.calls) == 1
    assert caught.value.error_class is ErrorClass.HUMAN


def test_failure__of_wechat_is_passed_on(time: Time, centre: responses.RequestsMock) -> None:
    body = refusal("token_unavailable", **{"class": "human", "errcode": 40125, "rid": None})
    centre.get(READ, status=503, json=body, headers={"Retry-After": "17"})
    with pytest.raises(TokenUnavailable) as caught:
        get_access_token(APPID)
    assert type(caught.value) is TokenUnavailable
    assert (caught.value.errcode, caught.value.retry_after) == (40125, 17)
    assert caught.value.error_class is ErrorClass.HUMAN


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, refusal("account_not_found"), AccountNotFound),
        (404, {"detail": "no such page"}, CentreUnavailable),
        (429, refusal("too_many_failures"), CentreUnavailable),
        (500, refusal("internal_error"), CentreUnavailable),
        (503, {"error": "a text"}, CentreUnavailable),
        (503, refusal("token_unavailable", **{"class": ["odd"], "errcode": "x"}), TokenUnavailable),
    ],
)
def test_failure__by_status_and_code(
    time: Time, centre: responses.RequestsMock, status: int, body: Any, expected: type[Exception]
) -> None:
    centre.get(READ, status=status, json=body)
    with pytest.raises(expected) as caught:
        get_access_token(APPID)
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>log in</html>",
        b"[]",
        b'{"access_token":"a","expires_in":7200',
        json.dumps(answer("")).encode(),
        json.dumps(answer("two\nlines")).encode(),
        json.dumps(answer("x" * 9000)).encode(),
        json.dumps(answer(expires_in=0)).encode(),
        json.dumps(answer(expires_in=-5)).encode(),
        json.dumps(answer(expires_in=True)).encode(),
        json.dumps(answer(expires_in="7200")).encode(),
        json.dumps(answer(expires_in=10**12)).encode(),
        json.dumps(answer(padding="x" * 70_000)).encode(),
    ],
)
def test_failure__answer_of_no_use(time: Time, centre: responses.RequestsMock, body: bytes) -> None:
    centre.get(READ, body=body)
    with pytest.raises(CentreUnavailable):
        get_access_token(APPID)


def test_failure__redirect_is_not_followed(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(READ, status=302, headers={"Location": "https://elsewhere.example/"})
    with pytest.raises(CentreUnavailable, match="a redirect"):
        get_access_token(APPID)
    assert {call.request.url for call in centre.calls} == {READ}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"REMOTE_KEY": ""}, "REMOTE_KEY"),
        ({"REMOTE_URL": "http://tokens.example/wechat"}, "REMOTE_URL"),
        ({"REMOTE_URL": "tokens.example"}, "REMOTE_URL"),
    ],
)
def test_failure__wrong_setting_is_named(settings: Any, change: dict[str, str], named: str) -> None:
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, **change}
    with pytest.raises(ConfigurationError, match=named):
        get_access_token(APPID)


# -- complaints ----------------------------------------------------------------------------------------------


def test_complaint__is_passed_on_and_its_answer_served(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(READ, json=answer())
    centre.post(COMPLAIN, json=answer(NEW, refreshed=True))
    assert refresh_access_token(APPID, stale_token=get_access_token(APPID)) == NEW
    assert get_access_token(APPID) == NEW
    assert json.loads(centre.calls[1].request.body or b"") == {"stale_token": OLD}
    assert len(centre.calls) == 2


def test_complaint__about_the_same_token_again_is_answered_here(time: Time, centre: responses.RequestsMock) -> None:
    centre.post(COMPLAIN, json=answer(NEW, refreshed=True))
    for _ in range(100):
        assert refresh_access_token(APPID, stale_token=OLD) == NEW
        time.pass_(1)
    assert len(centre.calls) == 1


def test_complaint__about_a_live_token_returns_it(time: Time, centre: responses.RequestsMock) -> None:
    centre.post(COMPLAIN, json=answer(refreshed=False))
    assert refresh_access_token(APPID, stale_token=OLD) == OLD
    assert refresh_access_token(APPID, stale_token=OLD) == OLD
    assert len(centre.calls) == 2  # the centre knows better than we for how long that holds


@pytest.mark.usefixtures("own_connections")
def test_complaint__of_many_threads_is_one_request(centre: responses.RequestsMock) -> None:
    def slow(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        sleep(0.2)
        return 200, {}, json.dumps(answer(NEW, refreshed=True))

    centre.add_callback("POST", COMPLAIN, slow)
    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(lambda _: refresh_access_token(APPID, stale_token=OLD), range(20))) == {NEW}
    assert len(centre.calls) == 1


def test_complaint__lost_is_repeated(time: Time, centre: responses.RequestsMock) -> None:
    centre.post(COMPLAIN, body=requests.ReadTimeout())
    centre.post(COMPLAIN, json=answer(NEW, refreshed=True))
    assert refresh_access_token(APPID, stale_token=OLD) == NEW


def test_complaint__with_the_centre_down(time: Time, centre: responses.RequestsMock) -> None:
    centre.post(COMPLAIN, body=requests.ConnectionError())
    with pytest.raises(CentreUnavailable):
        refresh_access_token(APPID, stale_token=OLD)
    assert len(centre.calls) == 3


@pytest.mark.parametrize("code", ["refresh_rate_limited", "too_many_complaints"])
def test_complaint__held_back(time: Time, centre: responses.RequestsMock, code: str) -> None:
    centre.post(COMPLAIN, status=429, json=refusal(code), headers={"Retry-After": "40"})
    with pytest.raises(RefreshRateLimited) as caught:
        refresh_access_token(APPID, stale_token=OLD)
    assert caught.value.retry_after == 40


def test_complaint__with_a_key_that_may_only_read(time: Time, centre: responses.RequestsMock) -> None:
    centre.post(COMPLAIN, status=403, json=refusal("refresh_not_allowed"))
    with pytest.raises(CentreUnavailable, match="may read tokens but not complain"):
        refresh_access_token(APPID, stale_token=OLD)


def test_complaint__is_not_undone_by_a_read_that_was_under_way(time: Time, centre: responses.RequestsMock) -> None:
    def overtaken(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        time.pass_(1)
        refresh_access_token(APPID, stale_token=OLD)
        time.pass_(1)
        return 200, {}, json.dumps(answer(OLD))

    centre.get(READ, json=answer())
    get_access_token(APPID)
    time.pass_(31)
    centre.remove("GET", READ)
    centre.add_callback("GET", READ, overtaken)
    centre.post(COMPLAIN, json=answer(NEW, refreshed=True))
    get_access_token(APPID)
    assert get_access_token(APPID) == NEW


def test_session__on_a_remote_site(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(READ, json=answer())
    centre.post(COMPLAIN, json=answer(NEW, refreshed=True))
    centre.get("https://api.weixin.qq.com/x", json={"errcode": 42001})
    centre.get("https://api.weixin.qq.com/x", json={"errcode": 0})
    with WeChatSession(APPID) as wx:
        assert wx.get("/x").json() == {"errcode": 0}
    keys = [call.request.headers.get("Authorization") for call in centre.calls]
    assert [key is not None for key in keys] == [True, False, True, False]


# -- never WeChat --------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_engine__renews_no_account_of_a_copied_database(
    time: Time, centre: responses.RequestsMock, settings: Any
) -> None:
    account = Account.objects.create(appid=APPID, secret="canary-secret", name="copied from production")
    assert row(account).due_at is not None
    assert drain() == {}
    with pytest.raises(ConfigurationError, match="REMOTE_URL"):
        refresh_now((APPID, "access_token"), Reason.ADMIN)
    assert len(centre.calls) == 0


# -- secrecy -------------------------------------------------------------------------------------------------


def test_secrecy__settings_show_no_key() -> None:
    assert "canary" not in repr(get_settings())


@pytest.mark.parametrize("status", [200, 302, 401, 404, 500])
def test_secrecy__errors_and_logs_show_neither_key_nor_token(
    time: Time, centre: responses.RequestsMock, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    centre.add("GET", READ, status=status, json={"access_token": OLD, "expires_in": "never", "error": KEY})
    centre.add("POST", COMPLAIN, status=status, json={"access_token": OLD, "expires_in": "never"})
    with pytest.raises((TokenUnavailable, AccountNotFound)) as read:
        get_access_token(APPID)
    with pytest.raises((TokenUnavailable, AccountNotFound)) as complained:
        refresh_access_token(APPID, stale_token=NEW)
    assert "canary" not in caplog.text
    for caught in (read, complained):
        assert "canary-key" not in visible(caught.value)
        assert OLD not in visible(caught.value)


# -- with the real server ------------------------------------------------------------------------------------


@pytest.mark.proof
def test_remote__reads_and_complains_at_the_real_service(settings: Any) -> None:
    with live_site() as site:
        site.add_account(APPID, "classic")
        key = site.shell(
            "from wechat_token.client_keys.keys import make_key;"
            "print(make_key('dev', all_accounts=True, may_refresh=True)[1].reveal())"
        ).strip()
        settings.WECHAT_TOKEN = {"REMOTE_URL": serve(site), "REMOTE_KEY": key}
        first = get_access_token(APPID)
        assert site.fake.is_valid(first)

        site.fake.kill_token(APPID)
        second = refresh_access_token(APPID, stale_token=first)
        assert second != first
        assert site.fake.is_valid(second)
        assert get_access_token(APPID) == second
        assert refresh_access_token(APPID, stale_token=second) == second
        assert site.fake.issued(APPID) == 2
        with pytest.raises(AccountNotFound):
            get_access_token("wx-unknown")

        settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "REMOTE_KEY": key[:-1] + "#"}
        process.forget()
        with pytest.raises(CentreUnavailable, match="refuses REMOTE_KEY"):
            get_access_token(APPID)


# -- tickets, and signatures made here -------------------------------------------------------------------------

TICKET = f"{CENTRE}/accounts/{APPID}/jsapi_ticket"
CARD_TICKET = f"{CENTRE}/accounts/{APPID}/wx_card_ticket"


def ticket_answer(ticket: str = OLD, **more: Any) -> dict[str, Any]:
    return {"ticket": ticket, "expires_in": 7200, "expires_at": "2026-03-02T06:00:00Z", **more}


def test_ticket__is_read_from_the_centre_and_pages_are_signed_here(
    time: Time, centre: responses.RequestsMock
) -> None:  # fmt: skip
    centre.get(TICKET, json=ticket_answer())
    assert get_ticket(APPID) == OLD
    url = "https://shop.example.com/sale"
    config = sign_jsapi(f"{url}#top", APPID)
    text = f"jsapi_ticket={OLD}&noncestr={config['nonceStr']}&timestamp={config['timestamp']}&url={url}"
    assert config["signature"] == hashlib.sha1(text.encode()).hexdigest()
    assert config["appId"] == APPID
    assert len(centre.calls) == 1


def test_ticket__of_cards_and_of_the_account_in_the_settings(
    time: Time, centre: responses.RequestsMock, settings: Any
) -> None:
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "REMOTE_APPID": APPID}
    centre.get(CARD_TICKET, json=ticket_answer(NEW))
    assert get_ticket(kind="wx_card") == NEW
    assert sign_card("p1")["signature"]


def test_ticket__complaint_is_passed_on(time: Time, centre: responses.RequestsMock) -> None:
    centre.post(f"{TICKET}/refresh", json=ticket_answer(NEW, refreshed=True))
    assert refresh_ticket(APPID, stale_ticket=OLD) == NEW
    assert json.loads(centre.calls[0].request.body or b"") == {"stale_ticket": OLD}
    assert get_ticket(APPID) == NEW


def test_ticket__a_key_for_less_is_told_where_to_widen_it(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(TICKET, status=403, json=refusal("not_for_this_key"))
    with pytest.raises(CentreUnavailable, match="Widen it on the token server") as caught:
        sign_jsapi("https://shop.example.com/", APPID)
    assert caught.value.error_class is ErrorClass.HUMAN


def test_ticket__a_token_in_its_place_is_no_ticket(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(TICKET, json=answer())
    with pytest.raises(CentreUnavailable):
        get_ticket(APPID)


def test_ticket__in_a_loop(time: Time, centre: responses.RequestsMock) -> None:
    centre.get(TICKET, json=ticket_answer())
    centre.post(f"{TICKET}/refresh", json=ticket_answer(NEW, refreshed=True))

    async def both() -> tuple[str, str]:
        ticket = await aget_ticket(APPID)
        return ticket, await arefresh_ticket(APPID, stale_ticket=ticket)

    assert async_to_sync(both)() == (OLD, NEW)
