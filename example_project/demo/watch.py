"""What happens while the demo runs: renewals as the refresh log has them, and reads, put to the test."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from django.db import DatabaseError, connections
from django.utils import timezone

from wechat_token import get_access_token
from wechat_token.exceptions import AccountError, WeChatTokenError
from wechat_token.models import RefreshLog
from wechat_token.sandbox import FakeWeChat

READ_EVERY: Final = 1.0  # seconds

Outcome = RefreshLog.Outcome


class Renewals:
    """Reads the refresh log on from where it was left, and counts."""

    def __init__(self) -> None:
        self.first: set[str] = set()
        self.tried: set[str] = set()
        self.renewed: Counter[str] = Counter()
        self.calls = 0
        self._seen = 0
        self._last: dict[str, dt.datetime] = {}

    def news(self) -> list[str]:
        """One line for each refresh since the last call. No line has a token in it."""
        lines = []
        for row in RefreshLog.objects.filter(pk__gt=self._seen).order_by("pk"):
            self._seen = row.pk
            lines.append(self._line(row))
        return lines

    def _line(self, row: RefreshLog) -> str:
        appid = row.ref
        self.calls += row.outcome != Outcome.LIMITED
        self.tried.add(appid)
        if row.outcome == Outcome.RENEWED:
            what = self._renewed(appid, row)
        elif row.outcome == Outcome.UNCHANGED:
            what = f"version {row.version} again: WeChat gives no new one yet"
        else:
            what = f"{row.get_outcome_display()}: {row.error}"
        at = timezone.localtime(row.at)
        return f"{at:%H:%M:%S}  {appid}  {row.endpoint:<8} {what}  [{row.reason}, {row.duration_ms} ms]"

    def _renewed(self, appid: str, row: RefreshLog) -> str:
        before, self._last[appid] = self._last.get(appid), row.at
        if before is None:
            self.first.add(appid)
            return f"first token, version {row.version}"
        self.renewed[appid] += 1
        return f"renewed after {(row.at - before).total_seconds():.0f} s, version {row.version}"


class Reader:
    """A thread that reads every account's token each second, as a web process would.

    With ``fake``, each token is put to it at once: does WeChat accept what was served?
    """

    def __init__(self, appids: Sequence[str], fake: FakeWeChat | None) -> None:
        self.reads = 0
        self.dead = 0
        self.missing = 0
        self._appids = appids
        self._fake = fake
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-reader", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the thread. A read that waits for WeChat is given the time that a read may take."""
        self._stop.set()
        self._thread.join(20)

    def _run(self) -> None:
        try:
            while not self._stop.wait(READ_EVERY):
                for appid in self._appids:
                    self._read(appid)
        finally:
            connections.close_all()

    def _read(self, appid: str) -> None:
        asked_at = self._fake.now() if self._fake is not None else 0.0
        try:
            token = get_access_token(appid)
        except AccountError:  # deleted or switched off in the admin: no token is right
            return
        except (WeChatTokenError, DatabaseError):
            self.missing += 1
            return
        self.reads += 1
        # A token whose life ends between question and answer was good when it was asked for.
        if self._fake is not None and not (self._fake.is_valid(token) or self._fake.is_valid(token, asked_at)):
            self.dead += 1
