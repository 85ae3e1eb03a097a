"""The judge of ``python -m tests.live chaos``: what is a hang, what an error may rightly say, who was refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.asking import AT_ONCE, OWN_LOCK, SLACK, WAIT
from tests.live.upstream import Upstream
from tests.live.verdict import Complaint, Pause, Read, Trouble, judge, load
from wechat_token.sandbox import FakeWeChat, ManualClock

ROOT = Path(__file__).parents[1]
APPID = "wx00000000000judge"
LOCKED = "TokenUnavailable: the row is locked"
HANGS = "RuntimeError: HTTP 503: token_unavailable"


@pytest.fixture
def fake() -> FakeWeChat:
    fake = FakeWeChat(ManualClock(), seed=1)
    fake.add_account(APPID, "secret")
    return fake


def test_judge__waiting_past_the_callers_own_limit_is_a_hang(fake: FakeWeChat) -> None:
    token, now = fake.fetch_stable(APPID, "secret").token, fake.now()
    late = OWN_LOCK + SLACK + 0.1
    patient = Read("reader-1.1", APPID, now, now + late, token)
    locked = Read("transactions-1.1", APPID, now, now + late, token, limit=OWN_LOCK, kind="cold", holds="token")
    assert judge([patient], fake, [], seed=1).is_kept
    assert judge([locked], fake, [], seed=1).hangs == [locked]
    assert judge([locked], fake, [], seed=1, frozen=[Pause("transactions-1", now, now + 1)]).is_kept
    assert judge([locked], fake, [], seed=1, troubles=[Trouble(now + 1, now + 2)]).is_kept


def test_judge__no_outage_excuses_a_wait_without_end(fake: FakeWeChat) -> None:
    token, now = fake.fetch_stable(APPID, "secret").token, fake.now()
    read = Read("requests.1", APPID, now, now + WAIT + SLACK + 0.1, token, limit=AT_ONCE)
    assert judge([read], fake, [], seed=1, troubles=[Trouble(now, now + 20)]).hangs == [read]


@pytest.mark.parametrize(
    ("kind", "holds", "error", "is_right"),
    [
        ("cold", "token", LOCKED, True),
        ("cold", "bare", LOCKED, True),
        ("cold", "account", LOCKED, False),
        ("cold", "saved", LOCKED, False),
        ("good", "token", LOCKED, True),
        ("cold", "beside", LOCKED, True),
        ("cold", "beside", "TokenUnavailable: …", False),
        ("cold", "token", "OperationalError: lock timeout", False),
        ("cold", "unborn", "AccountNotFound: …", True),
        ("cold", "", "AccountNotFound: …", False),
        ("hanging", "", HANGS, True),
        ("", "", HANGS, False),
        ("hanging", "", "RuntimeError: HTTP 500: internal_error", False),
    ],
)
def test_judge__an_error_may_be_the_right_answer(
    fake: FakeWeChat, kind: str, holds: str, error: str, is_right: bool
) -> None:
    read = Read("someone.1", APPID, fake.now(), fake.now() + 1, error=error, kind=kind, holds=holds)
    assert judge([read], fake, [], seed=1).is_kept is is_right


def test_judge__a_complaint_that_wechat_does_not_judge_changes_nothing(fake: FakeWeChat) -> None:
    """R29: while WeChat is away nobody can tell that the token is dead."""
    token, now = fake.fetch_stable(APPID, "secret").token, fake.now()
    fake.kill_token(APPID)
    read = Read("transactions-1.1", APPID, now + 1, now + 2, token, kind="complaint")
    assert judge([read], fake, [], seed=1).dead == [read]
    assert judge([read], fake, [], seed=1, troubles=[Trouble(now, now + 1.5)]).is_kept


def test_judge__whoever_stood_still_may_find_its_time_up(fake: FakeWeChat) -> None:
    now = fake.now()
    late = Read("transactions-1.1", APPID, now, now + WAIT + 0.1, error="TokenUnavailable: …", kind="cold")
    soon = Read("transactions-1.1", APPID, now, now + 1, error="TokenUnavailable: …", kind="cold")
    verdict = judge([soon, late], fake, [], seed=1, frozen=[Pause("transactions-1", now, now + 7)])
    assert verdict.errors == [soon]


def test_judge__without_a_token_an_outage_is_an_excuse(fake: FakeWeChat) -> None:
    now = fake.now()
    cold = Read("transactions-1.1", APPID, now, now + 1, error=LOCKED, kind="cold")
    ordinary = Read("reader-1.1", APPID, now, now + 1, error=LOCKED)
    verdict = judge([cold, ordinary], fake, [], seed=1, troubles=[Trouble(now, now + 1)])
    assert verdict.errors == [ordinary]


@pytest.mark.parametrize(
    ("seconds", "longest", "answers", "is_kept"),
    [
        (3, 1, ["200 the dead token", "200"], True),
        (3, 1, ["429 refresh_rate_limited", "200"], False),
        (29, 1, ["503 token_unavailable", "200"], True),
        (31, 1, ["503 token_unavailable", "200"], False),
        (35, 1, ["ConnectionRefusedError", "200"], False),
        (20, WAIT + SLACK + 1, ["200"], False),
    ],
)
def test_judge__honest_complaints_are_answered(
    fake: FakeWeChat, seconds: float, longest: float, answers: list[str], is_kept: bool
) -> None:
    token, now = fake.fetch_stable(APPID, "secret").token, fake.now()
    complaint = Complaint(APPID, now, now + seconds, longest, answers)
    read = Read("reader-1.1", APPID, now, now, token)
    assert judge([read], fake, [], seed=1, complaints=[complaint]).is_kept is is_kept


def test_judge__overlapping_faults_of_the_time_are_allowed_for_once(fake: FakeWeChat) -> None:
    token, now = fake.fetch_stable(APPID, "secret").token, fake.now()
    complaint = Complaint(APPID, now, now + 35, 1, ["200"])
    read = Read("reader-1.1", APPID, now, now, token)

    def unanswered(*spans: tuple[float, float]) -> bool:
        troubles = [Trouble(now + begin, now + end) for begin, end in spans]
        return bool(judge([read], fake, [], seed=1, complaints=[complaint], troubles=troubles).unanswered)

    assert unanswered((1, 4), (2, 5))
    assert not unanswered((1, 4), (3, 5), (33, 40))


ASKS_FOR_EVER = """
import os, time
from tests.live import asking
asking.WAIT = asking.SLACK = asking.GIVE_UP = 0.2
asker = asking.Asker()
if os.environ.get("SECOND_LIFE"):
    asker.ask("wx1", lambda: "token")
