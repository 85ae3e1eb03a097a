"""One request to WeChat, one JSON object back. No other module of this package talks to a network.

The adapter of :mod:`wechat_token.platforms.http_adapter` is used without a ``requests.Session``: a session would bring
cookies, ``.netrc``, proxies and trust from the environment, and it reads the body of a redirect without any
limit even when told not to follow it.
"""

from __future__ import annotations

import datetime as dt
import http.client
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from json import loads
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, ProxyError

from .. import __version__, clock
from ..conf import Settings, get_settings
from ..exceptions import AnswerError, ConfigurationError, ErrorClass, TransportError
from ..redaction import Secret
from .http_adapter import Adapter, Exchange, WebhookAdapter, get_adapter, under_way

T = TypeVar("T")

_HEADERS: Final = {
    "User-Agent": f"django-wechat-token/{__version__}",
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # a compressed answer could unfold beyond the size cap
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The peer's JSON object.

    ``skew`` is how many seconds its clock is ahead of ours, give or take one; None if it sent no ``Date``.
    ``retry_after`` is how many seconds it asks to wait, if it does.
    """

    body: dict[str, Any] = field(repr=False)
    skew: float | None = None
    status: int = 200
    retry_after: float | None = None


def call(
    method: str,
    path: str,
    *,
    params: Mapping[str, str | Secret] | None = None,
    json: Mapping[str, str | bool | Secret] | None = None,
    headers: Mapping[str, str | Secret] | None = None,
    deadline: float | None = None,
    settings: Settings | None = None,
    adapter: Adapter | None = None,
    any_status: bool = False,
) -> Answer:
    """Send one request to ``API_BASE_URL`` + ``path`` and return the parsed answer. Never retries.

    ``deadline`` is in seconds, total, by default ``REQUEST_DEADLINE``. Credentials are passed as ``Secret``.
    ``settings``: another platform's, with its host as ``API_BASE_URL``.
    ``adapter``: send through this one and by its settings, to a peer that is no platform.
    ``any_status``: a JSON object is an answer under 4xx and 5xx too.
    Raises ``TransportError`` (no answer), ``AnswerError`` (an answer that is of no use, R11) or
    ``ConfigurationError``. An ``errcode`` in the answer is for the caller to judge.

    Errors are raised here, with no context, so that no frame, cause or attribute leads to a secret (S2).
    """
    settings = adapter.settings if adapter is not None else settings or get_settings()
    url = base_url(settings) + path
    exchange = Exchange(settings, settings.request_deadline if deadline is None else deadline)
    prepare = partial(_prepare, method, url, params, json, headers)
    send = partial(_exchange, adapter or get_adapter(settings), exchange, prepare, any_status=any_status)
    outcome = shielded(exchange, urlsplit(url).hostname, send)
    if isinstance(outcome, Answer):
        return outcome
    try:
        raise outcome
    finally:
        del outcome  # an exception whose traceback holds a frame that holds the exception is never freed


def post(url: Secret, body: Mapping[str, Any], *, what: str, settings: Settings, deadline: float) -> tuple[int, bytes]:
    """Send ``body`` as JSON to ``url``, which is a secret as a whole; the status and the first bytes of the answer.

    Any host, private ones too, by http or https: it is the operator's choice. A redirect is an answer, not followed.
    ``what`` stands for the address in errors. Raises ``TransportError`` or ``ConfigurationError``.
    """
    exchange = Exchange(settings, deadline)
    outcome = shielded(exchange, what, partial(_post, exchange, url, body))
    if isinstance(outcome, tuple):
        return outcome
    try:
        raise outcome
    finally:
        del outcome


def _post(exchange: Exchange, url: Secret, body: Mapping[str, Any]) -> tuple[int, bytes]:
    settings = exchange.settings
    response = WebhookAdapter(settings).send(
        requests.Request("POST", url.reveal(), headers=dict(_HEADERS), json=dict(body)).prepare(),
        stream=True, timeout=(settings.connect_timeout, exchange.deadline), verify=True, proxies=proxies(settings),
    )  # fmt: skip
    try:
        return response.status_code, _read(response.raw, settings.max_answer_bytes)
    finally:
        response.close()


def ready(settings: Settings | None = None) -> None:
    """Raises ``ConfigurationError`` where no request could be sent: an unsafe URL, a CA bundle that cannot be read."""
    settings = settings or get_settings()
    base_url(settings)
    get_adapter(settings)


def base_url(settings: Settings, name: str = "API_BASE_URL") -> str:
    """``API_BASE_URL`` without a trailing slash. ``name``: the setting to name in errors, if it is another.

    Raises ``ConfigurationError`` where secrets would travel unprotected: plain http is for a loopback host
    only, such as the sandbox, and then through no proxy elsewhere.
    """
    scheme, host = _scheme_and_host(settings.api_base_url)
    if scheme not in {"http", "https"} or not host or {"@", "?", "#"} & set(settings.api_base_url):
        raise ConfigurationError(f"WECHAT_TOKEN['{name}'] must be https://HOST[:PORT][/PATH] and nothing more.")
    hops = [host]
    if settings.proxy:
        proxy_scheme, proxy_host = _scheme_and_host(settings.proxy)
        if proxy_scheme not in {"http", "https"} or not proxy_host:
            # Not even a part of the value is shown: it may hold a password.
            raise ConfigurationError(
                "WECHAT_TOKEN['PROXY'] must be http://[USER:PASSWORD@]HOST:PORT, or the same with https."
            )
        hops.append(proxy_host)
    if scheme == "http" and not all(map(_is_loopback, hops)):
        raise ConfigurationError(
            f"WECHAT_TOKEN['{name}'] may be plain http on a loopback host only: credentials travel there."
        )
    return settings.api_base_url.rstrip("/")


def _scheme_and_host(url: str) -> tuple[str, str]:
    try:
        parts, port = urlsplit(url), urlsplit(url).port
    except ValueError:  # a port that is no number, a broken IPv6 address
        return "", ""
    return ("", "") if port == 0 else (parts.scheme, parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


# -- one exchange --------------------------------------------------------------------------------------------


def shielded(exchange: Exchange, host: str | None, work: Callable[[], T]) -> T | BaseException:
    """What ``work`` returns, or the error to raise. Frames below this one hold secrets and end here (S2)."""
    token = under_way.set(exchange)
    try:
        return work()
    except (requests.RequestException, HTTPError, http.client.HTTPException, OSError, ValueError) as error:
        return TransportError(_describe(error, exchange, host), may_have_issued=_may_have_issued(error, exchange))
    except BaseException as error:
        # Not about the network (a worker's time limit, an interrupt): passed on as it is, without the frames.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    finally:
        under_way.reset(token)


def _prepare(
    method: str,
    url: str,
    params: Mapping[str, str | Secret] | None,
    json: Mapping[str, str | bool | Secret] | None,
    headers: Mapping[str, str | Secret] | None,
) -> requests.PreparedRequest:
    return requests.Request(
        method,
        url,
        headers={**_HEADERS, **_reveal(headers)},
        params=_reveal(params),
        json=None if json is None else _reveal(json),
    ).prepare()


def _reveal(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value.reveal() if isinstance(value, Secret) else value for key, value in (values or {}).items()}


def _exchange(
    adapter: Adapter, exchange: Exchange, prepare: Callable[[], requests.PreparedRequest], *, any_status: bool
) -> Answer | AnswerError:
    settings = exchange.settings
    before = clock.now()
    response = adapter.send(
        prepare(),
        stream=True,  # the body is read below, up to the cap
        timeout=(settings.connect_timeout, exchange.deadline),
        verify=True,
        proxies=proxies(settings),
    )
    after = clock.now()
    try:
        payload = _read(response.raw, settings.max_answer_bytes + 1)
    finally:
        response.close()
    body = _judge(response, payload, settings.max_answer_bytes, any_status=any_status)
    if isinstance(body, AnswerError):
        return body
    return Answer(
        body,
        _skew(response.headers.get("Date"), before + (after - before) / 2),
        response.status_code,
        _seconds(response.headers.get("Retry-After")),
    )


def _read(raw: Any, limit: int) -> bytes:
    payload = b""
    # Read once more after the last byte: only then does urllib3 notice that the body is shorter than due.
    while len(payload) < limit and (more := raw.read(limit - len(payload), decode_content=False)):
        payload += more
    return payload


def proxies(settings: Settings) -> dict[str, str] | None:
    """The ``PROXY`` setting as ``requests`` wants it."""
    return {"http": settings.proxy, "https": settings.proxy} if settings.proxy else None


def _may_have_issued(error: BaseException, exchange: Exchange) -> bool:
    if exchange.query is not None:
        return exchange.sent
    # Our connections were not asked. Before them nothing can be sent, unless something stands in for the
    # adapter's send(), as ``responses`` does in tests; then only the kind of error is left to go by.
    harmless = (
        requests.exceptions.ConnectTimeout,
        requests.exceptions.SSLError,
        requests.exceptions.ProxyError,
        NewConnectionError,
    )
    doubtful = (requests.exceptions.ConnectionError, requests.exceptions.ReadTimeout)
    return isinstance(error, doubtful) and not any(isinstance(e, harmless) for e in _chain(error))


def _describe(error: BaseException, exchange: Exchange, host: str | None) -> str:
    """One sentence of evidence, made of our own words and the system's, never of the error's text (S2)."""
    chain = list(_chain(error))
    certificate = next((e for e in chain if isinstance(e, ssl.SSLCertVerificationError)), None)
    system = next((e.errno for e in reversed(chain) if isinstance(e, OSError) and e.errno), None)
    if exchange.is_over:
        what = f"no complete answer from {host} within {exchange.deadline:g} s"
    elif any(isinstance(e, ProxyError) for e in chain):
        what = "the proxy could not be reached or refused"
    elif any(isinstance(e, (NameResolutionError, socket.gaierror)) for e in chain):
        what = f"the host name {host} could not be resolved"
    elif certificate is not None:
        what = f"the TLS certificate of {host} was not accepted: {certificate.verify_message}"
    elif any(isinstance(e, ssl.SSLError) for e in chain):
        what = f"no TLS connection with {host}"
    elif any(isinstance(e, TimeoutError) for e in chain):
        what = f"{host} did not respond in time"
    elif system is not None:
        what = f"connection to {host} failed: {os.strerror(system)}"
    elif any(isinstance(e, http.client.RemoteDisconnected) for e in chain):
        what = f"{host} closed the connection without an answer"
    else:
        what = f"connection to {host} failed: {type(chain[-1]).__name__}"
    return f"{what} ({'the request had been sent' if exchange.sent else 'nothing was sent'})"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# -- the answer ----------------------------------------------------------------------------------------------


def _judge(
    response: requests.Response, payload: bytes, limit: int, *, any_status: bool
) -> dict[str, Any] | AnswerError:
    """The JSON object in an answer, or why there is none (R11).

    3xx and 4xx come from something in front of WeChat's API that refused the request, so no token was issued.
    After a 5xx (a gateway that lost the answer) or a garbled 200 one may have been (R2).
    """
    status = response.status_code
    may_have_issued = not 300 <= status < 500

    def unusable(what: str) -> AnswerError:
        return AnswerError(f"HTTP {status}: {what}", error_class=ErrorClass.TRANSIENT, may_have_issued=may_have_issued)

    if 300 <= status < 400:
        return unusable("a redirect; it was not followed")
    if status >= 500 and not any_status:
        return unusable("the server failed")
    if len(payload) > limit:
        return unusable(f"an answer of more than {limit} bytes")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        return unusable("a compressed answer, which was not asked for")
    body = parse(payload)
    if body is None:
        return unusable(f"{len(payload)} bytes that are no JSON object")
    if status >= 400 and "errcode" not in body and not any_status:
        return unusable("refused without an errcode")
    return body


def parse(payload: bytes) -> dict[str, Any] | None:
    """The JSON object these bytes are, or None."""
    try:
        body = loads(payload.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name occurs twice")
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")


def _skew(date: str | None, ours: dt.datetime) -> float | None:
    if date is None:
        return None
    try:
        theirs = parsedate_to_datetime(date)
        if theirs.tzinfo is None:  # "-0000": UTC by RFC 5322
            theirs = theirs.replace(tzinfo=dt.UTC)
        # The header drops the fraction of a second: half a second more is right on average.
        return (theirs - ours).total_seconds() + 0.5
    except (ValueError, OverflowError):
        return None


def _seconds(text: str | None) -> float | None:
    """``Retry-After`` in its usual form; a date is not worth a parser."""
    return float(text) if text is not None and text.isdecimal() and text.isascii() and len(text) < 8 else None
