"""Callers that stand in the engine's way, as the code of a site does without knowing it.

``python -m tests.live.callers transactions APPIDS THREADS``: callers inside transactions of their own, some of which
hold the rows that a refresh needs or see an old snapshot; half of them roll back.
``requests APPIDS THREADS HANGING``: as many requests at a time as there are threads, each in a transaction
(``ATOMIC_REQUESTS``), beside callers of an account whose endpoint hangs. Begins anew every so often, so that the
threads meet an empty memory together.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import django
from django.db import DatabaseError, InterfaceError, close_old_connections, connection, connections, transaction

from .asking import AT_ONCE, OWN_LOCK, WAIT, Asker, begin_anew
from .site import SECRET

if TYPE_CHECKING:
    from wechat_token.models import Account

GENERATION: Final = 25.0  # seconds until the process of requests begins anew


class RolledBack(Exception):
    pass


# -- in transactions -------------------------------------------------------------------------------


class Caller:
    """One thread of them. ``appids``: accounts that others read as well, whose tokens are good."""

    def __init__(self, asker: Asker, appids: list[str]) -> None:
        self._asker = asker
        self._appids = appids
        self._turns: list[tuple[Callable[[], None], int]] = [
            (self._with_a_good_token, 6), (self._without_a_token, 4), (self._with_a_dead_token, 2), (self._unborn, 1),
        ]  # fmt: skip

    def run(self) -> None:
        turns, weights = zip(*self._turns, strict=True)
        while True:
            # What faults do to this caller's own statements is no concern here.
            with suppress(RolledBack, DatabaseError, InterfaceError):
                random.choices(turns, weights)[0]()
            if random.random() < 0.2:
                connections.close_all()
            else:
                close_old_connections()
            time.sleep(random.uniform(0.1, 0.5))

    def _with_a_good_token(self) -> None:
        from wechat_token import get_access_token
        from wechat_token.models import Account

        appid = random.choice(self._appids)
        with own_transaction():
            account = Account.objects.get(appid=appid)
            holds = random.choice(["", "", "account", "saved", "token", "failed"])
            take(holds, account)
            time.sleep(random.uniform(0, 1.5))  # the snapshot grows old
            self._asker.ask(appid, partial(get_access_token, appid), kind="good", holds=holds, limit=AT_ONCE)
            time.sleep(random.uniform(0, 0.5))

    def _without_a_token(self) -> None:
        from wechat_token import get_access_token

        holds = random.choice(["", "account", "saved", "token", "bare"])
        with account_of_its_own(with_row=holds != "bare") as account:
            appid = account.appid
            with suppress(RolledBack), own_transaction():
                take(holds, account)
                self._asker.ask(
                    appid, partial(get_access_token, appid), kind="cold", holds=seen_as(holds), limit=limit_of(holds)
                )
                time.sleep(random.uniform(0, 0.5))
            self._asker.ask(appid, partial(get_access_token, appid), kind="cold")  # healed by the end of the lock

    def _with_a_dead_token(self) -> None:
        from wechat_token import get_access_token, refresh_access_token

        holds = random.choice(["", "account", "saved", "token"])
        with account_of_its_own() as account:
            appid = account.appid
            stale = self._asker.ask(appid, partial(get_access_token, appid), kind="cold")
            if not stale:
                return
            tell_wechat("kill_token", appid=appid)
            complain = partial(refresh_access_token, appid, stale_token=stale)
            with suppress(RolledBack), own_transaction():
                take(holds, account)
                self._asker.ask(appid, complain, kind="complaint", holds=seen_as(holds), limit=limit_of(holds))
            self._asker.ask(appid, complain, kind="complaint")

    def _unborn(self) -> None:
        """The account itself is not committed yet; nobody else can see it."""
        from wechat_token import get_access_token
        from wechat_token.models import Account

        appid = new_at_wechat()
        commits = False
        try:
            with own_transaction(commits := random.random() < 0.5):
                Account.objects.create(appid=appid, secret=SECRET, endpoint=some_endpoint())
                self._asker.ask(appid, partial(get_access_token, appid), kind="cold", holds="unborn")
            if commits:
                self._asker.ask(appid, partial(get_access_token, appid), kind="cold")
        finally:
            Account.objects.filter(appid=appid).delete()


@contextmanager
def own_transaction(commits: bool | None = None) -> Iterator[None]:
    """Rolls back half of the time, by raising :class:`RolledBack`. On PostgreSQL sometimes with one old snapshot."""
    with transaction.atomic():
        if connection.vendor == "postgresql" and random.random() < 0.3:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield
        if not (random.random() < 0.5 if commits is None else commits):
            raise RolledBack


def take(what: str, account: Account) -> None:
    """Do in the caller's transaction what sites do there."""
    from wechat_token.models import Account, Token

    match what:
        case "account" | "bare":
            Account.objects.select_for_update().get(pk=account.pk)
        case "saved":
            account.name = f"called {time.time():.3f}"
            account.save()
        case "token":
            Token.objects.select_for_update().get(account_id=account.pk)
        case "failed":  # on PostgreSQL the transaction is of no use from here on, and Django does not know
            with suppress(DatabaseError), connection.cursor() as cursor:
                cursor.execute("SELECT nothing FROM nowhere")


