"""The fake WeChat's own rules, on a manual clock: it promises what docs/design.md says WeChat promises."""

import json
import subprocess
import sys
import threading

import pytest

from wechat_token.sandbox import Call, FakeWeChat, ManualClock, Refusal

APPID = "wx0123456789abcdef"
OTHER = "wxfedcba9876543210"
SECRET = "5ec4e7" * 5 + "aa"
TICK = 1.0


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def fake(clock):
    return make(clock)


def make(clock, *, account=None, **options):
    fake = FakeWeChat(clock, **{"seed": 7, **options})
    fake.add_account(APPID, SECRET, **(account or {}))
    return fake


def get(fake, path, remote_ip="127.0.0.1", **query):
    return fake.handle("GET", path, query, b"", remote_ip).json()


def classic(fake, remote_ip="127.0.0.1", **changes):
    query = {"grant_type": "client_credential", "appid": APPID, "secret": SECRET, **changes}
    return get(fake, "/cgi-bin/token", remote_ip, **query)


def stable(fake, **changes):
    body = {"grant_type": "client_credential", "appid": APPID, "secret": SECRET, **changes}
    return fake.handle("POST", "/cgi-bin/stable_token", {}, json.dumps(body).encode()).json()


def use(fake, token):
    return get(fake, "/cgi-bin/get_api_domain_ip", access_token=token)


# -- classic


def test_classic__answers_without_errcode(fake):
    answer = classic(fake)

    assert set(answer) == {"access_token", "expires_in"}
    assert answer["expires_in"] == 7200


def test_classic__every_call_brings_a_new_token(fake):
    assert classic(fake)["access_token"] != classic(fake)["access_token"]


def test_classic__displaced_token_lives_for_the_overlap(fake, clock):
    old = classic(fake)["access_token"]
    classic(fake)

    clock.advance(299)
    assert "ip_list" in use(fake, old)
    clock.advance(1)
    assert use(fake, old)["errcode"] == 40001


def test_classic__displacement_does_not_prolong_a_life(fake, clock):
    old = classic(fake)["access_token"]
    clock.advance(7100)
    classic(fake)

    clock.advance(99)
    assert fake.is_valid(old)
    clock.advance(1)
    assert use(fake, old)["errcode"] == 42001


def test_classic__third_token_leaves_the_first_its_overlap(fake):
    first, second = classic(fake)["access_token"], classic(fake)["access_token"]
    classic(fake)

    assert fake.is_valid(first)
    assert fake.is_valid(second)


def test_classic__strict_keeps_only_the_previous_token(clock):
    fake = make(clock, strict=True)
    first, second = classic(fake)["access_token"], classic(fake)["access_token"]
    classic(fake)

    assert not fake.is_valid(first)
    assert fake.is_valid(second)


def test_classic__daily_quota_ends_at_midnight_in_beijing(clock):
    fake = make(clock, account={"classic_daily": 2})
    to_midnight = 86_400 - (clock() + 8 * 3600) % 86_400
    clock.advance(to_midnight - 2)
    classic(fake)
    classic(fake)

    assert classic(fake)["errcode"] == 45009
    clock.advance(1)
    assert classic(fake)["errcode"] == 45009
    clock.advance(1)
    assert "access_token" in classic(fake)


# -- stable


def test_stable__repeats_the_token_with_the_time_left(fake, clock):
    first = stable(fake)
    clock.advance(1000)
    second = stable(fake)

    assert second["access_token"] == first["access_token"]
    assert (first["expires_in"], second["expires_in"]) == (7200, 6200)


def test_stable__last_overlap_brings_a_new_token_and_both_work(fake, clock):
    old = stable(fake)["access_token"]
    clock.advance(7200 - 301)
    assert stable(fake)["access_token"] == old
    clock.advance(1)
    new = stable(fake)

    assert new["access_token"] != old
    assert new["expires_in"] == 7200
    clock.advance(299)
    assert fake.is_valid(old)
    assert fake.is_valid(new["access_token"])
    clock.advance(1)
    assert not fake.is_valid(old)


def test_stable__window_can_differ_from_the_overlap(clock):
    fake = make(clock, life=60, window=20)
    old = stable(fake)["access_token"]
    clock.advance(39)
    assert stable(fake)["access_token"] == old
    clock.advance(1)

    assert stable(fake)["access_token"] != old


