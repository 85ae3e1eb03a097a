"""Handing out tokens: who gets what, who waits, who calls WeChat."""

from __future__ import annotations

from dataclasses import replace

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError, connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from tests.conftest import APPID, SECRET, START, row
from tests.leaks import visible
from wechat_token import aget_access_token, arefresh_access_token, clock, get_access_token, refresh_access_token
from wechat_token.engine import rows, served, serving, settle
from wechat_token.engine.schedule import seconds
from wechat_token.engine.served import Entry
from wechat_token.exceptions import (
    AccountAmbiguous,
    AccountInactive,
    AccountNotFound,
    ErrorClass,
    RefreshRateLimited,
    StoreUnavailable,
    TokenUnavailable,
)
from wechat_token.models import Account, RefreshLog, Token
from wechat_token.redaction import Secret
from wechat_token.sandbox import Fault


def calls(weixin, appid=APPID):
    return sum(weixin.calls_to(appid, endpoint) for endpoint in ("stable", "classic"))


# -- reading


def test_get_access_token__cold_fetches_once(account, weixin):
    token = get_access_token(APPID)
    assert weixin.is_valid(token)
    assert get_access_token(APPID) == token
    assert calls(weixin) == 1


def test_get_access_token__takes_an_appid_an_account_or_nothing(account):
    assert get_access_token(APPID) == get_access_token(account) == get_access_token()


def test_get_access_token__old_token_served_after_a_failed_renewal(classic, weixin, time):
    """R4: the old token is served until it is really dead."""
    token = get_access_token(APPID)
    weixin.outage()
    time.pass_until(row(classic).expires_at - seconds(1))
    assert get_access_token(APPID) == token
    assert row(classic).failures == 1


def lay_out_an_entry(time, value="old"):
    usable = time.now() + seconds(7200)
    return served.remember(Entry(APPID, "access_token", 1, 1, 1, value, usable, usable, usable, time.now()))


def read_while_looked_up(monkeypatch, entry):
    """What a second thread gets while the first is still looking the entry up."""
    found, got = replace(entry, value="new", loaded_at=clock.now(), revision=2), []

    def look(key, known):
        if not got:
            got.append("")
            got[0] = serving.current_entry(key).value
        return found

    monkeypatch.setattr(served, "look_up", look)
    serving.current_entry((APPID, "access_token"))
    return got[0]


def test_current_entry__others_keep_an_entry_in_use_while_one_looks_it_up(time, monkeypatch):
    entry = lay_out_an_entry(time)
    time.pass_(entry.fresh_until - time.monotonic() + 0.5)
    assert read_while_looked_up(monkeypatch, entry) == "old"


def test_current_entry__no_thread_gets_an_entry_that_lay_idle(time, monkeypatch):
    """It may have been displaced long ago, although its own life is not over."""
    entry = lay_out_an_entry(time)
    time.pass_(1800)
    assert read_while_looked_up(monkeypatch, entry) == "new"


def test_get_access_token__dead_token_is_never_served(classic, weixin, time):
    get_access_token(APPID)
    weixin.outage()
    time.pass_until(row(classic).expires_at)
    with pytest.raises(TokenUnavailable):
        get_access_token(APPID)


def test_get_access_token__overdue_is_renewed_by_callers(account, weixin, time):
    """R7: nobody runs beat here."""
    for _ in range(24 * 12):
        assert weixin.is_valid(get_access_token(APPID))
        time.pass_(300)
    assert calls(weixin) <= 14


def test_get_access_token__backoff_is_kept(account, weixin):
    """R10: a caller's retry is no reason to call WeChat again."""
    weixin.reset_secret(APPID, "another")
    for _ in range(5):
        with pytest.raises(TokenUnavailable) as caught:
            get_access_token(APPID)
    assert calls(weixin) == 1
    assert caught.value.error_class is ErrorClass.HUMAN
    assert caught.value.errcode == 40125
    assert caught.value.rid
    assert 600 < caught.value.retry_after < 1200


def test_get_access_token__answers_of_two_accounts_stay_apart(account, weixin):
    weixin.add_account("wxother00000000", "other")
    Account.objects.create(appid="wxother00000000", secret="other")
    mine, other = get_access_token(APPID), get_access_token("wxother00000000")
    assert mine != other
    assert get_access_token(APPID) == mine


def test_get_access_token__a_row_due_in_the_far_future_is_healed(account, weixin, time):
    """A row edited by hand is no silent stop."""
    get_access_token(APPID)
    Token.objects.update(due_at=START + seconds(10**7))
    time.pass_(7300)
    assert weixin.is_valid(get_access_token(APPID))


def test_get_access_token__a_lease_in_the_far_future_is_not_believed(account, weixin):
    Token.objects.update(lease_owner="x", lease_until=START + seconds(10**7))
    assert weixin.is_valid(get_access_token(APPID))


def test_get_access_token__missing_token_row_is_made(account, weixin):
    Token.objects.all().delete()
    assert weixin.is_valid(get_access_token(APPID))


