"""Tickets by their names, on the real engine and the fake WeChat."""

from __future__ import annotations

import copy

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError

from tests.conftest import APPID, SECRET, START, renew
from wechat_token import aget_ticket, arefresh_ticket, get_access_token, get_ticket, refresh_ticket, signals
from wechat_token.engine import drain, rows, schedule, served
from wechat_token.engine.schedule import Reason, seconds
from wechat_token.exceptions import AccountNotFound, KindNotOffered, TokenUnavailable
from wechat_token.models import Account, RefreshLog, Token
from wechat_token.platforms import transport
from wechat_token.sandbox import FakeWeChat, Fault
from wechat_token.sandbox.testing import fake_wechat


def ticket_row(kind: str = "jsapi_ticket", ref: str = APPID) -> Token:
    return Token.objects.select_related("account").get(account__ref=ref, kind=kind)


def calls(weixin) -> tuple[int, int]:
    """How many tokens and tickets WeChat was asked for."""
    return weixin.calls_to(APPID, "stable"), weixin.calls_to(APPID, "ticket")


def drain_until(time, end, *, reading=lambda: None) -> None:
    """Beat, as soon as something is due; ``reading``: what a busy site does just before."""
    while time.elapsed < end:
        due = min(row.due_at for row in Token.objects.all())
        time.pass_until(max(due - seconds(0.1), time.now()))
        reading()
        time.pass_(0.2)
        drain()


# -- names


def test_get_ticket__fetches_token_and_ticket_once_each(account, weixin):
    ticket = get_ticket(APPID)
    assert weixin.is_valid(ticket)
    assert (
        get_ticket(APPID, "jsapi_ticket") == get_ticket(APPID, "jsapi") == get_ticket(account) == get_ticket() == ticket
    )
    assert calls(weixin) == (1, 1)


def test_get_ticket__kinds_are_apart(account, weixin):
    assert get_ticket(APPID, "wx_card") == get_ticket(APPID, "wx_card_ticket") != get_ticket(APPID)
    assert calls(weixin) == (1, 2)


def test_get_ticket__in_a_loop(account, weixin):
    async def both() -> tuple[str, str]:
        ticket = await aget_ticket(APPID, "jsapi")
        return ticket, await arefresh_ticket(APPID, stale_ticket="an older one")

    first, second = async_to_sync(both)()
    assert first == second == get_ticket(APPID)


@pytest.mark.parametrize("kind", ["jsapy", "", "component_verify_ticket"])
def test_get_ticket__a_kind_that_the_platform_lacks_names_those_it_has(account, weixin, kind):
    with pytest.raises(KindNotOffered, match="access_token, jsapi_ticket, wx_card_ticket"):
        get_ticket(APPID, kind)
    assert calls(weixin) == (0, 0)


@pytest.mark.parametrize("ref", ["wx： 1", "0001000002", "wx0123456789abcdef:1000002", "", " ", "wx\n"])
def test_get_ticket__odd_refs_are_nobodys(account, weixin, ref):
    with pytest.raises(AccountNotFound):
        get_ticket(ref)


# -- needs (R20) and blame (R21)


def test_needs__a_dead_token_is_replaced_and_the_ticket_asked_for_once_more(account, weixin, time):
    token = get_access_token(APPID)
    time.pass_(60)
    weixin.kill_token(APPID)
    assert weixin.is_valid(get_ticket(APPID))
    assert get_access_token(APPID) != token
    assert calls(weixin) == (2, 2)
    assert ticket_row().failures == 0
    log = [(entry.kind, entry.outcome, entry.errcode) for entry in RefreshLog.objects.order_by("pk")]
    assert log[1:] == [
        ("jsapi_ticket", "failed", 40001), ("access_token", "renewed", None), ("jsapi_ticket", "renewed", None),
    ]  # fmt: skip


def test_needs__refused_again_it_stops(account, weixin, time):
    get_access_token(APPID)
    weixin.inject(Fault("error", errcode=40001), times=50, endpoint="ticket")
    weixin.inject(Fault("error", errcode=40001), times=50, endpoint="get_api_domain_ip")
    with pytest.raises(TokenUnavailable) as caught:
        get_ticket(APPID)
    assert calls(weixin) == (3, 2)  # plain, and forced: the fake returned the very token that was refused
    assert (caught.value.errcode, ticket_row().failures) == (40001, 1)


