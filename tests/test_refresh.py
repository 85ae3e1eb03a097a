"""The refresh flow under bad answers, races and a failing database."""

from __future__ import annotations

import pytest
from django.db import OperationalError

from tests.conftest import APPID, SECRET, renew, row
from wechat_token import get_access_token, signals
from wechat_token.engine import rows, served
from wechat_token.engine.refresh import Status
from wechat_token.engine.schedule import Reason, seconds
from wechat_token.exceptions import ErrorClass, TokenUnavailable
from wechat_token.models import Account, RefreshLog, Token
from wechat_token.platforms import transport
from wechat_token.redaction import Secret
from wechat_token.sandbox import Fault


def make_due(account: Account, time) -> None:
    time.pass_until(row(account).due_at)


# -- hostile answers (R11): the old token stays, the row says what happened, nothing loops

SPOILED = [
    "status", "empty", "html", "truncated", "garbage", "redirect", "life_nan", "life_negative", "life_missing",
    "life_huge", "value_null", "value_empty", "value_number", "value_huge", "value_control", "lost_before",
    "lost_after", "cut", "hang_after",
]  # fmt: skip


@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.parametrize("endpoint", ["stable", "classic"])
def test_refresh__spoiled_answer_keeps_the_old_token(account, weixin, time, endpoint, kind):
    account.endpoint = endpoint
    account.save()
    token = get_access_token(APPID)
    make_due(account, time)
    weixin.inject(Fault(kind))
    assert renew(account).status is Status.FAILED
    after = row(account)
    assert after.value.reveal() == token
    assert (after.failures, after.error_class) == (1, ErrorClass.TRANSIENT)
    assert after.error
    assert get_access_token(APPID) == token
    assert seconds(0) < after.due_at - time.now() <= seconds(25)


@pytest.mark.parametrize(
    ("errcode", "error_class"),
    [
        (-1, ErrorClass.TRANSIENT), (40013, ErrorClass.HUMAN), (40125, ErrorClass.HUMAN), (40164, ErrorClass.HUMAN),
        (40243, ErrorClass.HUMAN), (45009, ErrorClass.QUOTA), (45011, ErrorClass.QUOTA), (50004, ErrorClass.HUMAN),
        (89503, ErrorClass.HUMAN), (123456, ErrorClass.UNKNOWN),
    ],
)  # fmt: skip
def test_refresh__errcode_keeps_the_old_token_and_says_what_to_do(account, weixin, time, errcode, error_class):
    token = get_access_token(APPID)
    make_due(account, time)
    weixin.inject(Fault("error", errcode=errcode, errmsg="nope"))
    outcome = renew(account)
    after = row(account)
    assert outcome.status is Status.FAILED
    assert (after.errcode, after.error_class) == (errcode, error_class)
    assert after.value.reveal() == token
    if error_class is not ErrorClass.TRANSIENT:
        assert after.due_at - time.now() >= seconds(60)


def test_refresh__daily_quota_waits_for_beijing_midnight(account, weixin, time):
    weixin.inject(Fault("error", errcode=45009))
    renew(account)
    wait = row(account).due_at - time.now()
    assert seconds(12 * 3600) <= wait <= seconds(12 * 3600 + 600)  # the clock starts at noon in Beijing


def test_refresh__egress_ip_is_kept_for_the_operator(account, weixin):
    weixin.set_ip_whitelist(APPID, ["10.1.2.3"])
    renew(account)
    assert row(account).egress_ip == "127.0.0.1"


# -- the intent (R2)


@pytest.mark.parametrize(("kind", "doubt"), [("lost_after", True), ("error", False), ("refused", False)])
def test_refresh__only_a_lost_answer_makes_a_classic_token_suspect(classic, weixin, time, kind, doubt):
    get_access_token(APPID)
    make_due(classic, time)
    weixin.inject(Fault(kind))
    renew(classic)
    assert (row(classic).unanswered_since is not None) is doubt


def test_refresh__suspect_token_is_good_for_the_overlap_only(classic, weixin, time):
    get_access_token(APPID)
    make_due(classic, time)
    weixin.inject(Fault("lost_after"), times=99)
    for _ in range(100):
        renew(classic)
        if not weixin.is_valid(row(classic).value.reveal()):
            break
        time.pass_(5)
    with pytest.raises(TokenUnavailable):
        get_access_token(APPID)


def test_refresh__repair_after_a_lost_answer_within_thirty_seconds(classic, weixin, time):
    get_access_token(APPID)
    make_due(classic, time)
    weixin.inject(Fault("lost_after"))
    renew(classic)
    lost = time.now()
    make_due(classic, time)
    assert renew(classic).status is Status.RENEWED
    assert time.now() - lost <= seconds(25)


