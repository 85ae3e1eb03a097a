from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st
from responses import matchers

from wechat_token.exceptions import (
    AnswerError,
    APIError,
    ConfigurationError,
    EncryptionKeyError,
    ErrorClass,
    UpstreamError,
)
from wechat_token.platforms.base import ForcedRefreshRule, Issued, Material, Renewal
from wechat_token.platforms.official_account import OfficialAccountAccessToken
from wechat_token.redaction import Secret

from .leaks import visible

HOST = "https://api.weixin.qq.com"
STABLE_URL = f"{HOST}/cgi-bin/stable_token"
CLASSIC_URL = f"{HOST}/cgi-bin/token"
PROBE_URL = f"{HOST}/cgi-bin/get_api_domain_ip"
TOKEN = "61_T0ken-canary_" + "x" * 120
SECRET = "5ecret0123456789abcdef0123456789"

source = OfficialAccountAccessToken()


@dataclass
class FakeAccount:
    appid: str = "wx0123456789abcdef"
    ref: str = "wx0123456789abcdef"
    endpoint: str = "stable"
    daily_limit: int | None = None
    secret: Secret = field(default_factory=lambda: Secret(SECRET))


CLASSIC = FakeAccount(endpoint="classic")
STABLE = FakeAccount()


@pytest.fixture(autouse=True)
def base_url(settings: Any) -> None:
    settings.WECHAT_TOKEN = {"API_BASE_URL": HOST}


def fetch(account: FakeAccount, *, forced: bool = False) -> Issued:
    return source.prepare(account, Material(), forced=forced)()


def answered(body: Any, *, status: int = 200, account: FakeAccount = STABLE) -> Issued:
    """What is made of an answer."""
    with responses.RequestsMock() as mock:
        mock.post(STABLE_URL, body=body if isinstance(body, (str, bytes)) else json.dumps(body), status=status)
        return fetch(account)


def refused(body: Any, **more: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        answered(body, **more)
    return caught.value


# -- requests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forced", [False, True])
@responses.activate
def test_fetch__stable_request(forced: bool) -> None:
    body = {
        "grant_type": "client_credential",
        "appid": STABLE.appid,
        "secret": SECRET,
        "force_refresh": forced,
    }
    call = responses.post(
        STABLE_URL,
        json={"access_token": TOKEN, "expires_in": 7200},
        match=[matchers.json_params_matcher(body), matchers.query_param_matcher({})],
    )
    issued = fetch(STABLE, forced=forced)
    assert (issued.value, issued.expires_in) == (Secret(TOKEN), 7200)
    assert call.call_count == 1


@pytest.mark.parametrize("forced", [False, True])
@responses.activate
def test_fetch__classic_request(forced: bool) -> None:
    query = {"grant_type": "client_credential", "appid": CLASSIC.appid, "secret": SECRET}
    call = responses.get(
        CLASSIC_URL,
        json={"access_token": TOKEN, "expires_in": 7200},
        match=[matchers.query_param_matcher(query)],
    )
    assert fetch(CLASSIC, forced=forced).value == Secret(TOKEN)
    assert call.call_count == 1


@responses.activate
def test_fetch__passes_the_clock_skew_on() -> None:
    responses.post(
        STABLE_URL,
        json={"access_token": TOKEN, "expires_in": 7200},
        headers={"Date": "Thu, 01 Jan 1970 00:00:00 GMT"},
    )
    assert (fetch(STABLE).skew or 0) < -1_000_000_000


class Unreadable:
    """An AppSecret whose key is lost."""

    def reveal(self) -> str:
        raise EncryptionKeyError("no key reads it")


@responses.activate
def test_prepare__needs_the_secret_before_anything_is_at_stake() -> None:
    """R31: what can fail by itself fails here, and nothing has left."""
    with pytest.raises(EncryptionKeyError):
        source.prepare(FakeAccount(secret=Unreadable()), Material(), forced=False)  # type: ignore[arg-type]  # stands for a field's
    assert len(responses.calls) == 0


@responses.activate
def test_prepare__needs_settings_before_anything_is_at_stake(settings: Any) -> None:
    settings.WECHAT_TOKEN = {"API_BASE_URL": "http://api.example"}
    with pytest.raises(ConfigurationError, match="API_BASE_URL"):
        source.prepare(STABLE, Material(), forced=False)
    assert len(responses.calls) == 0


@responses.activate
def test_prepare__sends_nothing_by_itself() -> None:
    source.prepare(STABLE, Material(), forced=False)
    assert len(responses.calls) == 0


# -- answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"access_token": TOKEN, "expires_in": 1},
        {"access_token": TOKEN, "expires_in": 30 * 86_400},
        {"access_token": "x" * 8192, "expires_in": 7200},
        {"access_token": "!~", "expires_in": 7200},
        {"access_token": TOKEN, "expires_in": 7200, "errcode": 0, "errmsg": "ok"},
        {"access_token": TOKEN, "expires_in": 7200, "something": ["new"]},
    ],
)
def test_fetch__accepts(body: dict[str, Any]) -> None:
    issued = answered(body)
    assert (issued.value, issued.expires_in) == (Secret(body["access_token"]), body["expires_in"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"errcode": 0, "errmsg": "ok"},
        {"access_token": TOKEN},
        {"expires_in": 7200},
        *({"access_token": TOKEN, "expires_in": life} for life in (0, -1, True, "7200", 7200.0, None, 2_592_001)),
        *(
            {"access_token": token, "expires_in": 7200}
            for token in (
                "",
                " ",
                "a b",
                "a\n",
                "a\x00",
                "\u4ee4\u724c",
                "x" * 8193,
                None,
                1,
                ["a"],
                {"a": 1},
            )
        ),
        *({"errcode": code} for code in (None, True, 1.5, "", "forty", "4" * 10, 10**9, [40001], "４０００１")),
    ],
)
def test_fetch__unreadable_answer_may_have_been_a_token(body: dict[str, Any]) -> None:
    error = refused(body)
    assert type(error) is AnswerError
    assert (error.error_class, error.may_have_issued, error.errcode) == (ErrorClass.TRANSIENT, True, None)