def test_stable__expired_token_is_replaced(fake, clock):
    old = stable(fake)["access_token"]
    clock.advance(7200)

    assert stable(fake)["access_token"] != old


def test_stable__and_classic_do_not_touch_each_other(fake, clock):
    on_stable = stable(fake)["access_token"]
    on_classic = classic(fake)["access_token"]
    classic(fake)
    stable(fake, force_refresh=True)
    clock.advance(TICK)

    assert not fake.is_valid(on_stable)
    assert fake.is_valid(on_classic)
    clock.advance(300)
    assert not fake.is_valid(on_classic)


def test_stable__forced_refresh_ends_the_old_token(fake):
    old = stable(fake)["access_token"]
    new = stable(fake, force_refresh=True)["access_token"]

    assert new != old
    assert use(fake, old)["errcode"] == 40001
    assert fake.is_valid(new)


def test_stable__forced_overlap_leaves_the_old_token_until_a_second_force(clock):
    fake = make(clock, forced_overlap=300)
    old = stable(fake)["access_token"]
    stable(fake, force_refresh=True)
    assert fake.is_valid(old)
    clock.advance(30)
    stable(fake, force_refresh=True)

    assert not fake.is_valid(old)


def test_stable__forced_too_early_returns_the_current_token(fake, clock):
    first = stable(fake, force_refresh=True)["access_token"]
    clock.advance(29)
    assert stable(fake, force_refresh=True)["access_token"] == first
    clock.advance(1)

    assert stable(fake, force_refresh=True)["access_token"] != first


def test_stable__forced_too_early_holds_in_the_window_as_well(clock):
    fake = make(clock, life=60, overlap=300)
    first = stable(fake, force_refresh=True)["access_token"]
    clock.advance(29)

    assert stable(fake, force_refresh=True)["access_token"] == first
    assert stable(fake)["access_token"] != first


def test_stable__twenty_first_forced_refresh_of_a_day_is_refused(fake, clock):
    for _ in range(20):
        assert "access_token" in stable(fake, force_refresh=True)
        clock.advance(30)

    assert stable(fake, force_refresh=True)["errcode"] == 45009
    assert "access_token" in stable(fake)


def test_stable__per_minute_quota(clock):
    fake = make(clock, account={"stable_per_minute": 2})
    clock.advance(60 - clock() % 60)
    stable(fake)
    stable(fake)

    assert stable(fake)["errcode"] == 45011
    clock.advance(60)
    assert "access_token" in stable(fake)


def test_stable__daily_quota(clock):
    fake = make(clock, account={"stable_daily": 1})
    stable(fake)

    assert stable(fake)["errcode"] == 45009


# -- refusals


def test_refusal__has_the_shape_of_wechats(fake):
    reply = fake.handle("GET", "/cgi-bin/get_api_domain_ip", {"access_token": "x"})

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json; encoding=utf-8"
    assert reply.json()["errcode"] == 40001
    text, _, rid = reply.json()["errmsg"].partition(" rid: ")
    assert text == "invalid credential, access_token is invalid or not latest"
    assert [len(part) for part in rid.split("-")] == [8, 8, 8]


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"grant_type": "authorization_code"}, 40002),
        ({"appid": "wxunknown"}, 40013),
        ({"appid": ""}, 41002),
        ({"secret": ""}, 41004),
    ],
)
def test_refusal__is_the_same_on_both_token_endpoints(fake, changes, errcode):
    assert classic(fake, **changes)["errcode"] == errcode
    assert stable(fake, **changes)["errcode"] == errcode


def test_refusal__wrong_secret_has_a_code_per_endpoint(fake):
    assert classic(fake, secret="wrong")["errcode"] == 40001
    assert stable(fake, secret="wrong")["errcode"] == 40125


def test_refusal__frozen_secret(fake):
    fake.freeze(APPID)
    assert classic(fake)["errcode"] == stable(fake)["errcode"] == 40243
    fake.freeze(APPID, on=False)

    assert "access_token" in stable(fake)


def test_refusal__address_not_in_the_whitelist_is_named(clock):
    fake = make(clock, account={"ip_whitelist": ["192.0.2.0/24", "2001:db8::1"]})

    answer = classic(fake, remote_ip="198.51.100.7")
    assert answer["errcode"] == 40164
    assert answer["errmsg"].startswith("invalid ip 198.51.100.7 ipv6 ::ffff:198.51.100.7, not in whitelist rid: ")
    assert "access_token" in classic(fake, remote_ip="192.0.2.200")
    assert "access_token" in classic(fake, remote_ip="2001:db8::1")