# -- which account


def test_get_access_token__no_account(db, weixin):
    with pytest.raises(AccountNotFound, match="add-account"):
        get_access_token()


def test_get_access_token__unknown_names_the_choices(account):
    with pytest.raises(AccountNotFound, match=APPID):
        get_access_token("wxnobody00000000")


def test_get_access_token__several_without_default_name_the_choices(account):
    Account.objects.create(appid="wxsecond00000000", secret="x")
    with pytest.raises(AccountAmbiguous, match=f"{APPID}, wxsecond00000000"):
        get_access_token()


def test_get_access_token__several_with_a_default(account, weixin):
    Account.objects.create(appid="wxa0000000000000", secret="x")
    account.is_default = True
    account.save()
    assert weixin.is_valid(get_access_token())


def test_get_access_token__database_down_and_nothing_in_hand(account, monkeypatch):
    """R13: an error of ours that says so, whether an account was named or not."""

    def down(*args):
        raise OperationalError("down")

    monkeypatch.setattr(rows, "find", down)
    monkeypatch.setattr(Account.objects.__class__, "get_queryset", down)
    for appid in (APPID, None):
        with pytest.raises(StoreUnavailable) as caught:
            get_access_token(appid)
        assert caught.value.retry_after == 5


def test_get_access_token__inactive(account):
    account.is_active = False
    account.save()
    with pytest.raises(AccountInactive, match="inactive"):
        get_access_token(APPID)


def test_account__one_default_at_most(account):
    account.is_default = True
    account.save()
    second = Account.objects.create(appid="wxsecond00000000", secret="x", is_default=True)
    assert list(Account.objects.filter(is_default=True)) == [second]


# -- complaints (R8, R9)


def test_refresh_access_token__about_an_older_token_costs_no_call(classic, weixin, time):
    old = get_access_token(APPID)
    weixin.kill_token(APPID)
    new = refresh_access_token(APPID, stale_token=old)
    before = len(weixin.calls)
    assert refresh_access_token(APPID, stale_token=old) == new
    assert len(weixin.calls) == before


def test_refresh_access_token__live_token_is_refused_after_one_probe(account, weixin):
    token = get_access_token(APPID)
    for _ in range(1000):
        assert refresh_access_token(APPID, stale_token=token) == token
    assert calls(weixin) == 1
    assert weixin.calls_to(APPID, "get_api_domain_ip") == 1


def test_refresh_access_token__dead_classic_token_is_replaced_once(classic, weixin):
    token = get_access_token(APPID)
    weixin.kill_token(APPID)
    new = [refresh_access_token(APPID, stale_token=token) for _ in range(100)]
    assert len(set(new)) == 1
    assert weixin.is_valid(new[0])
    assert weixin.calls_to(APPID, "classic") == 2


def test_refresh_access_token__dead_stable_token_that_comes_back_is_forced(account, weixin):
    """R9: plain first, forced only if the very same token comes back."""
    token = get_access_token(APPID)
    weixin.kill_token(APPID, stuck=True)
    new = refresh_access_token(APPID, stale_token=token)
    assert new != token
    assert weixin.calls_to(APPID, "stable_forced") == 1
    assert weixin.calls_to(APPID, "stable") == 3


def test_refresh_access_token__forced_refreshes_keep_their_distance(account, weixin, time):
    """R9: 30 s apart, persistently; the caller is told how long to wait."""
    token = get_access_token(APPID)
    weixin.kill_token(APPID, stuck=True)
    token = refresh_access_token(APPID, stale_token=token)
    time.pass_(11)
    weixin.kill_token(APPID, stuck=True)
    with pytest.raises(TokenUnavailable) as caught:
        refresh_access_token(APPID, stale_token=token)
    assert weixin.calls_to(APPID, "stable_forced") == 1
    assert 15 < caught.value.retry_after < 25
    time.pass_(caught.value.retry_after)
    assert weixin.is_valid(get_access_token(APPID))
    assert weixin.calls_to(APPID, "stable_forced") == 2


def test_refresh_access_token__complaints_without_end_are_limited(account, weixin, time):
    token = get_access_token(APPID)

    def complain_without_end():
        for _ in range(20):
            refresh_access_token(APPID, stale_token=token)
            time.pass_(11)

    with pytest.raises(RefreshRateLimited) as caught:
        complain_without_end()
    assert weixin.calls_to(APPID, "get_api_domain_ip") <= 11
    assert 0 < caught.value.retry_after <= 1200


def test_refresh_access_token__foreign_refresh_is_counted(classic, weixin, time):
    """R14: our token died early, and nobody here renewed it."""
    token = get_access_token(APPID)
    weixin.foreign_refresh(APPID)
    time.pass_(301)
    assert refresh_access_token(APPID, stale_token=token) != token
    assert row(classic).foreign_refreshes == 1