def test_needs__a_token_that_is_not_to_blame_is_left_alone(account, weixin, time):
    token = get_access_token(APPID)
    weixin.inject(Fault("error", errcode=40001), times=50, endpoint="ticket")
    with pytest.raises(TokenUnavailable):
        get_ticket(APPID)
    assert get_access_token(APPID) == token
    assert calls(weixin) == (1, 1)
    assert ticket_row().failures == 1


def test_needs__a_token_that_was_replaced_meanwhile_is_not_complained_about(account, weixin, time, monkeypatch):
    """It died between need and fetch, and another process has renewed it by now: nobody asks WeChat about it."""
    get_access_token(APPID)
    time.pass_(60)
    call = transport.call

    def late(method, path, **options):
        if path.endswith("getticket"):
            monkeypatch.setattr(transport, "call", call)
            weixin.kill_token(APPID)
            renew(account, Reason.COMMAND)
        return call(method, path, **options)

    monkeypatch.setattr(transport, "call", late)
    assert weixin.is_valid(get_ticket(APPID))
    assert calls(weixin) == (2, 2)
    assert weixin.calls_to(APPID, "get_api_domain_ip") == 0


def test_waiting__is_no_failure_and_names_the_root(account, weixin, time):
    told = []
    signals.attention_needed.connect(lambda **payload: told.append(payload["kind"]), weak=False, dispatch_uid="told")
    weixin.freeze(APPID)
    with pytest.raises(TokenUnavailable, match=rf"waits for {APPID} access_token: .*40243") as caught:
        get_ticket(APPID)
    signals.attention_needed.disconnect(dispatch_uid="told")
    row = ticket_row()
    assert (row.failures, row.error_class, row.waits_for) == (0, "", f"{APPID} access_token")
    assert caught.value.errcode == 40243
    assert told == ["access_token"]
    assert row.due_at > Token.objects.get(kind="access_token").due_at
    assert weixin.calls_to(APPID, "ticket") == 0


def test_waiting__for_a_root_that_backs_off_is_no_failure(account, weixin, time):
    """It is noted by the ticket's own flight, not by the root's failure."""
    weixin.freeze(APPID)
    with pytest.raises(TokenUnavailable):
        get_access_token(APPID)
    with pytest.raises(TokenUnavailable, match="waits for"):
        get_ticket(APPID)
    row = ticket_row()
    assert (row.failures, row.waits_for) == (0, f"{APPID} access_token")
    assert row.due_at > Token.objects.get(kind="access_token").due_at


def test_waiting__ends_with_the_roots_success(account, weixin, time):
    weixin.freeze(APPID)
    with pytest.raises(TokenUnavailable):
        get_ticket(APPID)
    weixin.freeze(APPID, False)
    root = Token.objects.get(kind="access_token")
    time.pass_until(root.due_at)
    drain()
    assert ticket_row().waits_for == ""
    drain()
    assert weixin.is_valid(ticket_row().value.reveal())


def test_waiting__ends_though_the_answer_to_the_roots_store_was_lost(account, weixin, time, monkeypatch):
    """It was written, and then the database broke off before it was told who waits."""
    weixin.freeze(APPID)
    with pytest.raises(TokenUnavailable):
        get_ticket(APPID)
    weixin.freeze(APPID, False)
    store = rows.store

    def breaks_off(changes):
        monkeypatch.setattr(rows, "store", store)
        store([change._replace(token=copy.copy(change.token), dependents=None) for change in changes])
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(rows, "store", breaks_off)
    time.pass_(60)
    renew(account, Reason.COMMAND)
    row = ticket_row()
    assert (row.waits_for, row.due_at <= time.now()) == ("", True)


def test_waiting__a_root_that_goes_on_failing_keeps_them_waiting(account, weixin, time):
    """A tick finds the root due, and none of those who wait for it."""
    weixin.freeze(APPID)
    with pytest.raises(TokenUnavailable):
        get_ticket(APPID)
    for _ in range(5):
        time.pass_until(Token.objects.get(kind="access_token").due_at)
        assert drain().total() == 1
        assert ticket_row().due_at > Token.objects.get(kind="access_token").due_at
    assert ticket_row().failures == 0


