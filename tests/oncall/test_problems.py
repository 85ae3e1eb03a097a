"""What is wrong, by cause: from what the rows say and the time, nothing else."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import START
from wechat_token.diagnosis.evidence import Database, Facts, Failing, Group, HostFact, KeyEnd, Quota
from wechat_token.diagnosis.problems import Severity, problems

EVERY = 5.0


def ago(seconds):
    return START - dt.timedelta(seconds=seconds)


def host(name="a", *, beat=5, worker=5, tick=5, **fields):
    signs = {"beat_at": beat, "worker_at": worker, "ticked_at": tick}
    signs = {sign: None if seconds is None else ago(seconds) for sign, seconds in signs.items()}
    return HostFact(name, fields.pop("seen_at", ago(5)), **signs, **fields)


def site(*hosts, **fields):
    return Facts(START, hosts=hosts, every=EVERY, waiting_since=ago(86_400), **fields)


def ids(facts):
    return [problem.id for problem in problems(facts)]


def test_problems__a_site_that_works_has_none():
    assert problems(site(host())) == []


# -- silence


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        ([host(beat=100, tick=95)], ["beat-silent"]),
        ([host(worker=100, tick=100)], ["worker-silent"]),
        ([host(beat=100, worker=100, tick=100)], ["beat-silent", "worker-silent"]),
        ([host(tick=100)], ["worker-silent"]),  # both live, and nothing is worked off
        ([host("a", beat=100, worker=100, tick=100), host("b")], []),  # another host does it
        ([host("a", beat=5, worker=None, tick=None), host("b", beat=None, tick=5)], []),
        ([host(beat=100, worker=None, tick=100)], ["beat-silent"]),  # a worker that sends no heartbeats: cannot tell
        ([host(beat=None, worker=None, tick=None)], ["beat-silent", "worker-silent"]),
        ([], ["beat-silent", "worker-silent"]),
    ],
)
def test_silence__who_does_not_do_what_keeps_tokens_alive(hosts, found):
    assert ids(site(*hosts)) == found


@pytest.mark.parametrize(
    "changes",
    [
        {"paused": True},
        {"every": None},  # somebody else starts the tick, and when is not known
        {"waiting_since": None},  # there is nothing to renew
        {"hosts": (), "waiting_since": ago(40)},  # the first account was made a moment ago
    ],
)
def test_silence__is_not_judged_where_it_means_nothing(changes):
    assert ids(replace(site(host(beat=100, worker=100, tick=100)), **changes)) == []


@given(st.floats(0, 300), st.sampled_from([1.0, 5.0, 60.0]))
def test_silence__heartbeats_of_30_s_and_a_tick_are_no_silence_and_60_s_are(age, every):
    found = ids(replace(site(host(beat=age, worker=age, tick=age)), every=every))
    if age <= 30 + every:
        assert found == []
    elif age > 55 + every:
        assert found == ["beat-silent", "worker-silent"]


def test_silence__is_the_brokers_fault_where_it_is_down():
    assert ids(site(host(beat=100, worker=100, tick=100, problems={"broker": "OperationalError"}))) == [
        "broker-unreachable"
    ]


@pytest.mark.parametrize("tick", ["missing", "disabled"])
def test_tick_off__is_said_instead_of_silence(tick):
    assert ids(replace(site(host(beat=100, worker=100, tick=100)), tick=tick)) == ["tick-off"]


@pytest.mark.parametrize("state", [Database.READ_ONLY, Database.UNREACHABLE])
def test_database__hides_what_rows_of_before_would_tell(state):
    facts = replace(site(host(beat=999, worker=999, tick=999)), database=state)
    (found,) = problems(facts)
    assert (found.id, found.severity) == (f"database-{state}", Severity.CRITICAL)


# -- hosts


@pytest.mark.parametrize(
    ("subject", "cause"),
    [
        ("secrets", "secrets-unreadable"),
        ("EncryptionKeyError", "secrets-unreadable"),
        ("wechat", "wechat-unreachable"),
        ("cache", "cache-down"),
        ("clock", "clock-off"),
        ("clock-by-wechat", "clock-off"),
        ("broker", "broker-unreachable"),
        ("ConfigurationError", "host/ConfigurationError"),
    ],
)
def test_hosts__one_problem_for_a_cause_however_many_hosts_have_it(subject, cause):
    hosts = [host(name, problems={subject: "told"}) for name in "abcde"]
    (found,) = problems(site(*hosts))
    assert (found.id, found.count) == (cause, 5)
    assert "a, b, c, …" in found.text
    assert found.steps


def test_hosts__one_that_is_gone_has_no_problems():
    assert ids(site(host(), host("gone", seen_at=ago(601), problems={"secrets": "no"}))) == []


def test_hosts__the_same_cause_met_in_two_ways_is_one():
    (found,) = problems(site(host(problems={"EncryptionKeyError": "x", "secrets": "y"})))
    assert found.count == 1


def test_tick_slow__when_it_reaches_its_deadline():
    assert ids(site(host(tick_seconds=19.0))) == []
    assert ids(site(host(tick_seconds=20.0))) == ["tick-slow"]
    assert ids(site(host(), host("idle", tick=300, tick_seconds=20.0))) == []
    assert ids(site(host(tick_seconds=20.0, problems={"wechat": "hangs"}))) == ["wechat-unreachable"]


# -- accounts

WHITELIST = Failing("human", 40164, "203.0.113.9", 206, examples=("wxa", "wxb", "wxc"), first_end=ago(-1200))


def test_accounts__206_with_one_cause_are_one_problem():
    (found,) = problems(site(host(), failing=(WHITELIST,)))
    assert found.id == "whitelist/203.0.113.9"
    assert found.text == (
        "206 accounts (wxa, wxb, wxc, …): 40164, this server's address 203.0.113.9 is on none of their whitelists. "
        "The first token ends in 20 min."
    )
    assert found.steps[0].startswith("Add 203.0.113.9 to the IP whitelist")
    assert found.severity is Severity.PROBLEM


def test_accounts__two_addresses_are_two_causes_and_two_endpoints_are_one():
    other = replace(WHITELIST, egress_ip="203.0.113.10")
    assert len(ids(site(host(), failing=(WHITELIST, other)))) == 2
    split = replace(WHITELIST, count=4, on_stable=False)
    (found,) = problems(site(host(), failing=(WHITELIST, split)))
    assert found.count == 210


@pytest.mark.parametrize(
    ("dead", "severity", "text"),
    [
        (0, Severity.PROBLEM, "The first token ends in 20 min."),
        (6, Severity.CRITICAL, "6 have no usable token."),
        (206, Severity.CRITICAL, "None has a usable token."),
    ],
)
def test_accounts__say_how_long_one_has(dead, severity, text):
    (found,) = problems(site(host(), failing=(replace(WHITELIST, dead=dead),)))
    assert found.severity is severity
    assert found.text.endswith(text)


@pytest.mark.parametrize(
    ("failing", "cause", "anchor"),
    [
        (Failing("human", 40125, "", 1), "refused/40125", "appsecret"),
        (Failing("human", 50004, "", 1), "refused/50004", "refused"),
        (Failing("unknown", 99999, "", 1), "refused/99999", "refused"),
        (Failing("quota", 45009, "", 1), "quota-used/45009", "quota-used"),
        (Failing("quota", None, "", 1), "quota-used/own", "quota-used"),
        (Failing("human", 40164, "", 1), "whitelist/unknown", "whitelist"),
        (Failing("transient", None, "", 1, late=1), "no-answer", "no-answer"),
    ],
)
def test_accounts__causes(failing, cause, anchor):
    (found,) = problems(site(host(), failing=(failing,)))
    assert found.id == cause
    assert found.runbook == f"docs/operations.md#{anchor}"


def test_accounts__a_passing_failure_with_time_left_is_no_problem():
    assert ids(site(host(), failing=(Failing("transient", -1, "", 5),))) == []


def test_accounts__that_wechat_is_away_is_said_once():
    failing = (Failing("transient", None, "", 206, dead=10, late=200),)
    assert ids(site(host(problems={"wechat": "connection refused"}), failing=failing)) == ["wechat-unreachable"]


def test_accounts__stable_is_not_recommended_to_who_uses_it():
    for on_stable in (True, False):
        (found,) = problems(site(host(), failing=(Failing("quota", 45009, "", 1, on_stable=on_stable),)))
        assert ("stable endpoint" in found.steps[0]) is not on_stable
    stable, classic = (
        problems(site(host(), others={name: Group(1, ("wxa",))}))[0].steps[0] for name in ("stable", "classic")
    )
    assert "set the endpoint to stable" in classic
    assert "uses the stable endpoint already" in stable


def test_late__renewals_are_told_of_unless_silence_explains_them():
    late = {"overdue": Group(2, ("wxa", "wxb")), "oldest_due": ago(120)}
    assert ids(site(host(), **late)) == ["renewals-late"]
    assert ids(site(host(worker=100, tick=100), **late)) == ["worker-silent"]


# -- clients and the site


def test_clients_and_site__warn_in_time():
    facts = site(
        host(), complained=Group(1, ("wxa",)), quotas=(Quota("wxa", "classic", 1700, 2000),),
        keys=(KeyEnd("crm", ago(-86_400)),), is_copy=True,
    )  # fmt: skip
    found = problems(facts)
    assert [problem.id for problem in found] == [
        "complaints-refused", "quota-near", "client-key-ends", "database-copy",
    ]  # fmt: skip
    assert {problem.severity for problem in found} == {Severity.WARNING}
    assert "wxa classic 1700 of 2000" in found[1].text
    assert "(crm) ends in 1 d" in found[2].text


def test_clients__a_key_that_has_ended_under_its_user_is_more_than_a_warning():
    (found,) = problems(site(host(), keys=(KeyEnd("crm", ago(60)),)))
    assert found.severity is Severity.PROBLEM


def test_problems__a_name_cannot_end_a_line_or_fill_a_page():
    odd = "a\r\nBcc: all@example.com\u202e" + "🐟" * 200
    (found,) = problems(site(host(), keys=(KeyEnd(odd, ago(-86_400)),)))
    assert found.text.isprintable()
    assert len(found.text) < 150
    (found,) = problems(site(host("web\n2", problems={"wechat": "no\nway"})))
    assert found.text.isprintable()


def test_problems__worst_first():
    facts = site(host(problems={"secrets": "no"}), failing=(WHITELIST,), is_copy=True)
    assert [problem.severity for problem in problems(facts)] == list(Severity)
