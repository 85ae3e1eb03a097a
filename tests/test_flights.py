"""A refresh in its flight: what it does while a lock, another process or its own host stands in the way (R1, R31)."""

from __future__ import annotations

import asyncio
import copy

import pytest
from django.db import OperationalError

from tests.conftest import APPID, SECRET, renew, row
from tests.hangar import awaited, locked
from wechat_token import aget_access_token, clock, get_access_token, signals
from wechat_token.engine import ground, rows, served, serving
from wechat_token.engine.connections import LOCK_SECONDS
from wechat_token.engine.refresh import Complaint, Status, begin
from wechat_token.engine.schedule import Reason, seconds
from wechat_token.exceptions import ConfigurationError, EncryptionKeyError
from wechat_token.models import Account, Host, RefreshLog, Token
from wechat_token.platforms import transport
from wechat_token.redaction import Secret
from wechat_token.sandbox import Fault

KEY = (APPID, "access_token")


def stored(account) -> str:
    return row(account).value.reveal()


def when_asked(monkeypatch, do) -> None:
    """Do something when a request for a token leaves."""
    call = transport.call

    def asked(method, path, **options):
        do()
        return call(method, path, **options)

    monkeypatch.setattr(transport, "call", asked)


@pytest.fixture
def lock(monkeypatch, time):
    """Somebody else's lock on the token's row, while ``lock.held``: writing fails as private connections do."""

    class Lock:
        held = True

    write = rows.write

    def meets_it(token, fields, owner=""):
        if Lock.held:
            time.pass_(LOCK_SECONDS)
            assert time.elapsed < 300, "it is waited for without an end"
            raise locked()
        return write(token, fields, owner)

    monkeypatch.setattr(rows, "write", meets_it)
    return Lock


# -- readers are let go at once (R4)


def test_begin__a_reader_has_the_token_in_hand_before_wechat_is_asked(account, hangar, time, monkeypatch):
    token = renewed_once(hangar)
    time.pass_until(row(account).due_at + seconds(60))
    seen = []
    flight = begin(KEY, Reason.CALLER)
    when_asked(monkeypatch, lambda: seen.append(flight.result.done()))
    hangar.let_go()
    assert seen == [True]
    assert flight.result.result().entry.value == token
    assert stored(account) != token


def test_begin__a_refused_token_is_handed_to_no_reader_while_another_is_fetched(
    classic, hangar, time, monkeypatch, weixin
):
    token = renewed_once(hangar)
    time.pass_(60)
    weixin.kill_token(APPID)
    flight = begin(KEY, Reason.COMPLAINT, complaint=Complaint(Secret(token)))
    seen = []
    when_asked(monkeypatch, lambda: seen.append(flight.current is not None))
    hangar.let_go()
    assert seen == [True, False]  # while WeChat is asked about it, and while another is fetched


def renewed_once(hangar) -> str:
    flight = begin(KEY, Reason.CALLER)
    hangar.let_go()
    return flight.result.result().entry.value


def test_get_access_token__an_overdue_token_is_returned_and_renewed(account, hangar, time):
    """R7: nobody runs beat here."""
    token = renewed_once(hangar)
    time.pass_until(row(account).due_at + seconds(60))
    hangar.started.clear()
    before = time.elapsed
    assert get_access_token(APPID) == token
    assert time.elapsed == before
    assert hangar.started == ["refresh"]
    hangar.let_go()
    assert get_access_token(APPID) == stored(account) != token


def test_get_access_token__one_that_is_not_overdue_starts_nothing(account, hangar, time):
    renewed_once(hangar)
    hangar.started.clear()
    time.pass_until(row(account).due_at - seconds(1))
    get_access_token(APPID)
    assert hangar.started == []


def test_aget_access_token__a_task_takes_the_token_it_has_while_it_is_looked_up(account, hangar, time, monkeypatch):
    monkeypatch.setattr(serving, "in_place", lambda: False)
    token = renewed_once(hangar)
    hangar.started.clear()
    time.pass_(0.5)
    assert asyncio.run(asyncio.wait_for(aget_access_token(APPID), 1)) == token
    assert hangar.started == ["refresh"]