def test_waiting__a_ticket_that_is_due_is_held_by_its_roots_failure(account, weixin, time):
    """In the transaction of that failure: the ticket is not even looked at."""
    get_ticket(APPID)
    root = Token.objects.get(kind="access_token")
    time.pass_until(root.expires_at)
    weixin.outage()
    Token.objects.filter(kind="jsapi_ticket").update(due_at=time.now() + seconds(1))
    renew(account)
    row = ticket_row()
    assert (row.waits_for, row.failures) == (f"{APPID} access_token", 0)
    assert row.due_at > Token.objects.get(kind="access_token").due_at


def test_waiting__while_the_old_token_serves_nobody_waits(account, weixin, time):
    get_ticket(APPID)
    time.pass_until(Token.objects.get(kind="access_token").due_at)
    weixin.inject(Fault("error", errcode=-1), endpoint="stable")
    before = ticket_row().due_at
    renew(account)
    assert (ticket_row().waits_for, ticket_row().due_at) == ("", before)


@pytest.mark.parametrize("backs_off", [False, True])
def test_waiting__what_comes_at_that_very_moment_is_seen(account, weixin, time, monkeypatch, backs_off):
    """Between the look at the token and the note that the ticket waits for it."""
    weixin.freeze(APPID)
    if backs_off:  # so that its success does not touch the ticket's row
        with pytest.raises(TokenUnavailable):
            get_access_token(APPID)
    write = rows.write

    def late(token, fields, owner=""):
        if fields.get("waits_for"):
            monkeypatch.setattr(rows, "write", write)
            weixin.freeze(APPID, False)
            time.pass_(4)
            renew(account, Reason.COMMAND)
        return write(token, fields, owner)

    monkeypatch.setattr(rows, "write", late)
    assert weixin.is_valid(get_ticket(APPID))
    assert ticket_row().waits_for == ""


def test_edit__wakes_who_waits(account, weixin, time):
    weixin.freeze(APPID)
    with pytest.raises(TokenUnavailable):
        get_ticket(APPID)
    weixin.freeze(APPID, False)
    account.refresh_from_db()
    account.secret = account.secret.reveal()
    account.save()
    assert weixin.is_valid(get_ticket(APPID))


# -- birth (R23)


def test_birth__the_first_ticket_is_checked_until_its_birth_is_known(account, weixin, time):
    get_ticket(APPID)
    row = ticket_row()
    assert row.born_after is None
    assert row.expires_at - START == seconds(30)
    assert row.due_at < row.expires_at


@pytest.mark.parametrize("world", ["A", "B"])
def test_birth__no_dead_ticket_is_served(db, time, world):
    """Those who cache it for what the second answer tells, serve a dead one for hours."""
    bad = []
    with fake_wechat(FakeWeChat(time.timestamp, seed=1, ticket_world=world)) as weixin:
        weixin.add_account(APPID, SECRET)
        Account.objects.create(appid=APPID, secret=SECRET)

        def read() -> None:
            if not weixin.is_valid(get_ticket(APPID)):
                bad.append(time.elapsed)

        read()
        Token.objects.filter(kind="jsapi_ticket").update(born_after=time.now() - seconds(20), due_at=time.now())
        drain_until(time, 9 * 3600, reading=read)
        assert bad == []
        assert weixin.issued(APPID, "ticket_jsapi") == 5
        assert weixin.calls_to(APPID, "ticket") < 25


def test_birth__of_another_accounts_ticket_says_nothing(account, weixin, time):
    """The AppID was corrected: what the former one answered an hour ago does not date this one's ticket."""
    other = "wx00000000000other"[:18]
    weixin.add_account(other, SECRET)
    get_ticket(APPID)
    time.pass_(20)
    account = Account.objects.get()
    account.appid, account.secret = other, SECRET
    account.save()
    served.clear_memory()
    assert weixin.is_valid(get_ticket(other))
    row = ticket_row(ref=other)
    assert (row.born_after, row.former_digest) == (None, "")


def test_birth__a_ticket_that_nobody_can_read_may_be_the_very_one_that_comes(account, weixin, time, settings):
    """Else it would be taken for a new one, born after the latest answer, and served for hours after its death."""
    get_ticket(APPID)
    time.pass_(20)
    served.clear_memory()
    settings.SECRET_KEY = "another"
    Account.objects.update(secret=SECRET)
    assert weixin.is_valid(get_ticket(APPID))
    assert ticket_row().born_after is None


# -- in use only (R28)


