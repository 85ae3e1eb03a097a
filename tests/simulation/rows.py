"""The witness's own picture of the token rows, read past the package straight from the tables."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

from django.db import connection

_COLUMNS = (
    "id", "version", "expires_at", "rejected_version", "due_at", "lease_owner", "lease_until", "revision",
    "unanswered_since", "failures", "error_class", "issued_for", "edition", "complaints", "kind", "asked_at",
)  # fmt: skip
_TIMES = frozenset({"expires_at", "due_at", "lease_until", "unanswered_since", "asked_at"})
_SELECT = (
    f"SELECT {', '.join(f't.{name}' for name in _COLUMNS)}, a.appid, a.is_active, a.endpoint, a.ref, a.edition "
    "FROM wechat_token_token t JOIN wechat_token_account a ON a.id = t.account_id"
)


@dataclass(slots=True)
class Row:
    """Named as the fields of :class:`Token`, so that the pure rules of ``schedule`` can be asked about it."""

    id: int
    version: int
    expires_at: dt.datetime | None
    rejected_version: int
    due_at: dt.datetime | None
    lease_owner: str
    lease_until: dt.datetime | None
    revision: int
    unanswered_since: dt.datetime | None
    failures: int
    error_class: str
    issued_for: str
    edition: int
    complaints: dict[str, list[float]]
    kind: str
    asked_at: dt.datetime | None
    appid: str
    is_active: bool
    endpoint: str
    ref: str
    account_edition: int

    @property
    def account(self) -> Row:
        return self

    @property
    def is_outdated(self) -> bool:
        return self.edition != self.account_edition


def read_row(token_id: int) -> Row | None:
    found = _query(f"{_SELECT} WHERE t.id = ?", (token_id,))
    return found[0] if found else None


def read_rows() -> list[Row]:
    return _query(_SELECT, ())


def _query(sql: str, parameters: tuple[int, ...]) -> list[Row]:
    connection.ensure_connection()
    raw: Any = connection.connection  # beside Django, so that no wrapper sees it
    names = (*_COLUMNS, "appid", "is_active", "endpoint", "ref", "account_edition")
    rows = []
    for values in raw.execute(sql, parameters).fetchall():
        row = dict(zip(names, values, strict=True))
        for name in _TIMES:
            if row[name] is not None:
                row[name] = _moment(row[name])
        row["complaints"] = json.loads(row["complaints"])
        row["is_active"] = bool(row["is_active"])
        rows.append(Row(**row))
    return rows


def _moment(value: Any) -> dt.datetime:
    moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
