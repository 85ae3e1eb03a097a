"""Platforms of one's own: what they may say, what the checks refuse, and that nothing is shared between accounts."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import responses
from django.core.exceptions import ValidationError
from django.core.management import call_command

from tests.platforms import douyin, tt
from wechat_token import WeChatSession, checks, get_access_token, get_ticket, refresh_access_token, signals
from wechat_token.engine import drain
from wechat_token.exceptions import AccountNotFound, HostNotAllowed, KindNotOffered, TokenUnavailable
from wechat_token.models import Account, ClientKey, Token
from wechat_token.platforms import ACCESS_TOKEN, Issued, Need, Platform, Way
from wechat_token.redaction import Secret

SECRET = "canary-platform-secret-77aa"
PATHS = ("tests.platforms.tt.PLATFORM", "tests.platforms.douyin.PLATFORM")


class Elsewhere:
    """The API of tt: who came with which pass, and what it says next."""

    def __init__(self) -> None:
        self.passes: list[str] = []
        self.cards: list[str] = []
        self.refuse: list[dict] = []

    def give_pass(self, request) -> tuple[int, dict, str]:
        asked = json.loads(request.body)
        assert asked["secret"] == SECRET
        self.passes.append(f"pass-{len(self.passes)}-of-{asked['who'].replace(':', '-')}")
        return 200, {}, json.dumps({"pass": self.passes[-1], "expires_in": 3600})

    def give_card(self, request) -> tuple[int, dict, str]:
        if self.refuse:
            return 200, {}, json.dumps(self.refuse.pop(0))
        held = json.loads(request.body)["pass"]
        self.cards.append(f"card-{len(self.cards)}-for-{held}")
        return 200, {}, json.dumps({"card": self.cards[-1], "expires_in": 600})


@pytest.fixture(autouse=True)
def installed(settings) -> None:
    settings.WECHAT_TOKEN = {**settings.WECHAT_TOKEN, "PLATFORMS": PATHS}


@pytest.fixture
def elsewhere(db, time) -> Iterator[Elsewhere]:
    elsewhere = Elsewhere()
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.add_callback("POST", "https://api.tt.example/pass", elsewhere.give_pass)
        mock.add_callback("POST", "https://api.tt.example/card", elsewhere.give_card)
        elsewhere.mock = mock
        yield elsewhere


@pytest.fixture
def seats(elsewhere) -> tuple[Account, Account]:
    first, second = (
        Account.objects.create(platform="tt", appid="tt1", ref=f"tt1:{seat}", secret=SECRET) for seat in (7, 8)
    )
    return first, second


# -- refs (R27)


def test_ref__names_the_account_everywhere(seats, elsewhere, caplog):
    told = []
    signals.refresh_finished.connect(lambda **said: told.append(said["appid"]), weak=False, dispatch_uid="told")
    with caplog.at_level(logging.DEBUG):
        cards = [get_access_token(f"tt1:{seat}") for seat in (7, 8)]
    signals.refresh_finished.disconnect(dispatch_uid="told")
    assert cards == ["card-0-for-pass-0-of-tt1-7", "card-1-for-pass-1-of-tt1-8"]
    assert told == ["tt1:7", "tt1:7", "tt1:8", "tt1:8"]
    assert [get_access_token(account) for account in seats] == cards
    assert "tt1:7" in caplog.text
    assert not any("tt1 " in record.getMessage() for record in caplog.records)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("ref", ["tt1", "tt1:9", "tt1：7", "tt1:7 ", "0001000002"])
def test_ref__nothing_less_will_do(seats, ref):
    with pytest.raises(AccountNotFound, match="tt1:7, tt1:8"):
        get_access_token(ref)


def test_ref__two_of_one_appid_are_two_and_the_same_ref_is_one(seats):
    with pytest.raises(ValidationError, match="already an account"):
        Account(platform="tt", appid="tt1", ref="tt1:7", secret=SECRET).validate_unique()
    Account(platform="tt", appid="tt1", ref="tt1:9", secret=SECRET).validate_unique()


@pytest.mark.parametrize("ref", ["tt1:a b", "tt1:/x", "tt1:：", "tt1:" + "x" * 160, "tt1:\n"])
def test_ref__that_could_not_stand_in_a_url_is_refused(db, ref):
    with pytest.raises(ValueError, match="cannot be the ref"):
        Account(platform="tt", appid="tt1", ref=ref, secret=SECRET).save()


def test_ref__keys_are_scoped_by_account(seats, elsewhere, client, settings):
    from wechat_token.client_keys import keys

    _key, plain = keys.make_key("till", accounts=[seats[0]], all_accounts=False)
    assert ClientKey.objects.get().accounts.get() == seats[0]
    answers = [
        client.get(f"/wechat/accounts/tt1:{seat}/access_token", headers={"authorization": f"Bearer {plain.reveal()}"})
        for seat in (7, 8)
    ]
    assert [answer.status_code for answer in answers] == [200, 404]
    assert answers[0].json()["access_token"] == get_access_token("tt1:7")


def test_ref__status_and_refresh_by_command(seats, elsewhere, capsys):
    call_command("wechat_token", "refresh", "tt1:8")
    call_command("wechat_token", "status", "--json")
    printed = capsys.readouterr().out
    assert "tt1:8: " in printed
    assert '"tt1:7"' in printed
    assert len(elsewhere.cards) == 1


def test_edit__of_one_leaves_the_other_alone(seats, elsewhere, time):
    get_access_token("tt1:7"), get_access_token("tt1:8")
    seats[0].is_active = False
    seats[0].save()
    drain()
    assert get_access_token("tt1:8") == elsewhere.cards[1]
    assert Token.objects.filter(due_at=None).count() == 2


# -- needs, blame and the session


def test_needs__come_first_and_are_kept(seats, elsewhere, time):
    get_access_token("tt1:7")
    time.pass_(700)
    get_access_token("tt1:7")
    assert (len(elsewhere.passes), len(elsewhere.cards)) == (1, 2)


def test_blame__is_laid_at_the_pass_itself(seats, elsewhere, time):
    """It has no probe, so it is fetched anew; one more card is asked for, and no third."""
    get_access_token("tt1:7")
    time.pass_(700)
    elsewhere.refuse = [{"errcode": tt.PASS_REFUSED}]
    assert get_access_token("tt1:7") == "card-1-for-pass-1-of-tt1-7"
    elsewhere.refuse = [{"errcode": tt.PASS_REFUSED}] * 9
    time.pass_(700)
    with pytest.raises(TokenUnavailable):
        get_access_token("tt1:7")
    assert (len(elsewhere.passes), len(elsewhere.refuse)) == (3, 7)


def test_session__goes_by_the_platform(seats, elsewhere):
    elsewhere.mock.get("https://api.tt.example/doors", json={"errcode": 32})
    with WeChatSession("tt1:7") as session:
        session.get("/doors")
        sent = elsewhere.mock.calls[-1].request.url
        assert sent == "https://api.tt.example/doors?card=card-1-for-pass-0-of-tt1-7"
        with pytest.raises(HostNotAllowed):
            session.get("https://api.weixin.qq.com/x")
    assert len(elsewhere.cards) == 2  # 32 is a complaint


def test_kinds__of_another_platform_are_not_offered(seats, elsewhere):
    with pytest.raises(KindNotOffered, match="pass, access_token"):
        get_ticket("tt1:7")
    assert get_ticket("tt1:7", "pass") == "pass-0-of-tt1-7"


def test_refresh__of_a_source_that_raises_is_recorded(seats, elsewhere, monkeypatch):
    monkeypatch.setattr(tt.DoorCard, "_fetch", lambda *args: 1 / 0)
    with pytest.raises(TokenUnavailable):
        get_access_token("tt1:7")
    assert (
        Token.objects.get(account=seats[0], kind=ACCESS_TOKEN).error == "The request broke off with ZeroDivisionError."
    )


@pytest.mark.parametrize(
    "returned",
    [None, "a string", {"card": "x"}, Issued("plain", 600), Issued(Secret("x"), float("nan")),  # type: ignore[arg-type]
     Issued(Secret("x"), 10**9), Issued(Secret("x"), 0), Issued(Secret(""), 600), Issued(Secret("a\nb"), 600)],
)  # fmt: skip
def test_refresh__of_a_source_that_returns_nothing_is_recorded(seats, elsewhere, monkeypatch, returned):
    monkeypatch.setattr(tt.DoorCard, "_fetch", lambda *args: returned)
    with pytest.raises(TokenUnavailable):
        get_access_token("tt1:7")
    token = Token.objects.get(account=seats[0], kind=ACCESS_TOKEN)
    assert (token.failures, token.lease_owner) == (1, "")


def test_rows__of_a_platform_that_is_not_installed_any_more_are_left_alone(seats, elsewhere, settings):
    settings.WECHAT_TOKEN = {}
    assert drain().total() == 0


# -- Douyin, from docs/sources.md


@pytest.fixture
def mini_app(db, time) -> Iterator[responses.RequestsMock]:
    Account.objects.create(platform="douyin", appid="tt0123456789abcdef01", secret=SECRET)
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


URL = "https://developer.toutiao.com/api/apps/v2/token"


def test_douyin__token(mini_app):
    mini_app.post(URL, json={"err_no": 0, "err_tips": "success", "data": {"access_token": "tok", "expires_in": 7200}})
    assert get_access_token() == get_access_token("tt0123456789abcdef01") == "tok"
    asked = {"appid": "tt0123456789abcdef01", "secret": SECRET, "grant_type": "client_credential"}
    assert [json.loads(call.request.body) for call in mini_app.calls] == [asked]


def test_douyin__its_own_errors(mini_app):
    mini_app.post(URL, json={"err_no": 40017, "err_tips": f"bad secret {SECRET}", "data": {}})
    with pytest.raises(TokenUnavailable) as caught:
        get_access_token()
    assert (caught.value.errcode, SECRET in str(caught.value)) == (40017, False)
    assert douyin.MiniAppToken().lookup(40017) is douyin.SECRET_WRONG


def test_douyin__fits_on_a_page():
    assert len(Path(douyin.__file__).read_text().splitlines()) < 120


# -- the checks


class Knot(tt.Pass):
    def __init__(self, kind: str, *needs: str) -> None:
        self.kind, self.needs = kind, tuple(map(Need, needs))  # type: ignore[misc]  # of the instance, for a test


def built(*sources: Knot, **fields: object) -> Platform:
    return dataclasses.replace(tt.PLATFORM, **{"name": "knots", "sources": sources} | fields)


@pytest.mark.parametrize(
    ("platform", "complaint"),
    [
        (built(Knot(ACCESS_TOKEN, "ghost")), "needs 'ghost', which it has not"),
        (built(Knot(ACCESS_TOKEN, "b"), Knot("b", ACCESS_TOKEN)), "needs itself"),
        (built(Knot(ACCESS_TOKEN, ACCESS_TOKEN)), "needs itself"),
        (built(Knot(ACCESS_TOKEN, "b"), Knot("b", "c"), Knot("c", "d"), Knot("d", "e"), Knot("e")), "5 needs deep"),
        (built(Knot(ACCESS_TOKEN), Knot(ACCESS_TOKEN)), "two sources of 'access_token'"),
        (built(Knot("b")), "no source of 'access_token'"),
        (built(Knot(ACCESS_TOKEN), name="official_account"), "'official_account' is taken twice"),
        ("a string", "is a str, not a Platform"),
    ],
)
def test_check__refuses(platform, complaint, monkeypatch, settings):
    monkeypatch.setattr(tt, "KNOTS", platform, raising=False)
    settings.WECHAT_TOKEN = {"PLATFORMS": ["tests.platforms.tt.KNOTS"]}
    messages = checks.check_platforms()
    assert {message.id for message in messages} == {"wechat_token.E014"}
    assert complaint in messages[0].msg


@pytest.mark.parametrize("path", ["tests.platforms.nowhere.PLATFORM", "nonsense", "tests.platforms.tt.NOTHING"])
def test_check__refuses_a_path_that_leads_nowhere(path, settings):
    settings.WECHAT_TOKEN = {"PLATFORMS": [path]}
    [message] = checks.check_platforms()
    assert "cannot be imported" in message.msg


def test_check__refuses_a_host_without_tls(settings, monkeypatch):
    monkeypatch.setattr(tt, "PLAIN", dataclasses.replace(tt.PLATFORM, way=Way("http://api.tt.example")), raising=False)
    settings.WECHAT_TOKEN = {"PLATFORMS": ["tests.platforms.tt.PLAIN"]}
    [message] = checks.check_platforms()
    assert "plain http" in message.msg


def test_check__four_deep_is_fine(settings, monkeypatch):
    chain = built(Knot(ACCESS_TOKEN, "b"), Knot("b", "c"), Knot("c", "d"), Knot("d"))
    assert chain.depth(ACCESS_TOKEN) == 4
    assert checks.check_platforms() == []


def test_complaint__about_a_credential_without_a_probe(seats, elsewhere):
    card = get_access_token("tt1:7")
    assert refresh_access_token("tt1:7", stale_token=card) == "card-1-for-pass-0-of-tt1-7"