def test_refresh__lost_answers_without_end_leave_calls_for_the_day(classic, weixin, time):
    """R16: a test account has 200 calls a day."""
    classic.daily_limit = 200
    classic.save()
    get_access_token(APPID)
    make_due(classic, time)
    weixin.inject(Fault("lost_after"), times=500)
    start = time.now()
    while time.now() - start < seconds(8 * 3600):
        renew(classic)
        make_due(classic, time)
    assert 100 < weixin.calls_to(APPID, "classic") < 190
    assert row(classic).error_class == ErrorClass.TRANSIENT


def test_refresh__a_request_still_on_its_way_is_allowed_for(classic, weixin, time):
    """A token that came soon after a lost request may be displaced by it yet: trusted briefly, renewed once more."""
    get_access_token(APPID)
    make_due(classic, time)
    weixin.inject(Fault("lost_after"))
    renew(classic)
    make_due(classic, time)
    renew(classic)
    assert row(classic).unanswered_since is not None
    make_due(classic, time)
    renew(classic)
    after = row(classic)
    assert after.unanswered_since is None
    assert after.due_at - time.now() > seconds(5000)


# -- fencing (R2)


def after_the_answer(monkeypatch, path, meanwhile, forced=None):
    """Do ``meanwhile`` when WeChat has answered this request, and before anybody has read the answer."""
    call = transport.call

    def slow(method, asked, **options):
        answer = call(method, asked, **options)
        if asked == path and forced in (None, (options.get("json") or {}).get("force_refresh")):
            monkeypatch.setattr(transport, "call", call)
            meanwhile()
        return answer

    monkeypatch.setattr(transport, "call", slow)


def test_refresh__a_late_answer_never_overwrites_a_newer_token(classic, weixin, time, monkeypatch):
    get_access_token(APPID)
    make_due(classic, time)
    before = row(classic).version

    def meanwhile():
        time.pass_(60)  # longer than the lease
        assert renew(classic).status is Status.RENEWED

    after_the_answer(monkeypatch, "/cgi-bin/token", meanwhile)
    assert renew(classic).status is Status.SUPERSEDED
    after = row(classic)
    assert after.version > before
    assert weixin.issued(APPID) == 3
    assert weixin.is_valid(after.value.reveal())
    assert after.unanswered_since is not None  # which of the two reached WeChat last is unknown
    assert after.due_at - time.now() <= seconds(25)


def stand_still_after_the_claim(monkeypatch, time, meanwhile=lambda: None):
    """As a process does that is stopped, or whose machine is suspended, between its intent and its request."""
    claim = rows.claim

    def slow(changes):
        done = claim(changes)
        monkeypatch.setattr(rows, "claim", claim)
        time.pass_(60)
        meanwhile()
        return done

    monkeypatch.setattr(rows, "claim", slow)


def test_refresh__held_up_after_the_claim_sends_nothing(classic, weixin, time, monkeypatch):
    """Its request would reach WeChat when the lease is over, and displace what somebody else has fetched by then."""
    get_access_token(APPID)
    make_due(classic, time)
    stand_still_after_the_claim(monkeypatch, time)
    outcome = renew(classic)
    assert outcome.status is Status.FAILED
    assert not outcome.error.may_have_issued
    assert weixin.issued(APPID) == 1
    assert row(classic).unanswered_since is None


def test_refresh__held_up_and_overtaken_asks_for_no_repair(classic, weixin, time, monkeypatch):
    get_access_token(APPID)
    make_due(classic, time)
    stand_still_after_the_claim(monkeypatch, time, meanwhile=lambda: renew(classic))
    assert renew(classic).status is Status.SUPERSEDED
    after = row(classic)
    assert (after.lost_at, weixin.issued(APPID)) == (None, 2)
    assert weixin.is_valid(after.value.reveal())


def test_refresh__overtaken_forced_refresh_asks_for_a_repair(account, weixin, time, monkeypatch):
    """A forced refresh displaces on the stable endpoint too."""
    token = get_access_token(APPID)
    time.pass_(600)
    weixin.kill_token(APPID, stuck=True)

    def meanwhile():
        time.pass_(60)
        assert renew(account).status is Status.RENEWED

    after_the_answer(monkeypatch, "/cgi-bin/stable_token", meanwhile, forced=True)
    outcome = renew(account, Reason.COMPLAINT, stale=Secret(token))
    assert outcome.status is Status.SUPERSEDED
    assert row(account).due_at - time.now() <= seconds(25)


def test_refresh__of_an_account_edited_meanwhile_is_due_again(account, weixin, monkeypatch):
    """R10: what the old credentials brought serves until the new ones have brought something."""

    def edit():
        edited = Account.objects.get(appid=APPID)
        edited.endpoint = "classic"
        edited.save()

    after_the_answer(monkeypatch, "/cgi-bin/stable_token", edit)
    assert renew(account).status is Status.RENEWED
    assert renew(account).status is Status.RENEWED
    assert weixin.calls_to(APPID, "classic") == 1
    assert renew(account).status is Status.CURRENT


