"""Everything the service says no with, in one table: stable code, HTTP status, and WeChat's code for it.

The codes are part of the interface: documented in ``docs/http-api.md``, enumerated in ``openapi.json``.
Messages are for people who read a client's log; they stay English and name nothing that the code does not say
already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import SuspiciousOperation
from django.db import Error as AnyDatabaseError

from ..client_keys.keyring import KeysUnavailable
from ..exceptions import (
    AccountError,
    ConfigurationError,
    EncryptionKeyError,
    RefreshRateLimited,
    StoreUnavailable,
    TokenUnavailable,
    URLNotSignable,
)


@dataclass(frozen=True, slots=True)
class Problem:
    code: str
    status: int
    message: str
    errcode: int  # as WeChat would answer: docs/design.md W9
    errmsg: str


INVALID_KEY = Problem(
    "invalid_key", 401, "The client key is missing, wrong, expired, revoked or used from a network it is not bound to.",
    40001, "invalid credential, secret must be a client key that is valid here",
)  # fmt: skip
TOO_MANY_FAILURES = Problem(
    "too_many_failures", 429, "Too many requests with a wrong client key came from this address.",
    45011, "too many requests with an invalid secret, retry later",
)  # fmt: skip
ACCOUNT_NOT_FOUND = Problem(
    "account_not_found", 404, "This client key gives access to no such account.", 40013, "invalid appid"
)
REFRESH_NOT_ALLOWED = Problem(
    "refresh_not_allowed", 403, "This client key may read tokens but not complain about them.",
    48001, "api unauthorized, this client key may not refresh",
)  # fmt: skip
NOT_FOR_THIS_KEY = Problem(
    "not_for_this_key", 403, "This client key is not given this: signatures, tickets or everything, as it was made.",
    48001, "api unauthorized, this client key is not given this",
)  # fmt: skip
TOO_MANY_COMPLAINTS = Problem(
    "too_many_complaints", 429, "This client key complains without pause. One complaint a token is enough.",
    45011, "too many refreshes, retry later",
)  # fmt: skip
REFRESH_RATE_LIMITED = Problem(
    "refresh_rate_limited", 429, "The guard of this account against needless calls to WeChat holds it back.",
    45009, "refresh limit of this account reached, retry later",
)  # fmt: skip
TOKEN_UNAVAILABLE = Problem(
    "token_unavailable", 503, "There is no usable token now. 'class' and 'errcode' say why.",
    -1, "system error",
)  # fmt: skip
SERVICE_UNAVAILABLE = Problem("service_unavailable", 503, "The service cannot read its tokens now.", -1, "system error")
INTERNAL_ERROR = Problem("internal_error", 500, "The service failed; its log says where.", -1, "system error")
METHOD_NOT_ALLOWED = Problem(
    "method_not_allowed", 405, "This address does not take this method.", 43001, "require GET method"
)
BODY_TOO_LARGE = Problem("body_too_large", 413, "The body is too large.", 47001, "data format error")
UNSUPPORTED_MEDIA_TYPE = Problem(
    "unsupported_media_type", 415, "The body must be application/json.", 47001, "data format error"
)
INVALID_JSON = Problem("invalid_json", 400, "The body must be a JSON object.", 47001, "data format error")
INVALID_STALE_TOKEN = Problem(
    "invalid_stale_token", 400, "'stale_token' must be the token that was refused, a string.",
    47001, "data format error",
)  # fmt: skip

INVALID_STALE_TICKET = Problem(
    "invalid_stale_ticket", 400, "'stale_ticket' must be the ticket that was refused, a string.",
    47001, "data format error",
)  # fmt: skip
INVALID_URL = Problem(
    "invalid_url", 400, "'url' must be the address of a page, as in location.href: http(s), a host, no blank inside.",
    47001, "data format error",
)  # fmt: skip

# For browsers, which have no key.
ORIGIN_NOT_ALLOWED = Problem(
    "origin_not_allowed", 403, "Pages of this origin are not listed in the account's JS domains.",
    48001, "api unauthorized",
)  # fmt: skip
URL_NOT_ALLOWED = Problem(
    "url_not_allowed", 403, "The host of this URL is not listed in the account's JS domains.",
    48001, "api unauthorized",
)  # fmt: skip
SIGNATURES_OFF = Problem(
    "signatures_off", 404, "There is no such account, or it signs no pages for browsers.", 40013, "invalid appid"
)
TOO_MANY_SIGNATURES = Problem(
    "too_many_signatures", 429, "Too many signatures were asked for from this address.",
    45011, "too many requests, retry later",
)  # fmt: skip

# In WeChat's dialect only.
INVALID_TOKEN = Problem(
    "invalid_key", 401, "", 40001, "invalid credential, access_token is invalid or not latest, it must be one of here"
)  # fmt: skip
INVALID_TICKET_TYPE = Problem("invalid_ticket_type", 400, "", 40097, "invalid args: type must be jsapi or wx_card")
POST_REQUIRED = Problem("method_not_allowed", 405, METHOD_NOT_ALLOWED.message, 43002, "require POST method")
EMPTY_BODY = Problem("invalid_json", 400, INVALID_JSON.message, 44002, "empty post data")
SWITCHED_OFF = Problem("switched_off", 404, "", 40066, "invalid url: this call is switched off here")
INVALID_GRANT_TYPE = Problem("invalid_grant_type", 400, "", 40002, "invalid grant_type")
APPID_MISSING = Problem("appid_missing", 400, "", 41002, "appid missing")
SECRET_MISSING = Problem("secret_missing", 400, "", 41004, "appsecret missing")


@dataclass(slots=True, eq=False)
class Refusal(Exception):
    """Raised anywhere below a view; :mod:`endpoint` turns it into the answer of the view's dialect.

    ``retry_after`` in seconds. ``details`` join ``code`` and ``message`` in the REST answer.
    """

    problem: Problem
    retry_after: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


DATABASE_PAUSE = 5.0  # seconds to wait while the database is down


def refusal_of(exc: Exception) -> Refusal | None:
    """What an error of the engine is to a client; None for one that should not have happened."""
    match exc:
        case Refusal():
            return exc
        case AccountError():
            return Refusal(ACCOUNT_NOT_FOUND)
        case URLNotSignable():
            return Refusal(INVALID_URL)
        case StoreUnavailable():
            return Refusal(SERVICE_UNAVAILABLE, exc.retry_after)
        case RefreshRateLimited():
            return Refusal(REFRESH_RATE_LIMITED, exc.retry_after, _cause(exc))
        case TokenUnavailable():
            return Refusal(TOKEN_UNAVAILABLE, exc.retry_after, _cause(exc))
        case SuspiciousOperation():  # more parameters than Django takes
            return Refusal(INVALID_JSON)
        case KeysUnavailable() | EncryptionKeyError() | ConfigurationError() | AnyDatabaseError():
            return Refusal(SERVICE_UNAVAILABLE, DATABASE_PAUSE)
    return None


def _cause(exc: TokenUnavailable) -> dict[str, Any]:
    """The last failure, without its text: that may name our own addresses."""
    return {"class": exc.error_class, "errcode": exc.errcode, "rid": exc.rid or None}
