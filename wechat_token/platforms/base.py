"""What the engine asks of a credential source, and all it knows about one.

A source says how a credential is fetched, what the answer means, how early it is renewed and what WeChat rations.
It holds no state and touches no database: a new kind of token is a new file that fulfils this contract.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from ..redaction import Secret


class AccountLike(Protocol):
    """The part of an account that a source may read."""

    appid: str
    endpoint: str
    daily_limit: int | None  # calls a day that WeChat grants this account, where that is not the usual number

    @property
    def secret(self) -> Secret: ...


@dataclass(frozen=True, slots=True)
class Issued:
    """A parsed success: the token and its life in seconds, counted from before the request was sent (R6).

    ``skew`` is how many seconds WeChat's clock is ahead of ours, if it told.
    """

    value: Secret
    expires_in: int
    skew: float | None = None


@dataclass(frozen=True, slots=True)
class Renewal:
    """When a credential of some life is renewed (R6). Seconds before its end: somewhere in [latest, earliest]."""

    earliest: float
    latest: float


@dataclass(frozen=True, slots=True)
class ForcedRefreshRule:
    """WeChat's ration of forced refreshes (R9)."""

    per_day: int
    min_gap: float  # seconds


Call = Callable[[], Issued]
Clearing = Callable[[], None]


class CredentialSource(abc.ABC):
    """One kind of token at one platform."""

    kind: ClassVar[str]

    @abc.abstractmethod
    def prepare(self, account: AccountLike, *, forced: bool) -> Call:
        """Everything about a request for a token that can fail by itself, without the network: the secret is read,
        settings are judged. Nothing is claimed yet (R31).

        The :data:`Call` returned asks WeChat, with one HTTP request and no retry, and raises ``UpstreamError`` only.
        Raises ``EncryptionKeyError`` and ``ConfigurationError``.
        """

    @abc.abstractmethod
    def is_accepted(self, account: AccountLike, value: Secret) -> bool | None:
        """Whether WeChat still accepts this token, by one cheap harmless call; None if the answer does not tell.

        Raises ``UpstreamError`` if no answer could be had.
        """

    def prepare_clearing(self, account: AccountLike) -> Clearing | None:
        """A call that sets the account's counters at the platform to zero, by hand only; None where there is none.

        As of :meth:`prepare`: what is raised here has cost nothing, the call raises ``UpstreamError`` only.
        """
        return None

    @abc.abstractmethod
    def endpoint(self, account: AccountLike, *, forced: bool) -> str:
        """The name under which this call is counted and guarded (R16), for example ``stable`` or ``stable_forced``."""

    @abc.abstractmethod
    def daily_limit(self, account: AccountLike, *, forced: bool) -> int:
        """How many calls of :meth:`endpoint` WeChat allows in a day."""

    @abc.abstractmethod
    def displaces(self, account: AccountLike, *, forced: bool) -> bool:
        """Whether the request, merely by reaching WeChat, can end the life of the token we hold (R2)."""

    @abc.abstractmethod
    def renewal(self, account: AccountLike, life: float) -> Renewal:
        """How long before its end a token of ``life`` seconds is to be renewed."""

    @abc.abstractmethod
    def forced_refresh(self, account: AccountLike) -> ForcedRefreshRule | None:
        """The ration of forced refreshes, or None where a plain fetch already brings a new token."""
