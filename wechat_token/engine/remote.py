"""Remote mode: a site without any AppSecret takes its tokens from another site's token server.

With ``REMOTE_URL`` and ``REMOTE_KEY`` set, :mod:`wechat_token.engine.serving` comes here instead of going to the
database and to WeChat; memory, shared cache and the rules for readers stay the same. A reader waits for the
server only if there is no usable token in hand (R4, R5); what is in hand is looked up anew in the background
every ``REMOTE_MEMORY_SECONDS``, with growing pauses while the server fails.
"""

from __future__ import annotations

import copy
import datetime as dt
import logging
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from django.utils.translation import gettext as _

from .. import clock, process
from ..conf import Settings, get_settings
from ..exceptions import (
    AccountError,
    AccountNotFound,
    AnswerError,
    CentreUnavailable,
    ConfigurationError,
    ErrorClass,
    RefreshRateLimited,
    TokenUnavailable,
    TransportError,
    WeChatTokenError,
)
from ..platforms import ACCESS_TOKEN, transport
from ..platforms.http_adapter import Adapter
from ..redaction import Secret
from . import ground, served
from .ground import Crowded, Flight, Key, NotYet
from .served import Entry

logger = logging.getLogger("wechat_token")

RETRY_PAUSES: Final = (0.25, 0.75)  # seconds before the second and third attempt of one caller
LONGEST_REST: Final = 30.0
RESTS_KEPT: Final = 1000  # a client may ask for any name
REST_AFTER_REFUSAL: Final = 30.0  # a wrong key or URL is not mended in seconds, and wrong keys are throttled
LONGEST_LIFE: Final = 30 * 24 * 3600
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}")


@dataclass(frozen=True, slots=True)
class _Rest:
    """The server failed and is left alone until then (monotonic)."""

    until: float
    failures: int
    error: WeChatTokenError


_rests: dict[Key, _Rest]
_refused: dict[Key, Secret]  # the last token that a complaint got replaced
_adapters: dict[Settings, Adapter]  # connections belong to one process and one state of the settings
process.keep(globals(), _rests=dict, _refused=dict, _adapters=dict)


def look(key: Key, known: Entry | None, *, over_http: bool = False) -> Entry:
    """The entry to serve. Raises ``CentreUnavailable``, ``TokenUnavailable`` and ``AccountNotFound``."""
    found = served.look_up(key, known)
    if found is not None and (known is None or found.loaded_at > known.loaded_at):
        known = found
    now = clock.now()
    if known is None or now >= known.usable_until:
        return _together(key, partial(_wait_for, key), over_http=over_http)
    kept = served.remember(known)
    old = (now - known.loaded_at).total_seconds() >= get_settings().remote_memory_seconds
    if old and _resting(key) is None:
        ground.aside(("remote", key), partial(_look_again, key))
    return served.recall(key) or kept


def complain(key: Key, stale: Secret, *, over_http: bool = False) -> Entry:
    """Pass a complaint on (R8). The server compares, so repeating it after a lost answer does no harm."""
    known = served.recall(key)
    if known is not None and _replaced(known, stale):
        return known
    about = key[0], f"{key[1]} complaint {hash(stale.reveal())}"
    return _together(about, partial(_pass_on, key, stale), over_http=over_http)


def _pass_on(key: Key, stale: Secret) -> Entry:
    entry = _patiently(partial(_ask, "POST", key, "/refresh", {f"stale_{_noun(key)}": stale}))
    if Secret(entry.value) != stale:
        _refused[key] = stale
    _rests.pop(key, None)
    return served.publish(entry)


def _together(key: Key, work: partial[Entry], *, over_http: bool) -> Entry:
    """Ask once for all threads of this process that want the same at the same time."""

    def fly(flight: Flight) -> None:
        flight.doing = "asking the token server"
        flight.answer(work())

    settings = get_settings()
    try:
        flight = ground.start(key, fly)
        entry: Entry = ground.wait(flight, settings.wait_timeout + settings.request_deadline, over_http=over_http)
    except (Crowded, NotYet) as exc:
        raise CentreUnavailable(
            _("The token server (REMOTE_URL) has not answered yet: %(why)s.") % {"why": exc},
            appid=key[0],
            error_class=ErrorClass.TRANSIENT,
        ) from None
    return entry