# -- leaving without the claim (R1)


def test_begin__plain_stable_leaves_unclaimed_while_its_caller_holds_the_lock(
    account, hangar, weixin, lock, time, monkeypatch
):
    flight = begin(KEY, Reason.CALLER)
    answered_after = []

    def rolls_back_with_the_token_in_hand(duration):
        time.pass_(duration)
        if flight.result.done() and lock.held:
            answered_after.append(time.elapsed)
            lock.held = time.elapsed < 5

    monkeypatch.setattr(clock, "sleep", rolls_back_with_the_token_in_hand)
    with awaited(flight):
        hangar.let_go()
    outcome = flight.result.result()
    assert outcome.status is Status.RENEWED
    assert weixin.is_valid(outcome.entry.value)
    assert stored(account) == outcome.entry.value
    assert answered_after[0] < 3
    assert weixin.calls_to(APPID, "stable") == row(account).usage["stable"] == 1


def test_begin__unclaimed_gives_way_to_who_claimed_meanwhile(account, hangar, weixin, lock, monkeypatch):
    flight = begin(KEY, Reason.CALLER)

    def another_process_claims():
        lock.held = False
        Token.objects.update(lease_owner="another", revision=99)

    when_asked(monkeypatch, another_process_claims)
    with awaited(flight):
        hangar.let_go()
    assert flight.result.result().status is Status.SUPERSEDED
    assert (row(account).lease_owner, row(account).version) == ("another", 0)


def test_begin__nobody_in_a_transaction_so_nothing_leaves_unclaimed(account, hangar, weixin, lock, time, monkeypatch):
    """Many processes that queue for the row of a busy server meet its limit for locks, too: one call all the same."""
    flight = begin(KEY, Reason.CALLER)

    def freed_in_time(duration):
        time.pass_(duration)
        lock.held = time.elapsed < 5

    monkeypatch.setattr(clock, "sleep", freed_in_time)
    when_asked(monkeypatch, lambda: asked.append(row(account).lease_owner))
    asked: list[str] = []
    with awaited(flight, in_transaction=False):
        hangar.let_go()
    assert len(asked) == 1
    assert asked[0]


@pytest.mark.parametrize("endpoint", ["stable", "classic"])
def test_begin__nobody_waits_so_nothing_leaves_unclaimed(account, hangar, weixin, lock, time, endpoint):
    Account.objects.update(endpoint=endpoint)
    flight = begin(KEY, Reason.CALLER)
    hangar.let_go()
    with pytest.raises(OperationalError):
        ground.wait(flight, 0)
    assert not weixin.calls
    assert time.elapsed < 120


def test_begin__classic_never_leaves_unclaimed(account, hangar, weixin, lock, time, monkeypatch):
    Account.objects.update(endpoint="classic")
    flight = begin(KEY, Reason.CALLER)
    waiting = awaited(flight)
    waiting.__enter__()

    def leave_in_time(duration):
        time.pass_(duration)
        if time.elapsed > 15 and flight.waiting:
            waiting.__exit__(None, None, None)

    monkeypatch.setattr(clock, "sleep", leave_in_time)
    hangar.let_go()
    assert not weixin.calls
    with pytest.raises(OperationalError):
        ground.wait(flight, 0)


def test_begin__a_complaint_never_leaves_unclaimed(account, hangar, weixin, time, monkeypatch):
    token = renewed_once(hangar)
    time.pass_(60)
    weixin.calls.clear()
    before = len(weixin.calls)
    write = rows.write
    flight = begin(KEY, Reason.COMPLAINT, complaint=Complaint(Secret(token)))

    def meets_it(token, fields, owner=""):
        if time.elapsed < 90:
            time.pass_(LOCK_SECONDS)
            raise locked()
        return write(token, fields, owner)

    monkeypatch.setattr(rows, "write", meets_it)
    when_asked(monkeypatch, lambda: asked.append(row(account).lease_owner))
    asked: list[str] = []
    with awaited(flight):
        hangar.let_go()
    assert asked
    assert all(asked)
    assert len(weixin.calls) > before


