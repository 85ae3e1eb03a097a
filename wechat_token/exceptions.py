"""One tree of errors. Each carries its evidence (account, errcode, rid, class), never a body or a secret."""

from __future__ import annotations

import enum

import requests
from django.core.exceptions import ImproperlyConfigured


class ErrorClass(enum.StrEnum):
    """What a failure asks for (R10). The value is stored in rows; do not rename."""

    TRANSIENT = "transient"  # try again soon, with backoff
    QUOTA = "quota"  # wait until the window ends
    HUMAN = "human"  # somebody has to act at WeChat or in the admin
    UNKNOWN = "unknown"  # treated like HUMAN: a slow probe, never a loop


class WeChatTokenError(Exception):
    """Base of every error this package raises."""


class ConfigurationError(WeChatTokenError, ImproperlyConfigured):
    """A setting is wrong: an unknown key, a bad type, an encryption key that is no Fernet key."""


class EncryptionKeyError(WeChatTokenError):
    """A stored secret cannot be read with any of the configured keys. The ciphertext is never handed on (S1)."""


class AccountError(WeChatTokenError):
    """The account asked for cannot be used. The message names the choices."""

    code = "account_error"


class AccountNotFound(AccountError):
    code = "account_not_found"


class AccountInactive(AccountError):
    code = "account_inactive"


class AccountAmbiguous(AccountError):
    """No account was named, and there is neither a single active one nor a default."""

    code = "account_ambiguous"


class KindNotOffered(AccountError):
    """The account's platform has no credential of this kind. The message names those it has."""

    code = "kind_not_offered"


class URLNotSignable(WeChatTokenError, ValueError):
    """No page in WeChat can have this address, so a signature for it is worth nothing."""


class TokenUnavailable(WeChatTokenError):
    """There is no usable token now (R5).

    ``retry_after`` is in seconds; ``error_class``, ``errcode`` and ``rid`` are those of the last failure,
    if there was one. ``str()`` says why and what to do.
    """

    def __init__(
        self,
        message: str,
        *,
        appid: str = "",
        retry_after: float = 1.0,
        error_class: ErrorClass | None = None,
        errcode: int | None = None,
        rid: str = "",
    ) -> None:
        super().__init__(message)
        self.appid = appid
        self.retry_after = max(retry_after, 0.0)
        self.error_class = error_class
        self.errcode = errcode
        self.rid = rid


class CentreUnavailable(TokenUnavailable):
    """Remote mode: the token server is down or refuses ``REMOTE_KEY``, and no token in hand is good."""


class RefreshRateLimited(TokenUnavailable):
    """The account's guard against needless calls refuses this refresh for ``retry_after`` seconds (R8, R9, R16)."""


class StoreUnavailable(TokenUnavailable):
    """The database does not answer, and neither memory nor cache holds a usable token (R13)."""

    def __init__(self, appid: str, cause: Exception) -> None:
        super().__init__(
            f"The database does not answer ({type(cause).__name__}), and no usable token"
            f"{f' of the WeChat account {appid}' if appid else ''} is in memory or cache.",
            appid=appid,
            retry_after=5.0,
            error_class=ErrorClass.TRANSIENT,
        )


class UpstreamError(WeChatTokenError):
    """A call to WeChat gave no usable answer.

    ``may_have_issued``: the request may have reached WeChat and been obeyed although we hold no answer. On an
    endpoint that displaces the old token this makes the stored one suspect (R2).
    ``has_left``: whether a request left this machine, and so counts against WeChat's limits (R16, R31).
    ``retry_after``: seconds WeChat asks to wait, where the code says so (for example 89507: one hour).
    ``egress_ip``: our address as WeChat saw it, from the whitelist errors 40164 and 61004.
    """

    def __init__(
        self,
        message: str,
        *,
        error_class: ErrorClass,
        errcode: int | None = None,
        rid: str = "",
        may_have_issued: bool = False,
        has_left: bool = True,
        retry_after: float | None = None,
        egress_ip: str = "",
    ) -> None:
        super().__init__(message)
        self.has_left = has_left
        self.error_class = error_class
        self.errcode = errcode
        self.rid = rid
        self.may_have_issued = may_have_issued
        self.retry_after = retry_after
        self.egress_ip = egress_ip


class APIError(UpstreamError):
    """WeChat answered with an ``errcode``."""


class AnswerError(UpstreamError):
    """WeChat's answer was not what its documentation promises (R11): HTML, empty, truncated, huge, redirecting, …"""


class TransportError(UpstreamError, requests.exceptions.RequestException):
    """No answer arrived. Catchable as a ``requests`` error; carries no request and no URL on purpose (S2)."""

    def __init__(self, message: str, *, may_have_issued: bool) -> None:
        # RequestException.__init__ would look for request and response objects; they hold the AppSecret.
        UpstreamError.__init__(
            self, message, error_class=ErrorClass.TRANSIENT, may_have_issued=may_have_issued, has_left=may_have_issued
        )
        self.request = None
        self.response = None


class HostNotAllowed(WeChatTokenError, requests.exceptions.InvalidURL):
    """``WeChatSession`` was asked to send a token to a host that is not WeChat's. Nothing was sent."""