def _replaced(known: Entry, stale: Secret) -> bool:
    """Whether somebody here complained about ``stale`` before, and ``known`` is what serves since."""
    complained_about = _refused.get(known.key)
    return complained_about == stale and Secret(known.value) != stale and clock.now() < known.usable_until


# -- reading -------------------------------------------------------------------------------------------------


def _wait_for(key: Key) -> Entry:
    rest = _resting(key)
    if rest is not None:
        raise copy.copy(rest.error)
    try:
        return _patiently(partial(_read, key))
    except (TokenUnavailable, AccountError) as error:
        _let_rest(key, error)
        raise


def _look_again(key: Key) -> None:
    try:
        _read(key)
    except AccountError as error:  # deleted or deactivated there, or no longer for this key
        _let_rest(key, error)
        served.forget(key)
    except TokenUnavailable as error:  # the token in hand serves until it is dead
        _let_rest(key, error)


def _read(key: Key) -> Entry:
    started = clock.now()
    entry = _ask("GET", key)
    _rests.pop(key, None)
    newer = served.recall(key)
    if newer is not None and newer.loaded_at > started:
        return newer  # a complaint was answered meanwhile; ours may be the token it was about
    return served.publish(entry)


def _patiently(attempt: partial[Entry]) -> Entry:
    """A few attempts, while the failure may pass by itself and the caller can wait (R5)."""
    give_up_at = clock.monotonic() + get_settings().wait_timeout
    for pause in RETRY_PAUSES:
        try:
            return attempt()
        except CentreUnavailable as error:
            if error.error_class is not ErrorClass.TRANSIENT or clock.monotonic() + pause > give_up_at:
                raise
        clock.sleep(pause)
    return attempt()


def _resting(key: Key) -> _Rest | None:
    rest = _rests.get(key)
    return rest if rest is not None and clock.monotonic() < rest.until else None


def _let_rest(key: Key, error: TokenUnavailable | AccountError) -> None:
    former = _rests.get(key)
    failures = former.failures + 1 if former is not None else 1
    if isinstance(error, CentreUnavailable) and error.error_class is ErrorClass.TRANSIENT:
        seconds = min(2.0 ** min(failures, 10), LONGEST_REST) * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
    else:
        seconds = min(getattr(error, "retry_after", REST_AFTER_REFUSAL), LONGEST_REST)
    if len(_rests) >= RESTS_KEPT:
        _rests.clear()
    _rests[key] = _Rest(clock.monotonic() + seconds, failures, copy.copy(error))  # without its frames
    if failures == 1:
        logger.warning("No token of %s from the token server: %s", key[0], error)


# -- asking --------------------------------------------------------------------------------------------------


def _ask(method: str, key: Key, suffix: str = "", body: Mapping[str, Secret] | None = None) -> Entry:
    """One request. Raises what its answer means; no error leads to the key or a token (S2)."""
    settings = get_settings()
    appid, kind = key
    started = clock.now()
    try:
        answer = transport.call(
            method,
            f"/accounts/{quote(appid, safe='')}/{kind}{suffix}",
            json=body,
            headers={"Authorization": _authorization(settings)},
            # The server may itself be waiting for WeChat, for as long as our own engine would.
            deadline=settings.wait_timeout + settings.request_deadline,
            adapter=_adapter(settings),
            any_status=True,
        )
    except (TransportError, AnswerError) as error:
        raise CentreUnavailable(
            _("The token server (REMOTE_URL) gave no usable answer: %(error)s.") % {"error": error},
            appid=appid,
            error_class=ErrorClass.TRANSIENT,
        ) from error
    entry = _entry(key, answer.body, started) if answer.status == 200 else None
    if entry is None:
        raise _meaning(answer, appid)
    return entry


def _noun(key: Key) -> str:
    return "token" if key[1] == ACCESS_TOKEN else "ticket"


def _authorization(settings: Settings) -> Secret:
    if not settings.remote_key.strip():
        raise ConfigurationError("WECHAT_TOKEN['REMOTE_KEY'] is missing: the client key for REMOTE_URL.")
    return Secret(f"Bearer {settings.remote_key.strip()}")