# -- the store (R3)


def test_store__is_offered_again_and_the_caller_has_it_after_the_first_attempt(account, hangar, weixin, monkeypatch):
    write, failing, answered = rows.write, [1, 2, 3], []
    flight = begin(KEY, Reason.CALLER)

    def fails_for_a_while(token, fields, owner=""):
        if owner and failing:
            answered.append(flight.result.done())
            failing.pop()
            raise OperationalError("the server was restarted")
        return write(token, fields, owner)

    monkeypatch.setattr(rows, "write", fails_for_a_while)
    hangar.let_go()
    assert answered == [False, True, True]
    assert stored(account) == flight.result.result().entry.value
    assert weixin.issued(APPID) == 1


def test_store__of_a_token_of_which_others_know_more_gives_way(classic, hangar, weixin, monkeypatch):
    flight = begin(KEY, Reason.CALLER)
    when_asked(monkeypatch, lambda: Token.objects.update(lease_owner="another", revision=99, value="theirs", version=9))
    hangar.let_go()
    assert flight.result.result().status is Status.SUPERSEDED
    assert stored(classic) == "theirs"


def loses_an_answer(monkeypatch, name):
    """The first write of this kind is committed, and its answer lost."""
    write, lost = getattr(rows, name), []

    def done(changes):
        if lost:
            return write(changes)
        lost.append(write([change._replace(token=copy.copy(change.token)) for change in changes]))
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(rows, name, done)


@pytest.mark.parametrize("endpoint", ["stable", "classic"])
@pytest.mark.parametrize("step", ["claim", "store"])
def test_refresh__goes_on_after_a_write_whose_answer_was_lost(account, weixin, time, monkeypatch, step, endpoint):
    Account.objects.update(endpoint=endpoint)
    loses_an_answer(monkeypatch, step)
    assert renew(account).status is Status.RENEWED
    assert time.elapsed < 5
    assert weixin.is_valid(stored(account))
    assert weixin.calls_to(APPID, endpoint) == 1
    assert row(account).unanswered_since is None


# -- what this host cannot (R31, R36)


def test_refresh__secret_unreadable_here_touches_nothing(account, weixin, settings):
    before = row(account)
    settings.SECRET_KEY = "another-key-of-a-worker-that-was-forgotten"
    with pytest.raises(EncryptionKeyError):
        renew(account)
    after = row(account)
    assert (after.revision, after.lease_owner, after.failures) == (before.revision, "", 0)
    assert after.usage == {}
    assert not RefreshLog.objects.exists()
    assert not weixin.calls
    assert "EncryptionKeyError" in Host.objects.get().problems


def test_refresh__settings_that_are_wrong_here_touch_nothing(account, weixin, settings):
    before = row(account)
    settings.WECHAT_TOKEN = {"CA_BUNDLE": "/nowhere/ca.pem"}
    with pytest.raises(ConfigurationError):
        renew(account)
    assert row(account).revision == before.revision
    assert "ConfigurationError" in Host.objects.get().problems


@pytest.mark.parametrize("endpoint", ["stable", "classic"])
def test_refresh__unreadable_value_is_no_value(account, weixin, settings, time, endpoint):
    """R36: the AppSecret was entered anew, the old token's key is lost."""
    Account.objects.update(endpoint=endpoint)
    get_access_token(APPID)
    time.pass_(60)
    served.clear_memory()
    settings.SECRET_KEY = "another"
    account = Account.objects.defer("secret").get()
    account.secret = SECRET
    account.save()
    assert renew(account).status is Status.RENEWED
    assert weixin.is_valid(stored(account))
    assert get_access_token(APPID) == stored(account)
    assert weixin.calls_to(APPID, endpoint) == 2


def test_get_access_token__unreadable_value_is_fetched_anew(account, weixin, settings):
    get_access_token(APPID)
    served.clear_memory()
    settings.SECRET_KEY = "another"
    Account.objects.update(secret=SECRET)  # by hand: nobody said that the account was edited
    assert weixin.is_valid(get_access_token(APPID))
    assert weixin.calls_to(APPID, "stable") == 2


