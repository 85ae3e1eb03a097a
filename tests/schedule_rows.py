"""Token rows for tests of the pure decisions: a good one, and any that could be in a table."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wechat_token.engine import schedule
from wechat_token.engine.schedule import Reason, seconds
from wechat_token.exceptions import ErrorClass, UpstreamError
from wechat_token.models import Account, Token

NOW = dt.datetime(2026, 3, 2, 4, 0, tzinfo=dt.UTC)
LEASE, OVERLAP, LIMIT = 15.0, 300.0, 2000
REF = "wx0123456789abcdef"
EDITION = 7


def shop(**fields: Any) -> Account:
    return Account(**{"appid": REF, "ref": REF, "edition": EDITION} | fields)


def ago(value: float) -> dt.datetime:
    return NOW - seconds(value)


def ahead(value: float) -> dt.datetime:
    return NOW + seconds(value)


def good(**fields: Any) -> Token:
    """A row an hour into a life of two, due when its lead begins."""
    usual: dict[str, Any] = {
        "version": 5, "value": "old", "issued_at": ago(3600), "sent_at": ago(3600), "expires_at": ahead(3600),
        "due_at": ahead(2520), "account": shop(), "issued_for": REF, "edition": EDITION,
    }  # fmt: skip
    return Token(**usual | fields)


def written(token: Token, fields: schedule.Fields) -> Token:
    for name, value in fields.items():
        setattr(token, name, value)
    return token


def failure(
    error_class: ErrorClass = ErrorClass.TRANSIENT, *, lost: bool = False, left: bool = True,
    retry_after: float | None = None,
) -> UpstreamError:  # fmt: skip
    """``lost``: the request may have been obeyed; ``left``: it reached the network at all."""
    return UpstreamError(
        "no", error_class=error_class, may_have_issued=lost, has_left=left or lost, retry_after=retry_after
    )


# -- strategies: any row that could be in a table, and more

offsets = st.floats(-100_000, 100_000, allow_nan=False)
moments = offsets.map(ahead)
maybe_moments = st.none() | moments
chances = st.floats(0, 1, exclude_max=True)
classes = st.sampled_from(list(ErrorClass))
reasons = st.sampled_from(list(Reason))
lives = st.integers(1, 30 * 86_400)
usages = st.one_of(
    st.builds(
        lambda day, calls: {"day": schedule.beijing_day(NOW + dt.timedelta(days=day)), "classic": calls},
        st.integers(-1, 1), st.integers(0, 3000),
    ),
    st.sampled_from([{}, {"day": 7}, {"classic": "many"}, [], None, "nonsense", {"day": None, "classic": -1}]),
)  # fmt: skip
clients = st.sampled_from(["", "till", "app"])
charges = st.one_of(
    st.dictionaries(clients, st.tuples(st.floats(-5, 20), moments.map(dt.datetime.timestamp)).map(list)),
    st.sampled_from([{"till": "many"}, {"till": [None, 0]}, {"app": [1]}, [], None, "nonsense"]),
)  # fmt: skip
rows = st.builds(
    Token,
    account=st.builds(shop, is_active=st.booleans()),
    issued_for=st.sampled_from([REF, REF, REF, "", "wxanother"]), edition=st.sampled_from([EDITION, EDITION, 6]),
    version=st.integers(0, 5), value=st.just("old"), issued_at=maybe_moments, expires_at=maybe_moments,
    rejected_version=st.integers(0, 5), due_at=maybe_moments, lease_owner=st.sampled_from(["", "somebody"]),
    lease_until=maybe_moments, sent_at=maybe_moments, unanswered_since=maybe_moments, lost_at=maybe_moments,
    usage=usages, forced_at=maybe_moments, probe_after=maybe_moments, complaints=charges,
    complaints_refused_at=maybe_moments,
    failures=st.integers(0, 10_000), error_class=st.sampled_from(["", *ErrorClass]),
    alerted_at=maybe_moments, foreign_refreshes=st.integers(0, 9),
)  # fmt: skip
failures = st.builds(
    failure, classes, lost=st.booleans(), left=st.booleans(), retry_after=st.none() | st.floats(1, 86_400)
)


def for_any(*strategies: Any) -> Any:
    """``given``, without a time limit on each example: it would make the suite depend on the machine's load."""
    return lambda test: settings(deadline=None)(given(*strategies)(test))
