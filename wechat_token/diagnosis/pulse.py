"""What a process finds out about its own host, to say so in the ``Host`` row: can it read the stored secrets, reach
WeChat, use the cache, reach the broker; is its clock right.

Each look is bounded, none reads a token, and the only request to WeChat carries no credential.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from typing import Final

from celery import current_app
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import DatabaseError, InterfaceError
from django.db.models import Max
from django.utils import translation
from django.utils.crypto import get_random_string

from .. import clock, process
from ..conf import get_settings
from ..engine import TOLERATED_SKEW, host_lives, host_name, note_problem, private
from ..exceptions import ConfigurationError, EncryptionKeyError, UpstreamError
from ..models import Account, Host
from ..platforms import transport
from . import facts
from .problems import silence_after

EVERY: Final = 20.0  # seconds
AGAIN: Final = 8.0  # the same for what failed just now
SAMPLE: Final = 10  # accounts whose secrets are tried, of the oldest and of the newest each
PATIENCE: Final = 5.0  # seconds for an answer of WeChat's
BROKER_PATIENCE: Final = 2.0

_next_at: dict[str, float]  # monotonic, by subject
_failed: dict[str, int]  # in a row
_reads_nothing: bool
process.keep(globals(), _next_at=dict, _failed=dict, _reads_nothing=bool)


def reads_nothing() -> bool:
    """Whether this process was seen to have no key that reads any stored secret: it can serve nothing."""
    return _reads_nothing


def go(*, ticking: bool) -> None:
    """Look at what is due, and bring the host's row up to date.

    ``ticking``: this process renews tokens. A host that only serves them may be kept from reaching WeChat on purpose.
    """
    with translation.override(None, deactivate=True):  # rows are read in any language; these are evidence
        _look("secrets", _secrets)
        _look("cache", _cache)
        _look("clock", _clock)
        if ticking:
            _look("wechat", _wechat, patient=True)
        _look("broker", _broker)
    with suppress(DatabaseError, InterfaceError), private():
        host_lives()


def _look(subject: str, look: Callable[[], str | None], *, patient: bool = False) -> None:
    """``look`` returns what is wrong, '' if nothing is, None if it cannot tell. ``patient``: once is not enough."""
    if clock.monotonic() < _next_at.get(subject, 0.0):
        return
    _next_at[subject] = clock.monotonic() + EVERY
    wrong = look()
    if wrong is None:
        return
    _failed[subject] = _failed.get(subject, 0) + 1 if wrong else 0
    if wrong:
        _next_at[subject] = clock.monotonic() + AGAIN
    if not wrong or _failed[subject] > patient:
        with suppress(DatabaseError, InterfaceError), private():
            note_problem(subject, wrong)


def _secrets() -> str | None:
    global _reads_nothing
    try:
        with private():
            some = Account.objects.active().only("secret")
            accounts = list(chain(some.order_by("pk")[:SAMPLE], some.order_by("-pk")[:SAMPLE]))
    except (DatabaseError, InterfaceError):
        return None
    readable = [_is_readable(account) for account in accounts]
    _reads_nothing = bool(readable) and not any(readable)
    return f"{readable.count(False)} of {len(readable)} AppSecrets tried are unreadable" if not all(readable) else ""


def _is_readable(account: Account) -> bool:
    try:
        account.secret.reveal()
    except (EncryptionKeyError, ConfigurationError):
        return False
    return True


def _cache() -> str:
    cache = caches[get_settings().cache_alias]
    if get_settings().paused or isinstance(cache, LocMemCache | DummyCache):
        return ""
    key, value = f"wechat_token:pulse:{host_name()}", get_random_string(12)
    try:
        cache.set(key, value, timeout=60)
        cache.get(key)
    except Exception as error:  # whatever a cache backend raises; its text may hold the URL
        return type(error).__name__
    return ""


def _clock() -> str:
    """Against the database's clock, which the engine compares with (R2); see also :func:`_wechat`."""
    return f"{-clock.ahead():+.0f} s against the database's" if abs(clock.ahead()) > TOLERATED_SKEW else ""


def _wechat() -> str | None:
    settings = get_settings()
    if settings.paused or settings.remote_url:
        return None
    try:
        answer = transport.call("GET", "/cgi-bin/get_api_domain_ip", deadline=min(PATIENCE, settings.request_deadline))
    except (UpstreamError, ConfigurationError) as error:
        return str(error)
    skewed = answer.skew is not None and abs(answer.skew) > TOLERATED_SKEW
    with suppress(DatabaseError, InterfaceError), private():
        note_problem("clock-by-wechat", f"{-(answer.skew or 0.0):+.0f} s against WeChat's" if skewed else "")
    return "" if "errcode" in answer.body else "what answers there is not WeChat's API"


def _broker() -> str | None:
    """Asked only while nobody ticks: then it may be the cause."""
    try:
        with private():
            every = facts.beat_interval()
            ticked = Host.objects.aggregate(at=Max("ticked_at"))["at"] if every is not None else None
    except (DatabaseError, InterfaceError):
        return None
    if ticked is None or every is None or (clock.now() - ticked).total_seconds() <= silence_after(every):
        return ""
    if not current_app.conf.broker_url:
        return None  # the process does not know the site's Celery
    try:
        with current_app.connection_for_write(connect_timeout=BROKER_PATIENCE) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=BROKER_PATIENCE)
    except Exception as error:  # whatever a transport raises; its text may hold the URL
        return type(error).__name__
    return ""