def _adapter(settings: Settings) -> Adapter:
    """Connections to the server: not through the proxy that WeChat is reached by, and with its own trust."""
    adapter = _adapters.get(settings)
    if adapter is None:
        _adapters.clear()
        adapter = _adapters[settings] = _made(settings)
    return adapter


def _made(settings: Settings) -> Adapter:
    there = replace(settings, api_base_url=settings.remote_url or "", proxy=None, ca_bundle=settings.remote_ca_bundle)
    transport.base_url(there, "REMOTE_URL")
    return Adapter(there)


def _entry(key: Key, body: Mapping[str, Any], started: dt.datetime) -> Entry | None:
    """The token in an answer, as hostile as WeChat's (R11); None if there is none."""
    token, life = body.get(key[1] if key[1] == ACCESS_TOKEN else _noun(key)), body.get("expires_in")
    if not (isinstance(token, str) and _TOKEN.fullmatch(token) and type(life) is int):
        return None
    if not 0 < life <= LONGEST_LIFE:
        return None
    end = started + dt.timedelta(seconds=life)
    # No row of ours: id and version are 0. What the server says can be relied upon (R12) is the end for us.
    return Entry(
        *key,
        token_id=0,
        version=0,
        revision=0,
        value=token,
        usable_until=end,
        expires_at=end,
        due_at=end,
        loaded_at=clock.now(),
    )


def _meaning(answer: transport.Answer, appid: str) -> WeChatTokenError:
    """What an answer without a token says, by status and code (``docs/http-api.md``), never by its text."""
    error = answer.body.get("error")
    details: Mapping[str, Any] = error if isinstance(error, dict) else {}
    retry_after = REST_AFTER_REFUSAL if answer.retry_after is None else answer.retry_after
    match answer.status, details.get("code"):
        case 401, _code:
            return CentreUnavailable(
                _(
                    "The token server (REMOTE_URL) refuses REMOTE_KEY: it is wrong, expired, revoked or "
                    "not for this network. Make a new one there, in its admin or with: "
                    "manage.py wechat_token add-key NAME --may-refresh"
                ),
                appid=appid,
                error_class=ErrorClass.HUMAN,
                retry_after=retry_after,
            )
        case 403, "refresh_not_allowed":
            return CentreUnavailable(
                _("REMOTE_KEY may read tokens but not complain about them. Allow that on the token server."),
                appid=appid,
                error_class=ErrorClass.HUMAN,
                retry_after=retry_after,
            )
        case 403, "not_for_this_key":
            return CentreUnavailable(
                _("REMOTE_KEY is not given this: it was made for less. Widen it on the token server."),
                appid=appid,
                error_class=ErrorClass.HUMAN,
                retry_after=retry_after,
            )
        case 404, "account_not_found":
            return AccountNotFound(
                _("The token server has no active account %(appid)s, or REMOTE_KEY is not for it.") % {"appid": appid}
            )
        case 429, "refresh_rate_limited" | "too_many_complaints":
            return RefreshRateLimited(
                _("The token server holds back complaints about the token of %(appid)s for now.") % {"appid": appid},
                appid=appid,
                retry_after=retry_after,
                error_class=_class(details),
                errcode=_number(details),
            )
        case 503, "token_unavailable":
            return TokenUnavailable(
                _("The token server has no usable token for %(appid)s now. Its admin says why.") % {"appid": appid},
                appid=appid,
                retry_after=retry_after,
                error_class=_class(details),
                errcode=_number(details),
            )
        case status, _code:
            passing = status in (200, 429) or status >= 500
            return CentreUnavailable(
                _("The token server (REMOTE_URL) answers with HTTP %(status)d and no token.") % {"status": status},
                appid=appid,
                error_class=ErrorClass.TRANSIENT if passing else ErrorClass.HUMAN,
                retry_after=retry_after,
            )


def _class(details: Mapping[str, Any]) -> ErrorClass | None:
    value = details.get("class")
    return ErrorClass(value) if value in list(ErrorClass) else None


def _number(details: Mapping[str, Any]) -> int | None:
    value = details.get("errcode")
    return value if type(value) is int else None