else:
    os.environ["SECOND_LIFE"] = "1"
    asker.ask("wx1", lambda: time.sleep(60) or "", limit=0.2, kind="cold")
"""


def test_asker__writes_a_hang_down_and_begins_anew(tmp_path: Path) -> None:
    script, log = tmp_path / "asks.py", tmp_path / "someone.1.log"
    script.write_text(ASKS_FOR_EVER)
    with log.open("w") as out:
        subprocess.run(
            [sys.executable, "-c", f"exec(open({str(script)!r}).read())"], stdout=out, timeout=20, check=True, cwd=ROOT
        )
    hang, read = load([log])
    assert (hang.error, hang.kind, hang.limit) == ("Hang: no answer", "cold", 0.2)
    assert read.token == "token"


def test_upstream__hangs_for_its_accounts_alone() -> None:
    fake = Upstream(ManualClock(), seed=1)
    fake.add_account(APPID, "secret")
    fake.hanging = frozenset(["wx0000000000other1"])
    query = {"grant_type": "client_credential", "appid": APPID, "secret": "secret"}
    assert fake.handle("GET", "/cgi-bin/token", query).wire is None
    fake.hanging = frozenset([APPID])
    body = json.dumps(query).encode()
    for reply in (fake.handle("GET", "/cgi-bin/token", query), fake.handle("POST", "/cgi-bin/stable_token", {}, body)):
        assert reply.wire is not None
        assert reply.wire.action == "hang"
    assert fake.hung == 2


def test_judge__a_server_just_started_may_have_nothing_to_go_on_with(fake: FakeWeChat) -> None:
    now = fake.now()
    read = Read("http.1", APPID, now, now + 1, error="RuntimeError: HTTP 503: service_unavailable")
    assert judge([read], fake, [], seed=1, troubles=[Trouble(now, now + 1)]).errors == [read]
    assert judge([read], fake, [], seed=1, troubles=[Trouble(now, now + 1, frozenset(["web"]))]).is_kept


def test_judge__what_nobody_reads_needs_no_repair_in_time() -> None:
    clock = ManualClock()
    fake = FakeWeChat(clock, seed=1)
    fake.add_account(APPID, "secret")
    fake.fetch_classic(APPID, "secret")
    clock.advance(75)
    token, now = fake.fetch_classic(APPID, "secret").token, fake.now()
    own = Read("transactions-1.1", APPID, now, now, token, kind="cold")
    assert judge([own], fake, [], seed=1).is_kept
    assert not judge([own, Read("reader-1.1", APPID, now, now, token)], fake, [], seed=1).is_kept