class Abandoned(BaseException):
    """As gevent.Timeout."""


@pytest.mark.parametrize("error", [ValueError, Abandoned])
def test_refresh__whatever_is_raised_after_the_claim_is_a_failure(classic, weixin, monkeypatch, error):
    def broken(*args, **options):
        raise error

    monkeypatch.setattr(transport, "call", broken)
    outcome = renew(classic)
    after = row(classic)
    assert (outcome.status, after.failures, after.lease_owner) == (Status.FAILED, 1, "")
    assert after.unanswered_since is not None  # it may have left
    assert error.__name__ in RefreshLog.objects.get().error


@pytest.mark.parametrize("kind", ["refused", "error"])
def test_refresh__counts_what_left(classic, weixin, kind):
    weixin.inject(Fault(kind, errcode=-1))
    renew(classic)
    assert row(classic).usage.get("classic", 0) == (kind == "error")


@pytest.mark.parametrize("setting", [{"PAUSED": True}, {"REMOTE_URL": "https://tokens.example.com/wechat/"}])
def test_begin__a_site_that_must_not_asks_nobody(account, weixin, settings, setting):
    settings.WECHAT_TOKEN = setting
    with pytest.raises(ConfigurationError):
        begin(KEY, Reason.SCHEDULE)
    assert not weixin.calls


# -- who is told, and when


def test_signals__are_sent_when_the_callers_have_left(account, hangar, time, weixin):
    token = renewed_once(hangar)
    time.pass_(60)
    heard = []

    def listener(**payload):
        heard.append((flight.result.done(), flight.landed.done()))

    signals.refresh_finished.connect(listener)
    try:
        flight = begin(KEY, Reason.COMPLAINT, complaint=Complaint(Secret(token)))
        hangar.let_go()
        assert flight.result.result().status is Status.ACCEPTED
        flight = begin(KEY, Reason.COMMAND)
        hangar.let_go()
        assert flight.result.result().status is Status.UNCHANGED
    finally:
        signals.refresh_finished.disconnect(listener)
    assert heard == [(True, True)] * 2


# -- versions (R32)


def test_version__grows_across_a_restored_backup(classic, weixin, time):
    renew(classic)
    yesterday = Token.objects.values().get()
    time.pass_until(row(classic).due_at)
    renew(classic)
    newest = row(classic).version
    Token.objects.filter(pk=yesterday["id"]).update(**yesterday)
    time.pass_(60)
    renew(classic, Reason.COMMAND)
    assert row(classic).version > newest


# -- edits (R10)


def test_account_saved__a_new_name_is_no_edit(account, weixin):
    edition = account.edition
    account.name = "another name"
    account.save()
    assert Account.objects.get().edition == edition


@pytest.mark.parametrize("edit", [{"secret": "another"}, {"endpoint": "classic"}, {"appid": "wxanother0000000"}])
def test_account_saved__what_wechat_knows_is_an_edit(account, edit):
    edition = account.edition
    for name, value in edit.items():
        setattr(account, name, value)
    account.save()
    assert Account.objects.get().edition > edition


def test_refresh__an_edit_begins_a_new_streak(account, weixin):
    """R10: whoever entered another wrong secret is told so."""
    heard = []

    def listener(**payload):
        heard.append(payload["errcode"])

    signals.attention_needed.connect(listener)
    try:
        for secret in ("wrong", "wrong as well"):
            account.secret = secret
            account.save()
            assert renew(account).status is Status.FAILED
            assert row(account).failures == 1
    finally:
        signals.attention_needed.disconnect(listener)
    assert heard == [40125, 40125]


def test_refresh__of_an_account_edited_meanwhile_is_due_at_once(account, weixin, time, monkeypatch):
    """Beat looks at the due time alone."""

    def edit():
        edited = Account.objects.get()
        edited.endpoint = "classic"
        edited.save()

    when_asked(monkeypatch, edit)
    renew(account)
    assert row(account).due_at <= time.now()
