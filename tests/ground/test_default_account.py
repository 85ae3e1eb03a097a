"""``get_access_token()`` without a name, as a site with one account asks; and asking for one that does not exist."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

from tests.live.link import Link

from .site import AT_ONCE, SLACK, WAIT, Ground, on
from .stage import aside, ask, together, wait_until

PORTS = {"postgres": 5432, "mariadb": 3306}


def through_link() -> Link:
    """A way to the database that can be frozen; every connection opened from now on takes it."""
    from django.conf import settings

    database = settings.DATABASES["default"]
    return Link(database["HOST"] or "127.0.0.1", int(database["PORT"] or PORTS[database["ENGINE"].rsplit(".")[-1]]))


def frozen(appid: str | None, threads: int) -> dict[str, Any]:
    """Scene: threads that have had the token for a while go on reading while the database says nothing."""
    from django.conf import settings

    with through_link() as link:
        settings.DATABASES["default"].update(HOST="127.0.0.1", PORT=str(link.port))
        token = ask(appid)["token"]
        began = time.monotonic()

        def read() -> list[dict[str, Any]]:
            answers = []
            while time.monotonic() < began + 2.0 + WAIT + 1.0:
                asked = time.monotonic()
                answers.append(ask(appid) | {"asked": asked})
                time.sleep(0.02)
            return answers

        def freeze() -> None:
            time.sleep(2.0)
            link.hang()

        freezer = aside(freeze)
        threads_answers = together(threads, read, patience=2 * WAIT + 3)
        freezer.join()
        link.up()
        after = wait_until(lambda: ask(appid).get("token") == token)
    during = [
        [answer for answer in answers or () if answer["asked"] + answer["seconds"] > began + 2.0]
        for answers in threads_answers
    ]
    return {
        "token": token, "after": after, "hung": threads_answers.count(None),
        "tokens": sorted({answer.get("token") or answer["text"] for answers in during for answer in answers}),
        "longest": sorted(max((answer["seconds"] for answer in answers), default=99.0) for answers in during),
    }  # fmt: skip


@on("postgres", "mariadb")
def test_frozen_database__threads_that_name_no_account_do_not_wait(ground: Ground) -> None:
    """As where the account is named: one thread may ask the database, and not longer than its limit."""
    ground.clear()
    ground.account(token=True, is_default=True)
    ground.account(token=True)
    told = ground.play(frozen, None, 8, seconds=16)
    assert told["hung"] == 0, told
    assert told["tokens"] == [told["token"]], told
    *others, one = told["longest"]
    assert max(others) < AT_ONCE, told
    assert one < WAIT + SLACK, told
    assert told["after"] is not None


@on("postgres", "mariadb")
def test_frozen_database__threads_that_name_the_account_do_not_wait(ground: Ground) -> None:
    appid = ground.account(token=True)
    told = ground.play(frozen, appid, 8, seconds=16)
    assert told["hung"] == 0, told
    assert told["tokens"] == [told["token"]], told
    *others, one = told["longest"]
    assert max(others) < AT_ONCE, told
    assert one < WAIT + SLACK, told


def frozen_when_cold(appid: str) -> dict[str, Any]:
    """Scene: the database accepts connections and never answers, and this process knows nothing yet."""
    from django.conf import settings

    with through_link() as link:
        settings.DATABASES["default"].update(HOST="127.0.0.1", PORT=str(link.port))
        settings.DATABASES["default"]["OPTIONS"] = {}
        link.hang()
        answers = together(3, lambda: ask(appid), patience=3 * WAIT)
        link.up()
        began = time.monotonic()
        healed = wait_until(lambda: "token" in ask(appid), 8)
        return {"answers": answers, "healed": healed, "took": time.monotonic() - began}


@on("postgres", "mariadb")
def test_frozen_database__a_cold_process_says_so_in_time(ground: Ground) -> None:
    appid = ground.account(token=True)
    told = ground.play(frozen_when_cold, appid, seconds=20)
    assert all(told["answers"]), "some hang"
    assert all("TokenUnavailable" in answer["error"] for answer in told["answers"]), told
    assert max(answer["seconds"] for answer in told["answers"]) < WAIT + SLACK, told
    assert told["healed"] is not None, "what hung did not come back"


# -- what a read costs -----------------------------------------------------------------------------


class Statements:
    """What this process asks its database, on every connection opened from now on."""

    def __init__(self) -> None:
        from django.db.backends.signals import connection_created

        self.seen: list[tuple[str, Any]] = []
        connection_created.connect(self._opened)

    def _opened(self, connection: Any, **kwargs: Any) -> None:
        connection.execute_wrappers.append(self._watch)

    def _watch(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith(("SELECT", "UPDATE", "INSERT", "DELETE")) and "wechat_token" in sql:
            self.seen.append((sql, params))
        return result


def plans(appid: str, copies: int) -> list[str]:
    """Scene: how the database finds the default account among very many, in a transaction that is rolled back."""
    from django.db import connection, transaction

    statements = Statements()
    assert "token" in ask()
    about_accounts = [
        (sql, params) for sql, params in statements.seen
        if sql.startswith("SELECT") and "wechat_token_account" in sql and appid not in (params or ())
    ]  # fmt: skip
    assert about_accounts, statements.seen
    with transaction.atomic():
        multiply(copies)
        found = []
        for sql, params in about_accounts:
            with connection.cursor() as cursor:
                explain = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN (ANALYZE, TIMING OFF) "
                cursor.execute(explain + sql, params)
                found.append("\n".join(" ".join(str(part) for part in row) for row in cursor.fetchall()))
        transaction.set_rollback(True)
    return found


def multiply(copies: int) -> None:
    """So many more accounts, alike but for what names them, and not the default."""
    from django.db import connection

    from wechat_token.models import Account

    table = Account._meta.db_table
    names = [field.column for field in Account._meta.local_concrete_fields if not field.primary_key]
    number = {"postgresql": "'wxcopy' || n", "sqlite": "'wxcopy' || n"}[connection.vendor]
    unlike = {"appid": number, "ref": number, "is_default": "false"}
    values = [unlike.get(name, f"a.{name}") for name in names]
    numbers = {
        "postgresql": f"generate_series(1, {copies}) AS n",
        "sqlite": f"(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {copies}) "
        "SELECT n FROM s)",
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} "
            f"FROM (SELECT * FROM {table} ORDER BY is_default LIMIT 1) a, {numbers}"
        )
        cursor.execute(f"ANALYZE {table}" if connection.vendor == "postgresql" else "ANALYZE")


@on("postgres", "sqlite")
def test_default_account__is_found_by_an_index(ground: Ground) -> None:
    """Each process asks every second: among 50,000 accounts nothing may be read that is not the answer."""
    ground.clear()
    appid = ground.account(token=True, is_default=True)
    ground.account()
    for plan in ground.play(plans, appid, 50_000 if ground.vendor == "postgres" else 500):
        assert "Seq Scan on wechat_token_account" not in plan, plan
        assert "TEMP B-TREE" not in plan, plan
        assert "index" in plan.lower(), plan
        assert max([int(rows) for rows in re.findall(r"actual rows=(\d+)", plan)], default=0) < 10, plan


def unknown(reads: int) -> dict[str, Any]:
    """Scene: somebody asks again and again for an account that is not there."""
    ask("wxnosuchaccount000")
    statements = Statements()
    from django.db import connections

    connections.close_all()
    answers = [ask("wxnosuchaccount000") for _ in range(reads)]
    return {"answers": answers, "statements": [sql for sql, _ in statements.seen]}


@on("postgres", "mariadb", "sqlite")
def test_unknown_account__costs_a_query_a_read_at_most(ground: Ground) -> None:
    """A typing error in a busy client is no load on the database."""
    ground.account()
    told = ground.play(unknown, 20)
    assert all("AccountNotFound" in answer["error"] for answer in told["answers"])
    assert len(told["statements"]) <= 20, json.dumps(told["statements"][:3])