@pytest.mark.parametrize("code", [40125, "40125"])
def test_fetch__errcode(code: int | str) -> None:
    error = refused({"errcode": code, "errmsg": "invalid appsecret rid: 61a2b3c4-5d6e7f80-12345678"})
    assert type(error) is APIError
    assert str(error) == "wx0123456789abcdef: errcode 40125: invalid appsecret"
    assert (error.errcode, error.error_class) == (40125, ErrorClass.HUMAN)
    assert (error.rid, error.may_have_issued) == ("61a2b3c4-5d6e7f80-12345678", False)


def test_fetch__errcode_with_empty_token() -> None:
    assert refused({"access_token": "", "expires_in": 0, "errcode": -1}).errcode == -1


def test_fetch__errcode_with_retry_after() -> None:
    assert refused({"errcode": 89507, "errmsg": "refused"}).retry_after == 3600


def test_fetch__errcode_with_egress_ip() -> None:
    error = refused({"errcode": 40164, "errmsg": "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist"})
    assert error.egress_ip == "203.0.113.7"


def test_fetch__unknown_errcode() -> None:
    assert refused({"errcode": 77777, "errmsg": "new"}).error_class is ErrorClass.UNKNOWN


@pytest.mark.parametrize("errmsg", [None, 7, ["x"], {"access_token": TOKEN}, "\ud800 half", "x\r\n[CRITICAL] y"])
def test_fetch__errmsg_of_any_kind_makes_a_clean_line(errmsg: Any) -> None:
    message = str(refused({"errcode": 40013, "errmsg": errmsg}))
    assert message.encode().startswith(b"wx0123456789abcdef: errcode 40013: ")
    assert message.isprintable()
    assert TOKEN not in message


def test_fetch__http_error() -> None:
    error = refused("<html>", status=502)
    assert type(error) is AnswerError
    assert error.may_have_issued


@pytest.mark.parametrize(
    "body",
    [
        {"access_token": TOKEN, "expires_in": 0},
        {"access_token": TOKEN, "errcode": 40001, "errmsg": f"invalid {TOKEN} {SECRET}"},
    ],
)
def test_fetch__errors_lead_to_no_secret(body: dict[str, Any]) -> None:
    seen = visible(refused(body))
    assert TOKEN not in seen
    assert SECRET not in seen