def test_lazy__an_account_without_requests_has_no_ticket_row(account, weixin, time):
    drain()
    assert list(Token.objects.values_list("kind", flat=True)) == ["access_token"]


def test_lazy__renewed_while_asked_for_in_the_last_day(account, weixin, time):
    get_ticket(APPID)
    time.pass_(7200 + 20)
    asked = weixin.calls_to(APPID, "ticket")
    drain()
    assert weixin.calls_to(APPID, "ticket") == asked + 1
    assert ticket_row().due_at is not None


def test_lazy__that_somebody_asks_is_noted_by_the_hour(account, weixin, time):
    get_ticket(APPID)
    for hour, noted in ((0.5, 0), (1.5, 1.5), (2, 1.5), (3, 3)):
        time.pass_until(START + seconds(hour * 3600))
        get_ticket(APPID)
        assert ticket_row().asked_at == START + seconds(noted * 3600)


def test_lazy__tokens_are_not_noted(account, weixin, time):
    get_access_token(APPID)
    time.pass_(2 * 3600)
    get_access_token(APPID)
    assert Token.objects.get().asked_at is None


def test_lazy__asleep_after_a_day_and_woken_by_the_next_request(account, weixin, time):
    get_ticket(APPID)
    time.pass_(25 * 3600)
    drain()
    assert ticket_row().due_at is None
    asked = weixin.calls_to(APPID, "ticket")
    time.pass_(3 * 3600 + 17 * 60 + 17)  # the hourly look for forgotten accounts
    drain()
    assert weixin.calls_to(APPID, "ticket") == asked
    assert weixin.is_valid(get_ticket(APPID))
    assert ticket_row().due_at is not None


def test_lazy__somebody_who_asks_at_that_very_moment_keeps_it_awake(account, weixin, time, monkeypatch):
    get_ticket(APPID)
    time.pass_(25 * 3600)
    is_in_use = schedule.is_in_use

    def asked_just_after(token, now):
        judged = is_in_use(token, now)
        rows.note_demand(token.pk)
        return judged

    monkeypatch.setattr(schedule, "is_in_use", asked_just_after)
    drain()
    assert ticket_row().due_at is not None


# -- complaints


def test_refresh_ticket__an_older_one_costs_no_call(account, weixin, time):
    ticket = get_ticket(APPID)
    assert refresh_ticket(APPID, stale_ticket="an older one") == ticket
    assert calls(weixin) == (1, 1)


def test_refresh_ticket__the_same_one_back_is_the_answer_for_a_minute(account, weixin, time):
    ticket = get_ticket(APPID)
    for _ in range(5):
        assert refresh_ticket(APPID, stale_ticket=ticket) == ticket
    assert calls(weixin) == (1, 2)
    assert ticket_row().rejected_version == 0


def test_refresh_ticket__another_one_is_stored(account, weixin, time):
    ticket = get_ticket(APPID)
    weixin.end_ticket(APPID)
    successor = refresh_ticket(APPID, stale_ticket=ticket)
    assert weixin.is_valid(successor)
    assert successor == get_ticket(APPID) != ticket


# -- hostile answers (R11)


@pytest.mark.parametrize(
    "kind",
    ["value_null", "value_empty", "value_number", "value_huge", "value_control", "life_nan", "life_negative",
     "life_missing", "life_huge", "empty", "html", "garbage"],
)  # fmt: skip
def test_refresh__a_spoiled_answer_keeps_the_old_ticket(account, weixin, time, kind):
    ticket = get_ticket(APPID)
    time.pass_until(ticket_row().due_at)
    weixin.inject(Fault(kind, size=10_000) if kind == "value_huge" else Fault(kind), endpoint="ticket")
    drain()
    row = ticket_row()
    assert row.value.reveal() == ticket
    assert row.failures == 1
    assert get_ticket(APPID) == ticket


def test_errors__a_mini_program_is_told_that_it_has_no_tickets(account, weixin, time):
    weixin.inject(Fault("error", errcode=48001), endpoint="ticket")
    with pytest.raises(TokenUnavailable) as caught:
        get_ticket(APPID)
    assert caught.value.errcode == 48001
    assert ticket_row().due_at - time.now() > seconds(600)


def test_account__switched_off_has_no_ticket(account, weixin, time):
    get_ticket(APPID)
    Account.objects.get().delete()
    with pytest.raises(AccountNotFound):
        get_ticket(APPID)
