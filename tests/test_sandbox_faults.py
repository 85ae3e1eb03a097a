"""Faults and outages: which calls they hit, whether the request was obeyed, what the answer looks like."""

import json
import math

import pytest

from wechat_token.sandbox import FakeWeChat, Fault, FaultKind, ManualClock, Wire

APPID = "wx0123456789abcdef"
OTHER = "wxfedcba9876543210"
SECRET = "fault-test-secret"
NOT_OBEYED = {"error", "status", "redirect", "refused", "lost_before", "hang_before"}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def fake(clock):
    fake = FakeWeChat(clock, seed=7)
    fake.add_account(APPID, SECRET)
    fake.add_account(OTHER, SECRET)
    return fake


def classic(fake, appid=APPID):
    query = {"grant_type": "client_credential", "appid": appid, "secret": SECRET}
    return fake.handle("GET", "/cgi-bin/token", query)


def stable(fake, *, force_refresh=False):
    body = {
        "grant_type": "client_credential",
        "appid": APPID,
        "secret": SECRET,
        "force_refresh": force_refresh,
    }
    return fake.handle("POST", "/cgi-bin/stable_token", {}, json.dumps(body).encode())


def spoiled(fake, kind, **figures):
    fake.inject(Fault(kind, **figures))
    return classic(fake)


# -- what each kind does


@pytest.mark.parametrize("kind", list(FaultKind))
def test_fault__is_obeyed_or_not_by_kind(fake, kind):
    spoiled(fake, kind)

    assert fake.issued(APPID) == (0 if kind in NOT_OBEYED else 1)


@pytest.mark.parametrize("kind", list(FaultKind))
def test_fault__is_recorded_and_over_after_one_call(fake, kind):
    spoiled(fake, kind)

    assert fake.calls[-1].fault == kind
    assert "access_token" in classic(fake).json()
    assert fake.calls[-1].fault == ""


def test_fault__a_502_may_have_been_obeyed(fake):
    assert spoiled(fake, "status", obeyed=True).status == 502
    assert fake.issued(APPID) == 1


def test_error__takes_any_code_and_text(fake):
    answer = spoiled(fake, "error", errcode=50004).json()
    assert answer["errcode"] == 50004
    assert answer["errmsg"].startswith("account is barred from this api rid: ")

    answer = spoiled(fake, "error", errcode=99, errmsg="novel").json()
    assert answer["errmsg"].startswith("novel rid: ")
    assert fake.calls[-1].errcode == 99


def test_status__is_an_html_page(fake):
    reply = spoiled(fake, "status", status=503)

    assert reply.status == 503
    assert reply.headers["Content-Type"].startswith("text/html")
    assert reply.body.startswith(b"<html>")


def test_redirect__points_elsewhere(fake):
    reply = spoiled(fake, "redirect", location="http://127.0.0.1:9/x")

    assert (reply.status, reply.headers["Location"]) == (307, "http://127.0.0.1:9/x")


@pytest.mark.parametrize("kind", ["empty", "html", "truncated", "garbage"])
def test_body__is_no_json(fake, kind):
    reply = spoiled(fake, kind)

    assert reply.status == 200
    with pytest.raises(ValueError):
        reply.json()


@pytest.mark.parametrize(
    ("kind", "life"),
    [("life_negative", -1), ("life_missing", None), ("life_huge", 10**18)],
)
def test_life__is_spoiled_and_the_token_is_not(fake, kind, life):
    answer = spoiled(fake, kind).json()

    assert answer.get("expires_in") == life
    assert fake.is_valid(answer["access_token"])


def test_life_nan__is_written_as_python_would(fake):
    reply = spoiled(fake, "life_nan")

    assert b'"expires_in":NaN' in reply.body
    assert math.isnan(reply.json()["expires_in"])


@pytest.mark.parametrize(
    ("kind", "value"),
    [("value_null", None), ("value_empty", ""), ("value_number", 12345)],
)
def test_value__is_no_token(fake, kind, value):
    assert spoiled(fake, kind).json()["access_token"] == value


def test_value_huge__has_the_size_asked_for(fake):
    assert len(spoiled(fake, "value_huge", size=70_001).json()["access_token"]) == 70_001


def test_value_control__holds_line_breaks(fake):
    assert "\r\nX-Injected: 1\0" in spoiled(fake, "value_control").json()["access_token"]