def test_refresh__answer_for_another_appid_is_not_served(account, weixin, monkeypatch):
    weixin.add_account("wxother00000000", SECRET)

    def rename():
        edited = Account.objects.get(appid=APPID)
        edited.appid = "wxother00000000"
        edited.save()

    after_the_answer(monkeypatch, "/cgi-bin/stable_token", rename)
    theirs = renew(account).token.value.reveal()
    assert get_access_token("wxother00000000") != theirs
    assert weixin.issued("wxother00000000") == 1


# -- quotas (R16)


def test_refresh__own_guard_stops_before_wechats_limit(classic, weixin, time):
    classic.daily_limit = 20
    classic.save()
    for _ in range(30):
        renew(classic, Reason.COMMAND)
        time.pass_(5)
    assert weixin.calls_to(APPID, "classic") == 9  # by hand: renewals have a reserve (R33)
    assert row(classic).error_class == ""
    for _ in range(30):
        Token.objects.filter(failures=0).update(due_at=time.now())
        renew(classic)
        time.pass_(5)
    assert weixin.calls_to(APPID, "classic") == 19
    assert row(classic).error_class == ErrorClass.QUOTA
    assert RefreshLog.objects.filter(outcome="limited").count() == 1


def test_refresh__double_click_is_one_call(account, weixin, time):
    renew(account, Reason.ADMIN)
    renew(account, Reason.ADMIN)
    assert weixin.calls_to(APPID, "stable") == 1


# -- stable (R6)


def test_refresh__same_stable_token_is_no_error(account, weixin, time):
    token, before = get_access_token(APPID), row(account).version
    time.pass_(1000)
    assert renew(account, Reason.ADMIN).status is Status.UNCHANGED
    after = row(account)
    assert (after.version, after.value.reveal(), after.failures) == (before, token, 0)
    assert after.expires_at - time.now() == seconds(6200)


@pytest.mark.parametrize("endpoint", ["stable", "classic"])
@pytest.mark.parametrize("life", [60, 7200, 86400])
def test_refresh__any_life_works(account, weixin, time, endpoint, life):
    account.endpoint = endpoint
    account.save()
    weixin.set_life(life)
    get_access_token(APPID)
    for _ in range(5):
        make_due(account, time)
        assert weixin.is_valid(row(account).value.reveal())
        assert renew(account).status is Status.RENEWED
    assert weixin.issued(APPID) == 6


# -- the database


def test_refresh__store_survives_a_database_that_fails_for_a_moment(transactional_db, weixin, time, monkeypatch):
    weixin.add_account(APPID, "s")
    account = Account.objects.create(appid=APPID, secret="s", endpoint="classic")
    write, failed = rows.write, []

    def failing(token, fields, owner=""):
        if owner and len(failed) < 3:
            failed.append(1)
            raise OperationalError("the server was restarted")
        return write(token, fields, owner)

    monkeypatch.setattr(rows, "write", failing)
    assert renew(account).status is Status.RENEWED
    assert row(account).version
    assert weixin.issued(APPID) == 1


def test_refresh__database_gone_at_the_store_serves_from_memory(transactional_db, weixin, time, monkeypatch, caplog):
    """R13: WeChat has issued the token; it must not be lost for this process."""
    weixin.add_account(APPID, "s")
    account = Account.objects.create(appid=APPID, secret="s", endpoint="classic")
    write = rows.write

    def failing(token, fields, owner=""):
        if owner:
            raise OperationalError("gone")
        return write(token, fields, owner)

    monkeypatch.setattr(rows, "write", failing)
    outcome = renew(account)
    assert outcome.status is Status.RENEWED
    assert weixin.is_valid(served.recall((APPID, "access_token")).value)
    assert row(account).unanswered_since is not None  # brings the repair
    assert "could not be stored" in caplog.text


# -- who is told


def test_attention_needed__once_per_streak(account, weixin, time):
    heard = []

    def listener(**payload):
        heard.append((payload["errcode"], str(payload["action"])))

    signals.attention_needed.connect(listener)
    try:
        weixin.freeze(APPID)
        for _ in range(3):
            renew(account, Reason.COMMAND)
            time.pass_(60)
    finally:
        signals.attention_needed.disconnect(listener)
    assert len(heard) == 1
    assert heard[0][0] == 40243
    assert heard[0][1]


def test_refresh__a_failing_listener_does_no_harm(account, weixin):
    def listener(**payload):
        raise RuntimeError

    signals.refresh_finished.connect(listener)
    try:
        assert renew(account).status is Status.RENEWED
    finally:
        signals.refresh_finished.disconnect(listener)


def test_refresh__leaves_no_lease_behind(account, weixin):
    renew(account)
    assert Token.objects.get().lease_owner == ""
