"""Complaints: what is believed, what is asked, and who pays (R8, R9, R29, R33)."""

from __future__ import annotations

from contextlib import suppress

import pytest

from tests.conftest import APPID, renew, row
from wechat_token import get_access_token, refresh_access_token
from wechat_token.engine import complaints, schedule
from wechat_token.engine.complaints import COMPLAINT_BURST
from wechat_token.engine.refresh import Status
from wechat_token.engine.schedule import Reason
from wechat_token.exceptions import RefreshRateLimited, TokenUnavailable
from wechat_token.models import RefreshLog, Token
from wechat_token.platforms import transport
from wechat_token.redaction import Secret
from wechat_token.sandbox import Fault


@pytest.fixture(params=["stable", "classic"])
def token(request, account, time):
    """One that everybody has, a minute old."""
    account.endpoint = request.param
    account.save()
    token = get_access_token(APPID)
    time.pass_(60)
    return token


def complain(token, client=""):
    return refresh_access_token(APPID, stale_token=token, client=client)


def allowance(time, client):
    return complaints.complaint_allowance(Token.objects.get(), client, time.now())


def test_complain__about_an_older_token_is_settled_by_the_row(token, account, weixin, time):
    """Also where the caller's own connection was no place to look at it."""
    calls = len(weixin.calls)
    outcome = renew(account, Reason.COMPLAINT, stale=Secret("an older one"))
    assert (outcome.status, outcome.entry.value) == (Status.CURRENT, token)
    assert len(weixin.calls) == calls


# -- cannot tell is not no (R29)


UNDECIDED = [Fault("error", errcode=code) for code in (-1, 40164, 45009, 45011, 48001)]
UNDECIDED += [Fault(kind) for kind in ("html", "lost_after", "refused", "empty", "status")]


@pytest.mark.parametrize("fault", UNDECIDED, ids=lambda fault: f"{fault.kind.value}{fault.errcode or ''}")
def test_complain__wechat_does_not_tell(token, account, weixin, time, fault):
    weixin.inject(fault, endpoint="get_api_domain_ip")
    assert complain(token, "shop") == token
    after = row(account)
    assert (after.rejected_version, after.foreign_refreshes, after.failures) == (0, 0, 0)
    assert after.unanswered_since is None
    assert (after.complaints, after.lease_owner) == ({}, "")
    assert weixin.calls_to(APPID, "stable_forced") == 0
    assert weixin.calls_to(APPID, "classic") <= 1
    assert get_access_token(APPID) == token
    assert RefreshLog.objects.first().outcome == RefreshLog.Outcome.UNDECIDED


def test_complain__wechat_does_not_tell_and_is_left_alone_for_a_moment(token, weixin, time):
    weixin.outage(fault=Fault("error", errcode=-1))
    for _ in range(10):
        complain(token)
    assert weixin.calls_to(APPID, "get_api_domain_ip") == 1
    time.pass_(complaints.UNDECIDED_SECONDS)
    complain(token)
    assert weixin.calls_to(APPID, "get_api_domain_ip") == 2


# -- who pays (R33)


def test_complain__falsely_is_charged_to_its_client(token, weixin, time):
    assert complain(token, "liar") == token
    assert allowance(time, "liar") == pytest.approx(COMPLAINT_BURST - 1)
    assert allowance(time, "shop") == COMPLAINT_BURST


def test_complain__truly_costs_nothing(token, weixin, time):
    for _ in range(13):
        weixin.kill_token(APPID)
        token = complain(token, "shop")
        assert weixin.is_valid(token)
        time.pass_(180)
    assert allowance(time, "shop") == COMPLAINT_BURST
    assert Token.objects.get().complaints == {}


def test_complain__who_has_complained_falsely_too_often_is_refused_alone(token, weixin, time):
    for _ in range(int(COMPLAINT_BURST)):
        complain(token, "liar")
        time.pass_(complaints.VERDICT_SECONDS)
    probes = weixin.calls_to(APPID, "get_api_domain_ip")
    with pytest.raises(RefreshRateLimited):
        complain(token, "liar")
    assert weixin.calls_to(APPID, "get_api_domain_ip") == probes
    assert complaints.refuses_complaints(Token.objects.get(), time.now())
    weixin.kill_token(APPID)
    assert weixin.is_valid(complain(token, "shop"))


def test_complain__a_verdict_is_believed_for_two_seconds(token, weixin, time):
    complain(token, "liar")
    weixin.kill_token(APPID)
    time.pass_(1.9)
    assert complain(token, "shop") == token
    time.pass_(0.2)
    assert weixin.is_valid(complain(token, "shop"))


def test_complain__leaves_calls_for_the_schedule(classic, weixin, time):
    classic.daily_limit = 100
    classic.save()
    token = get_access_token(APPID)
    Token.objects.update(usage={"day": schedule.beijing_day(time.now()), "classic": 65})
    weixin.kill_token(APPID)
    with suppress(TokenUnavailable):
        complain(token)
    assert weixin.calls_to(APPID, "classic") == 1
    time.pass_until(row(classic).due_at)
    assert renew(classic).status is Status.RENEWED


# -- forced (R9)


def test_complain__a_forced_refresh_that_changes_nothing_is_counted(account, weixin, time, monkeypatch):
    token = get_access_token(APPID)
    weixin.kill_token(APPID, stuck=True)
    call = transport.call

    def obstinate(method, path, **options):
        if options.get("json"):
            options["json"] = {**options["json"], "force_refresh": False}
        return call(method, path, **options)

    monkeypatch.setattr(transport, "call", obstinate)
    outcome = renew(account, Reason.COMPLAINT, stale=Secret(token))
    assert outcome.status is Status.FAILED
    after = row(account)
    assert after.usage["stable_forced"] == 1
    assert after.forced_at is not None