def test_fetch__secret_of_any_kind_quoted_by_whoever_refuses_is_masked() -> None:
    """S2: an error page of a proxy may repeat the request."""
    odd = FakeAccount(secret=Secret('5ecret & "more" of it'))
    body = {"errcode": 40125, "errmsg": 'no: secret=5ecret+%26+%22more%22+of+it, 5ecret & "more" of it rid: 5ecret'}
    error = refused(body, account=odd)
    assert "more" not in visible(error)
    assert "no: secret=" in str(error)


# -- probe -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "accepted"),
    [
        ({"ip_list": ["203.0.113.1"]}, True),
        ({"ip_list": [], "errcode": 0}, True),
        ({"errcode": 0, "errmsg": "ok"}, True),
        ({"errcode": 40001, "errmsg": "invalid credential"}, False),
        ({"errcode": 40014}, False),
        ({"errcode": "42001"}, False),
        ({"errcode": -1}, None),
        ({"errcode": 45009}, None),
        ({"errcode": 40164}, None),
        ({"errcode": 41001}, None),
        ({"ip_list": ["203.0.113.1"], "errcode": 45009}, None),
        ({}, None),
    ],
)
@responses.activate
def test_is_accepted(body: dict[str, Any], accepted: bool | None) -> None:
    responses.get(PROBE_URL, json=body, match=[matchers.query_param_matcher({"access_token": TOKEN})])
    assert source.is_accepted(STABLE, Secret(TOKEN)) is accepted


@responses.activate
def test_is_accepted__no_answer() -> None:
    responses.get(PROBE_URL, body="<html>", status=502)
    with pytest.raises(AnswerError) as caught:
        source.is_accepted(STABLE, Secret(TOKEN))
    assert TOKEN not in visible(caught.value)


# -- rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "forced", "endpoint", "limit", "displaces"),
    [
        (CLASSIC, False, "classic", 2_000, True),
        (CLASSIC, True, "classic", 2_000, True),
        (STABLE, False, "stable", 500_000, False),
        (STABLE, True, "stable_forced", 20, True),
        (FakeAccount(endpoint="classic", daily_limit=200), False, "classic", 200, True),
        (FakeAccount(endpoint="classic", daily_limit=0), False, "classic", 2_000, True),
        (FakeAccount(daily_limit=200), False, "stable", 500_000, False),
        (FakeAccount(daily_limit=200), True, "stable_forced", 20, True),
    ],
)
def test_endpoint(account: FakeAccount, forced: bool, endpoint: str, limit: int, displaces: bool) -> None:
    assert source.endpoint(account, forced=forced) == endpoint
    assert source.daily_limit(account, forced=forced) == limit
    assert source.displaces(account, forced=forced) is displaces


def test_forced_refresh() -> None:
    assert source.forced_refresh(STABLE) == ForcedRefreshRule(per_day=20, min_gap=30.0)
    assert source.forced_refresh(CLASSIC) is None


@pytest.mark.parametrize(
    ("account", "life", "renewal"),
    [
        (CLASSIC, 7200, Renewal(1200, 960)),
        (CLASSIC, 60, Renewal(10, 8)),
        (STABLE, 7200, Renewal(240, 120)),
        (STABLE, 300, Renewal(80, 40)),
    ],
)
def test_renewal(account: FakeAccount, life: float, renewal: Renewal) -> None:
    found = source.renewal(account, life)
    assert (found.earliest, found.latest) == pytest.approx((renewal.earliest, renewal.latest))


@given(life=st.floats(1, 30 * 86_400), account=st.sampled_from([CLASSIC, STABLE]))
def test_renewal__falls_inside_any_life(life: float, account: FakeAccount) -> None:
    renewal = source.renewal(account, life)
    assert 0 < renewal.latest <= renewal.earliest < life / 2


@given(life=st.floats(1, 30 * 86_400))
def test_renewal__stable_asks_when_a_new_token_is_given(life: float) -> None:
    assert source.renewal(STABLE, life).earliest < 300
