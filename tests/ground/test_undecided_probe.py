"""R29: a probe that says nothing about the token changes nothing, whatever a fetch would have said."""

from __future__ import annotations

import pytest

from tests.conftest import APPID, row
from wechat_token import get_access_token, refresh_access_token
from wechat_token.sandbox import Fault

PROBE = "get_api_domain_ip"
UNDECIDED = {
    "busy": Fault("error", errcode=-1),
    "day-used-up": Fault("error", errcode=45009),
    "minute-used-up": Fault("error", errcode=45011),
    "not-whitelisted": Fault("error", errcode=40164),
    "no-right": Fault("error", errcode=48001),
    "reset": Fault("lost_after"),
    "html": Fault("html"),
}


@pytest.fixture(params=["stable", "classic"])
def endpoint(request, account):
    account.endpoint = request.param
    account.save()
    return request.param


@pytest.mark.parametrize("fails", ["probe", "probe-and-fetch"])
@pytest.mark.parametrize("undecided", UNDECIDED.values(), ids=UNDECIDED.keys())
def test_complaint__undecided_probe_changes_nothing(account, endpoint, weixin, time, undecided, fails):
    token = get_access_token(APPID)
    time.pass_(600)
    weixin.inject(undecided, times=99, endpoint=PROBE)
    if fails == "probe-and-fetch":
        weixin.inject(undecided, times=99, endpoint=endpoint)
    assert refresh_access_token(APPID, stale_token=token) == token
    after = row(account)
    assert (after.rejected_version, after.foreign_refreshes, after.failures) == (0, 0, 0)
    assert after.unanswered_since is None
    assert weixin.calls_to(APPID, "classic") == (endpoint == "classic")
    assert not any(call.forced for call in weixin.calls)
    time.pass_(5)
    assert get_access_token(APPID) == token
    assert weixin.is_valid(token)


def test_complaint__probe_that_never_decides_costs_nothing_all_day(account, endpoint, weixin, time):
    """An account without the right to the probed call (48001) would spend its twenty forced calls, and then stand."""
    weixin.inject(UNDECIDED["no-right"], times=999, endpoint=PROBE)
    for _ in range(40):
        token = get_access_token(APPID)
        assert refresh_access_token(APPID, stale_token=token) == token
        assert weixin.is_valid(token)
        time.pass_(1800)
    assert not any(call.forced for call in weixin.calls)
    assert row(account).foreign_refreshes == 0
    assert weixin.issued(APPID) <= 1 + 40 * 1800 / 5900