def test_refresh_access_token__during_an_outage_changes_nothing(classic, weixin):
    """R29: WeChat did not say that it refuses the token."""
    token = get_access_token(APPID)
    weixin.outage()
    assert refresh_access_token(APPID, stale_token=token) == token
    weixin.clear_faults()
    assert get_access_token(APPID) == token


# -- async twins


@pytest.mark.django_db(transaction=True)
def test_async_twins__serve_and_complain(weixin):
    weixin.add_account(APPID, SECRET)
    Account.objects.create(appid=APPID, secret=SECRET, endpoint="classic")

    async def both():
        first = await aget_access_token(APPID)
        assert await aget_access_token(APPID) == first
        weixin.kill_token(APPID)
        return first, await arefresh_access_token(APPID, stale_token=first)

    first, second = async_to_sync(both)()
    assert first != second
    assert weixin.is_valid(second)


# -- memory, cache, database


@pytest.mark.django_db(transaction=True)
def test_memory__trusted_for_a_second_without_io(weixin, time, django_assert_num_queries):
    """R18."""
    weixin.add_account(APPID, SECRET)
    Account.objects.create(appid=APPID, secret=SECRET)
    get_access_token(APPID)
    settle(5)
    with django_assert_num_queries(0):
        for _ in range(9):
            get_access_token(APPID)
            time.pass_(0.1)
    time.pass_(0.2)
    with CaptureQueriesContext(connection) as statements:
        get_access_token(APPID)
    assert sum(Token._meta.db_table in statement["sql"] for statement in statements) == 1


@pytest.mark.django_db(transaction=True)
def test_memory__another_process_renewed(weixin, time):
    weixin.add_account(APPID, SECRET)
    account = Account.objects.create(appid=APPID, secret=SECRET)
    get_access_token(APPID)
    token = row(account)
    Token.objects.filter(pk=token.pk).update(value="renewed-elsewhere", version=F("version") + 1)
    time.pass_(1.1)
    assert get_access_token(APPID) == "renewed-elsewhere"


@pytest.mark.django_db(transaction=True)
def test_memory__database_down_serves_until_dead(weixin, time, monkeypatch):
    """R13."""
    weixin.add_account(APPID, SECRET)
    Account.objects.create(appid=APPID, secret=SECRET)
    token = get_access_token(APPID)
    settle(5)

    def down(key):
        raise OperationalError("down")

    monkeypatch.setattr(rows, "find", down)
    time.pass_(7000)
    assert get_access_token(APPID) == token
    time.pass_(300)
    with pytest.raises(StoreUnavailable, match="OperationalError"):
        get_access_token(APPID)


@pytest.mark.django_db(transaction=True)
def test_memory__one_failed_query_does_not_bring_back_a_token_that_lay_idle(weixin, time, monkeypatch):
    """R4: it may have been displaced by a renewal elsewhere, and dead since."""
    weixin.add_account(APPID, SECRET)
    account = Account.objects.create(appid=APPID, secret=SECRET)
    get_access_token(APPID)
    settle(5)
    Token.objects.filter(account=account).update(value="renewed-elsewhere", version=F("version") + 1)
    answers = iter([OperationalError("for a moment")])

    def fails_once(key):
        for error in answers:
            raise error
        return row(account)

    monkeypatch.setattr(rows, "find", fails_once)
    time.pass_(700)
    assert get_access_token(APPID) == "renewed-elsewhere"


# -- what is left behind


def test_refresh_log__one_row_per_refresh(account, weixin, time):
    get_access_token(APPID)
    log = RefreshLog.objects.get()
    assert (log.reason, log.outcome, log.endpoint, log.version) == ("caller", "renewed", "stable", row(account).version)


def test_get_access_token__no_secret_in_errors_or_logs(account, weixin, caplog):
    """S2."""
    caplog.set_level("DEBUG")
    weixin.inject(Fault("garbage"), times=9)
    with pytest.raises(TokenUnavailable) as caught:
        get_access_token(APPID)
    seen = caplog.text + repr(caught.value) + str(vars(caught.value))
    for record in caplog.records:
        seen += repr(vars(record))
    assert SECRET not in seen


def complain_about(token):
    refresh_access_token(APPID, stale_token=token.reveal())


async def acomplain_about(token):
    await arefresh_access_token(APPID, stale_token=token.reveal())


@pytest.mark.parametrize("complain", [complain_about, async_to_sync(acomplain_about)], ids=["sync", "async"])
@pytest.mark.django_db(transaction=True)
def test_refresh_access_token__stale_token_in_no_frame_of_the_error(weixin, complain):
    """S2: a token that is complained about may still work."""
    weixin.add_account(APPID, SECRET)
    Account.objects.create(appid=APPID, secret=SECRET)
    token = Secret(get_access_token(APPID))
    weixin.kill_token(APPID)
    weixin.inject(Fault("error", errcode=-1), times=9, endpoint="stable")
    with pytest.raises(TokenUnavailable) as caught:
        complain(token)
    assert token.reveal() not in visible(caught.value)