def test_whitelist__guards_business_calls_only_when_told(clock):
    loose, strict = (
        make(clock, account={"ip_whitelist": ["192.0.2.1"], "whitelist_all_calls": all_calls})
        for all_calls in (False, True)
    )
    answers = []
    for fake in (loose, strict):
        token = classic(fake, remote_ip="192.0.2.1")["access_token"]
        answers.append(get(fake, "/cgi-bin/get_api_domain_ip", "192.0.2.2", access_token=token))

    assert "ip_list" in answers[0]
    assert answers[1]["errcode"] == 40164


def test_whitelist__can_be_changed_and_lifted(fake):
    fake.set_ip_whitelist(APPID, [])
    assert classic(fake)["errcode"] == 40164
    fake.set_ip_whitelist(APPID, None)

    assert "access_token" in classic(fake)


@pytest.mark.parametrize(
    ("body", "errcode"),
    [(b"", 44002), (b"{", 47001), (b"[]", 47001), (b"\xff", 47001)],
)
def test_refusal__body_that_is_no_json_object(fake, body, errcode):
    assert fake.handle("POST", "/cgi-bin/stable_token", {}, body).json()["errcode"] == errcode


def test_refusal__force_refresh_must_be_a_boolean(fake):
    assert stable(fake, force_refresh="true")["errcode"] == 47001


def test_refusal__credentials_must_be_strings(fake):
    assert stable(fake, appid=[APPID])["errcode"] == stable(fake, secret=1)["errcode"] == 47001


def test_refusal__wrong_method(fake):
    assert get(fake, "/cgi-bin/stable_token")["errcode"] == 43002
    assert fake.handle("POST", "/cgi-bin/token", {}).json()["errcode"] == 43001


def test_refusal__unknown_path(fake):
    assert get(fake, "/cgi-bin/nothing")["errcode"] == 40066


# -- business calls and tickets


def test_business__missing_unknown_and_expired_tokens_differ(fake, clock):
    token = stable(fake)["access_token"]
    clock.advance(7200)

    assert get(fake, "/cgi-bin/user/info")["errcode"] == 41001
    assert use(fake, "never issued")["errcode"] == 40001
    assert use(fake, token)["errcode"] == 42001


def test_business__user_info(fake):
    token = stable(fake)["access_token"]

    assert get(fake, "/cgi-bin/user/info", access_token=token, openid="oX")["openid"] == "oX"
    assert get(fake, "/cgi-bin/user/info", access_token=token)["errcode"] == 40003


def test_business__custom_send(fake):
    query = {"access_token": stable(fake)["access_token"]}
    path = "/cgi-bin/message/custom/send"

    assert fake.handle("POST", path, query, b'{"touser":"oX"}').json() == {"errcode": 0, "errmsg": "ok"}
    assert fake.handle("POST", path, query, b"{}").json()["errcode"] == 40003
    assert fake.handle("POST", path, query, b"no json").json()["errcode"] == 47001


def test_ticket__repeats_and_always_reports_the_full_life(fake, clock):
    token = classic(fake)["access_token"]
    first = get(fake, "/cgi-bin/ticket/getticket", access_token=token, type="jsapi")
    clock.advance(7000)
    second = get(fake, "/cgi-bin/ticket/getticket", access_token=token, type="jsapi")

    assert first == second
    assert (first["errcode"], first["expires_in"]) == (0, 7200)
    clock.advance(200)
    assert not fake.is_valid(first["ticket"])


def test_ticket__new_one_after_its_life(fake, clock):
    first = get(fake, "/cgi-bin/ticket/getticket", access_token=stable(fake)["access_token"], type="jsapi")
    clock.advance(7200)
    second = get(fake, "/cgi-bin/ticket/getticket", access_token=stable(fake)["access_token"], type="jsapi")

    assert first["ticket"] != second["ticket"]


def test_ticket__kinds_are_apart_and_unknown_ones_refused(fake):
    token = classic(fake)["access_token"]
    jsapi, card, wrong = (
        get(fake, "/cgi-bin/ticket/getticket", access_token=token, type=kind) for kind in ("jsapi", "wx_card", "other")
    )

    assert jsapi["ticket"] != card["ticket"]
    assert wrong["errcode"] == 40097


