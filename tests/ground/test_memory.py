"""What a process keeps of tokens it has handed out."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

from .site import SECRET, Ground, on
from .stage import ask

KEPT = 10
ACCOUNTS = 170


def copy_accounts(appid: str, copies: int) -> list[str]:
    """Scene: many accounts with a good token each, made in the database; the values are those of one account."""
    from django.db import connection

    from wechat_token.models import Account, Token

    # Written for no row in particular, they open in all of them (S8).
    Account.objects.filter(appid=appid).update(secret=SECRET)
    Token.objects.filter(account__appid=appid).update(value=ask(appid)["token"])
    number = "'wxmany' || n"
    accounts, tokens = Account._meta.db_table, Token._meta.db_table
    account_id = f"(SELECT id FROM {accounts} WHERE appid = {number})"
    numbers = f"(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {copies}) SELECT n FROM s)"
    work = [
        (Account, {"appid": number, "ref": number}, f"SELECT * FROM {accounts} WHERE appid = %s"),
        (
            Token, {"account_id": account_id, "issued_for": number},
            f"SELECT t.* FROM {tokens} t JOIN {accounts} a ON t.account_id = a.id WHERE a.appid = %s",
        ),
    ]  # fmt: skip
    with connection.cursor() as cursor:
        for model, unlike, source in work:
            names = [field.column for field in model._meta.local_concrete_fields if not field.primary_key]
            values = ", ".join(unlike.get(name, f"a.{name}") for name in names)
            cursor.execute(
                f"INSERT INTO {model._meta.db_table} ({', '.join(names)}) SELECT {values} FROM ({source}) a, {numbers}",
                [appid],
            )
    return [f"wxmany{n}" for n in range(1, copies + 1)]


def read_all(appids: list[str]) -> dict[str, Any]:
    """Scene: how much memory is taken, and by how much it grows, while more and more accounts are read."""
    for appid in appids[:30]:  # caches of Django's and ours fill up
        ask(appid)
    tracemalloc.start()
    answers = [ask(appid) for appid in appids[30:]]
    errors = [answer for answer in answers if "token" not in answer]
    del answers
    gc.collect()
    grown = sum(
        difference.size
        for difference in tracemalloc.take_snapshot()
        .filter_traces([tracemalloc.Filter(True, "*/wechat_token/*")])
        .statistics("filename")
    )
    tracemalloc.stop()
    return {"bytes": grown, "errors": errors[:3], "again": ask(appids[0])}


@on("sqlite")
def test_memory__holds_so_many_entries_and_no_more(ground: Ground) -> None:
    """A site of many accounts in a process that lives for weeks; each entry takes more than a kilobyte."""
    ground.clear()
    appid = ground.account(token=True)
    appids = ground.play(copy_accounts, appid, ACCOUNTS)
    told = ground.play(read_all, appids, wechat={"MEMORY_ENTRIES": KEPT}, seconds=25)
    ground.clear()
    assert told["errors"] == []
    assert told["again"]["token"]
    assert told["bytes"] < 3_000 * KEPT, told
