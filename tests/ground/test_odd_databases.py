"""Databases that are set up differently, or change under a refresh that is under way."""

from __future__ import annotations

import contextlib
import io
import time
from typing import Any

from .site import SLACK, WAIT, Ground, on
from .stage import aside, ask, pause, stored, wait_until, weixin


def without_autocommit(appid: str) -> dict[str, Any]:
    """Scene: ``AUTOCOMMIT: False``, and a caller that never commits."""
    from django.db import connection

    from wechat_token.models import Account

    assert Account.objects.exists()
    answer = ask(appid)
    connection.rollback()
    again = ask(appid)
    connection.close()
    return {"answer": answer, "again": again}


@on("postgres", "mariadb", "sqlite")
def test_autocommit_off__the_token_is_stored_whatever_the_caller_does(ground: Ground) -> None:
    appid = ground.account("classic")
    told = ground.play(without_autocommit, appid, databases={"default": {"AUTOCOMMIT": False}})
    token = told["answer"].get("token")
    assert token, told
    assert told["again"]["token"] == token
    assert ground.stored(appid) == token, "issued and never stored"
    assert ground.play(ask, appid)["token"] == token
    assert ground.fake.calls_to(appid, "classic") == 1


# -- read-only between claim and store -------------------------------------------------------------


def fetch_slowly(appid: str) -> dict[str, Any]:
    """Scene: ask, and stay for a while, as a process that serves requests does."""
    said: list[dict[str, Any]] = []
    caller = aside(lambda: said.append(ask(appid)))
    assert wait_until(lambda: weixin("calls_to", appid=appid, endpoint="classic")) is not None
    pause("WeChat is asked")
    caller.join()
    second = ask(appid)
    pause("answered")
    healed = wait_until(lambda: stored_if_it_answers(appid))
    return {"first": said[0], "second": second, "healed": healed}


def stored_if_it_answers(appid: str) -> str:
    from django.db import DatabaseError, connection

    try:
        return stored(appid)
    except DatabaseError:  # the database was changed, and this connection ended
        connection.close()
        return ""


@on("postgres", "mariadb", "sqlite")
def test_read_only_between_claim_and_store__nothing_is_lost(ground: Ground) -> None:
    """A failover: WeChat has issued the token, and for a second nobody can write it down."""
    appid = ground.account("classic")
    ground.slow(appid, 0.5)
    play = ground.start(fetch_slowly, appid, seconds=14)
    play.paused()
    with ground.site.database.read_only():
        play.go_on()
        play.paused()
        time.sleep(0.5)
    play.go_on()
    told = play.result()
    token = told["first"].get("token")
    assert token, told
    assert told["first"]["seconds"] < WAIT + SLACK
    assert told["second"].get("token") == token, "this process has it, though it is not stored yet"
    assert told["healed"] is not None, "it was never stored"
    assert ground.stored(appid) == token
    assert ground.fake.calls_to(appid, "classic") == 1


# -- no database called "default" ------------------------------------------------------------------


class TokensRouter:
    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "tokens"

    db_for_write = db_for_read


NO_DEFAULT = {
    "databases": {"tokens": {"CONN_MAX_AGE": 0}, "default": {}},
    "settings": {"DATABASE_ROUTERS": ["tests.ground.test_odd_databases.TokensRouter"]},
}


def live_without_default(appid: str, secret: str) -> dict[str, Any]:
    """Scene: what a site does with an account, from the form to the status."""
    from django.core.management import call_command

    from wechat_token.models import Account
    from wechat_token.tasks import refresh_due_tokens

    account = Account(appid=appid, secret=secret, endpoint="stable", is_default=True)
    account.save()
    account.name = "renamed"
    account.save()
    told = {"named": ask(appid), "unnamed": ask(), "tick": refresh_due_tokens()}
    printed = io.StringIO()
    with contextlib.suppress(SystemExit):
        call_command("wechat_token", "status", stdout=printed)
    told["status"] = printed.getvalue()
    account.delete()
    return told


@on("postgres", "mariadb", "sqlite")
def test_no_default_database__an_account_lives_as_elsewhere(ground: Ground) -> None:
    ground.clear()
    appid = "wxnodefaultdb00000"
    ground.fake.add_account(appid, "live-without-default")
    told = ground.play(live_without_default, appid, "live-without-default", **NO_DEFAULT)
    token = told["named"].get("token")
    assert token, told
    assert told["unnamed"].get("token") == token
    assert appid in told["status"]
    assert ground.fake.is_valid(token)


@on("postgres", "mariadb", "sqlite")
def test_ref_in_other_letters__is_nobodys(ground: Ground) -> None:
    """R27: MySQL's usual collations find ``wx…`` for ``WX…``; entries, counts and locks would go by both."""
    appid = ground.account(token=True)
    assert "AccountNotFound" in ground.play(ask, appid.upper())["error"]
    assert ground.play(ask, appid)["token"] == ground.stored(appid)