def test_ticket__needs_a_live_token_and_is_none(fake):
    token = classic(fake)["access_token"]
    ticket = get(fake, "/cgi-bin/ticket/getticket", access_token=token, type="jsapi")["ticket"]

    assert get(fake, "/cgi-bin/ticket/getticket", access_token="dead", type="jsapi")["errcode"] == 40001
    assert use(fake, ticket)["errcode"] == 40001


# -- operator controls


def test_kill_token__ends_every_token_and_the_next_fetch_heals(fake):
    tokens = [classic(fake)["access_token"], classic(fake)["access_token"], stable(fake)["access_token"]]
    fake.kill_token(APPID)

    assert [use(fake, token)["errcode"] for token in tokens] == [40001] * 3
    assert fake.is_valid(stable(fake)["access_token"])


def test_kill_token__is_not_undone_by_the_next_fetch(fake):
    dead = classic(fake)["access_token"]
    fake.kill_token(APPID)
    classic(fake)

    assert not fake.is_valid(dead)


def test_kill_token__stuck_needs_a_forced_refresh(fake):
    dead = stable(fake)["access_token"]
    fake.kill_token(APPID, stuck=True)

    assert stable(fake)["access_token"] == dead
    healed = stable(fake, force_refresh=True)["access_token"]
    assert fake.is_valid(healed)
    assert stable(fake)["access_token"] == healed


def test_kill_token__stuck_ends_with_the_natural_life(clock):
    fake = make(clock, life=20, window=0)
    dead = stable(fake, force_refresh=True)["access_token"]
    fake.kill_token(APPID, stuck=True)
    clock.advance(19)
    assert stable(fake)["access_token"] == stable(fake, force_refresh=True)["access_token"] == dead
    clock.advance(1)

    assert fake.is_valid(stable(fake, force_refresh=True)["access_token"])


def test_foreign_refresh__displaces_the_classic_token_only(fake, clock):
    ours, on_stable = classic(fake)["access_token"], stable(fake)["access_token"]
    fake.foreign_refresh(APPID)
    clock.advance(300)

    assert not fake.is_valid(ours)
    assert fake.is_valid(on_stable)
    assert fake.calls[-1].remote == "foreign"


def test_foreign_refresh__stable_is_forced(fake):
    ours = stable(fake)["access_token"]
    fake.foreign_refresh(APPID, endpoint="stable")

    assert not fake.is_valid(ours)
    assert fake.calls_to(APPID, "stable_forced") == 1


def test_foreign_refresh__counts_against_the_quota(clock):
    fake = make(clock, account={"classic_daily": 1})
    fake.foreign_refresh(APPID)

    with pytest.raises(Refusal) as refused:
        fake.foreign_refresh(APPID)
    assert refused.value.errcode == 45009


def test_foreign_refresh__knows_the_token_endpoints_only(fake):
    with pytest.raises(ValueError, match="classic or stable"):
        fake.foreign_refresh(APPID, endpoint="ticket")


def test_reset_secret__old_one_is_refused_and_tokens_stay(fake):
    token = stable(fake)["access_token"]
    fake.reset_secret(APPID, "new")

    assert stable(fake)["errcode"] == 40125
    assert "access_token" in stable(fake, secret="new")
    assert fake.is_valid(token)


def test_reset_secret__may_kill_the_tokens(fake):
    token = stable(fake)["access_token"]
    fake.reset_secret(APPID, "new", kill_tokens=True)

    assert not fake.is_valid(token)


def test_set_life__holds_for_what_is_issued_next(fake, clock):
    old = classic(fake)["access_token"]
    fake.set_life(60)
    new = classic(fake)

    assert new["expires_in"] == 60
    clock.advance(60)
    assert not fake.is_valid(new["access_token"])
    assert fake.is_valid(old)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_set_life__refuses_what_is_no_life(fake, seconds):
    with pytest.raises(ValueError, match="at least one second"):
        fake.set_life(seconds)


def test_controls__unknown_account(fake):
    with pytest.raises(LookupError):
        fake.kill_token("wxunknown")


def test_add_account__twice_is_refused(fake):
    with pytest.raises(ValueError, match="already"):
        fake.add_account(APPID, "other")


# -- what happened