def test_value__spoils_tickets_too(fake):
    query = {"access_token": classic(fake).json()["access_token"], "type": "jsapi"}
    fake.inject(Fault("value_null"), endpoint="ticket")

    assert fake.handle("GET", "/cgi-bin/ticket/getticket", query).json()["ticket"] is None


def test_value__leaves_a_refusal_as_it_is(fake):
    fake.freeze(APPID)

    assert spoiled(fake, "value_null").json()["errcode"] == 40243


@pytest.mark.parametrize(
    ("kind", "wire"),
    [
        ("refused", Wire("refuse")),
        ("lost_before", Wire("reset")),
        ("lost_after", Wire("reset")),
        ("hang_before", Wire("hang", seconds=5)),
        ("hang_after", Wire("hang", seconds=5)),
        ("slow", Wire("slow", seconds=5)),
        ("drip", Wire("drip", seconds=5)),
        ("huge", Wire("pad", size=9)),
        ("cut", Wire("cut")),
    ],
)
def test_wire__is_left_to_whoever_carries_the_reply(fake, kind, wire):
    assert spoiled(fake, kind, seconds=5, size=9).wire == wire


def test_wire__duration():
    durations = [
        Wire(action, seconds=2, size=5).duration(10)
        for action in ("slow", "drip", "hang", "pad", "reset", "cut", "refuse")
    ]

    assert durations == [2, 20, math.inf, 0, 0, 0, 0]


@pytest.mark.parametrize("wrong", [{"kind": "novel"}, {"kind": "slow", "seconds": -1}])
def test_fault__refuses_what_it_cannot_do(wrong):
    with pytest.raises(ValueError):
        Fault(**wrong)


# -- which calls are hit


def test_inject__counts_the_times(fake):
    fake.inject(Fault("error"), times=2)

    assert [classic(fake).json().get("errcode") for _ in range(3)] == [-1, -1, None]


def test_inject__keeps_the_order(fake):
    fake.inject(Fault("error", errcode=1))
    fake.inject(Fault("error", errcode=2))

    assert [classic(fake).json()["errcode"] for _ in range(2)] == [1, 2]


def test_inject__for_one_endpoint(fake):
    fake.inject(Fault("error"), endpoint="stable")

    assert "access_token" in classic(fake).json()
    assert stable(fake).json()["errcode"] == -1


def test_inject__for_forced_refreshes_only(fake):
    fake.inject(Fault("error"), endpoint="stable_forced")

    assert "access_token" in stable(fake).json()
    assert stable(fake, force_refresh=True).json()["errcode"] == -1


def test_inject__for_one_account(fake):
    fake.inject(Fault("error"), appid=OTHER)

    assert "access_token" in classic(fake).json()
    assert classic(fake, OTHER).json()["errcode"] == -1


def test_inject__for_the_account_behind_a_token(fake):
    token = classic(fake, OTHER).json()["access_token"]
    fake.inject(Fault("error"), appid=OTHER)

    assert "access_token" in classic(fake).json()
    answer = fake.handle("GET", "/cgi-bin/get_api_domain_ip", {"access_token": token}).json()
    assert answer["errcode"] == -1


@pytest.mark.parametrize("wrong", [{"endpoint": "token"}, {"times": 0}])
def test_inject__refuses_what_never_happens(fake, wrong):
    with pytest.raises(ValueError):
        fake.inject(Fault("error"), **wrong)


def test_clear_faults__forgets_them_and_the_outage(fake):
    fake.inject(Fault("error"), times=9)
    fake.outage()
    fake.clear_faults()

    assert "access_token" in classic(fake).json()


# -- outages


def test_outage__nothing_is_obeyed_until_it_ends(fake):
    fake.outage()
    assert [classic(fake).wire for _ in range(3)] == [Wire("reset")] * 3
    assert fake.issued(APPID) == 0
    fake.outage(on=False)

    assert "access_token" in classic(fake).json()


def test_outage__ends_by_itself(fake, clock):
    fake.outage(until=clock() + 60)
    clock.advance(59)
    assert classic(fake).wire == Wire("reset")
    assert fake.state()["outage"]
    clock.advance(1)

    assert not fake.state()["outage"]
    assert "access_token" in classic(fake).json()


def test_outage__takes_any_fault_and_saves_the_planned_ones(fake):
    fake.inject(Fault("error"))
    fake.outage(fault=Fault("status"))
    assert classic(fake).status == 502
    fake.outage(on=False)

    assert classic(fake).json()["errcode"] == -1