def limit_of(holds: str) -> float:
    """``bare`` holds the account, which the row that a refresh needs has to refer to."""
    return OWN_LOCK if holds in ("token", "bare") else WAIT


def seen_as(holds: str) -> str:
    """MariaDB under ``REPEATABLE READ`` locks the gaps beside a row as well, and with them what lies next to it."""
    beside = connection.vendor == "mysql" and getattr(connection, "isolation_level", "") == "repeatable read"
    return holds if holds in ("token", "bare") or not beside else "beside"


@contextmanager
def account_of_its_own(*, with_row: bool = True) -> Iterator[Account]:
    """An account that nobody else reads or renews, without a token. Goes away again."""
    from wechat_token.models import Account, Token

    account = Account(appid=new_at_wechat(), secret=SECRET, endpoint=some_endpoint())
    Account.objects.bulk_create([account])  # no signal: nobody fetches before this caller does
    try:
        if with_row:
            Token.objects.bulk_create([Token(account=account)])
        yield account
    finally:
        Account.objects.filter(pk=account.pk).delete()


def some_endpoint() -> str:
    return random.choice(["stable", "classic"])


def new_at_wechat() -> str:
    appid = f"wx{uuid.uuid4().hex[:16]}"
    tell_wechat("add_account", appid=appid, secret=SECRET)
    return appid


def tell_wechat(action: str, **what: Any) -> None:
    url = f"{os.environ['WECHAT_API_BASE_URL']}/_sandbox/{action}"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(what).encode()), timeout=10).close()


# -- in requests -----------------------------------------------------------------------------------


def requests(asker: Asker, appids: list[str], together: threading.Barrier) -> None:
    from wechat_token import get_access_token
    from wechat_token.models import Account

    while True:
        with suppress(threading.BrokenBarrierError):
            together.wait(timeout=30)
        appid = random.choice(appids)
        try:
            with transaction.atomic():
                Account.objects.filter(appid=appid).exists()
                asker.ask(appid, partial(get_access_token, appid), kind="good", holds="request", limit=AT_ONCE)
        except (DatabaseError, InterfaceError):
            pass  # no connection, or one that a fault took away
        finally:
            connections.close_all()
        time.sleep(random.uniform(0.05, 0.3))


def ask_in_vain(asker: Asker, appid: str) -> None:
    from wechat_token import get_access_token

    while True:
        asker.ask(appid, partial(get_access_token, appid), kind="hanging")
        connections.close_all()
        time.sleep(0.5)


# -- the process -----------------------------------------------------------------------------------


def fall(failure: threading.ExceptHookArgs) -> None:
    """A mistake of this file must not look like a quiet caller."""
    sys.excepthook(failure.exc_type, failure.exc_value or failure.exc_type(), failure.exc_traceback)
    os._exit(1)


def main() -> None:
    what, listed, threads, *hanging = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an orderly exit, with all that it runs
    django.setup()
    asker, appids = Asker(), listed.split(",")
    work: list[Callable[[], None]]
    if what == "transactions":
        work = [Caller(asker, appids).run for _ in range(int(threads))]
    else:
        together = threading.Barrier(int(threads))
        work = [partial(requests, asker, appids, together) for _ in range(int(threads))]
        work += [partial(ask_in_vain, asker, appid) for appid in hanging for _ in range(2)]
    threading.excepthook = fall
    for job in work:
        threading.Thread(target=job, daemon=True).start()
    if what == "requests":
        time.sleep(GENERATION)
        begin_anew()
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