def test_calls__record_everything_but_secrets(fake, clock):
    token = stable(fake)["access_token"]
    stable(fake, secret="wrong")
    use(fake, token)

    assert fake.calls == [
        Call(clock(), APPID, "stable", False, 0, 1, "127.0.0.1"),
        Call(clock(), APPID, "stable", False, 40125, 0, "127.0.0.1"),
        Call(clock(), APPID, "get_api_domain_ip", False, 0, 1, "127.0.0.1"),
    ]


def test_reprs__show_no_secret_and_no_token(fake):
    grant = fake.fetch_stable(APPID, SECRET)
    reply = fake.handle("GET", "/cgi-bin/token", {"appid": APPID, "secret": SECRET})
    shown = "".join(map(repr, (fake, fake.calls, grant, reply, fake.state(), fake.valid_intervals(APPID))))
    shown += repr(vars(fake)) + repr(vars(fake._api)) + repr(vars(fake._api.accounts[APPID]))

    assert SECRET not in shown
    assert grant.token not in shown


def test_counters__calls_and_tokens(fake):
    stable(fake)
    stable(fake)
    stable(fake, force_refresh=True)
    classic(fake, secret="wrong")

    assert fake.calls_to(APPID, "stable") == 3
    assert fake.calls_to(APPID, "stable_forced") == 1
    assert fake.calls_to(APPID, "classic") == 1
    assert fake.issued(APPID) == fake.issued(APPID, "stable") == 2
    assert fake.issued(APPID, "classic") == 0


def test_is_valid__answers_for_the_past(fake, clock):
    born = clock()
    token = classic(fake)["access_token"]
    clock.advance(100)
    fake.kill_token(APPID)
    clock.advance(100)

    assert [fake.is_valid(token, at=born + s) for s in (-1, 0, 99, 100)] == [False, True, True, False]


def test_valid_intervals__tell_when_each_token_worked(fake, clock):
    born = clock()
    classic(fake)
    clock.advance(1000)
    classic(fake)

    intervals = [(i.serial, i.line, i.start - born, i.end - born) for i in fake.valid_intervals(APPID)]
    assert intervals == [(1, "classic", 0, 1300), (2, "classic", 1000, 8200)]


def test_history__off_keeps_counters_and_forgets_the_rest(clock):
    fake = make(clock, history=False)
    first = classic(fake)["access_token"]
    clock.advance(7200 + 3600)
    assert use(fake, first)["errcode"] == 42001
    clock.advance(1)
    classic(fake)

    assert use(fake, first)["errcode"] == 40001
    assert fake.calls == []
    assert fake.calls_to(APPID, "classic") == 2


# -- tokens


def test_tokens__look_real_and_are_unique(fake):
    tokens = [fake.fetch_classic(APPID, SECRET).token for _ in range(200)]

    assert len(set(tokens)) == 200
    assert {len(token) for token in tokens} == {139}
    assert all(token[2] == "_" and token.isascii() and token.isprintable() for token in tokens)


def test_expires_in__is_not_short_by_a_rounding_error():
    start = 5076.076230383868
    assert (start + 7200) - start < 7200  # in floating point
    fake = make(ManualClock(start))

    assert (classic(fake)["expires_in"], stable(fake)["expires_in"]) == (7200, 7200)


def test_tokens__follow_from_the_seed(clock):
    tokens = [make(clock, seed=seed).fetch_stable(APPID, SECRET).token for seed in (1, 1, 2, None, None)]

    assert tokens[0] == tokens[1]
    assert len(set(tokens)) == 4


def test_tokens__differ_between_accounts(fake):
    fake.add_account(OTHER, SECRET)

    assert fake.fetch_classic(APPID, SECRET).token != fake.fetch_classic(OTHER, SECRET).token


def test_fetch__refuses_like_the_endpoints(fake):
    with pytest.raises(Refusal, match="40125 invalid appsecret"):
        fake.fetch_stable(APPID, "wrong")
    assert fake.calls_to(APPID, "stable") == 1


def test_fetch__is_safe_in_many_threads(fake):
    tokens = []

    def fetch():
        tokens.extend(fake.fetch_classic(APPID, SECRET).token for _ in range(50))

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(tokens)) == fake.issued(APPID) == fake.calls_to(APPID, "classic") == 400


def test_manual_clock__does_not_run_backwards(clock):
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def test_sandbox__imports_no_django():
    code = "import sys, wechat_token.sandbox.__main__; sys.exit('django' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
