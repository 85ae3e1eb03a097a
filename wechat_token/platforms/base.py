"""The contract of a platform, and all that the engine knows of one. How to write one: docs/sources.md.

A :class:`Platform` says where its API is and which credentials an account of its sort has. A :class:`CredentialSource`
says of one of them how it is fetched, what the answer means, what it needs, how early it is renewed and what is
rationed. Neither holds state or touches the database.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from ..conf import Settings, get_settings
from ..exceptions import AnswerError, APIError, ErrorClass, TransportError, UpstreamError
from ..redaction import Secret, clean_errmsg, find_rid, without
from . import transport
from .errcodes import NO_ANSWER, UNKNOWN_CODE, UNUSABLE_ANSWER, Meaning, find_egress_ip, read_errcode

if TYPE_CHECKING:
    from django_stubs_ext import StrPromise

ACCESS_TOKEN: Final = "access_token"  # noqa: S105  the name of a kind: every account's main credential

LONGEST_LIFE: Final = 30 * 24 * 3600  # WeChat documents "up to 7200" (W3); beyond a month a figure is an error
_VALUE: Final = re.compile(r"[\x21-\x7e]{1,8192}")
_REF: Final = re.compile(r"[\w.:@~-]{1,160}", re.ASCII)


class AccountLike(Protocol):
    """The part of an account that a source may read."""

    appid: str
    ref: str
    endpoint: str
    daily_limit: int | None  # calls a day that WeChat grants this account, where that is not the usual number

    @property
    def secret(self) -> Secret: ...


# -- how a platform is reached ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """How the API of a platform is reached: by ``PROXY``, ``CA_BUNDLE`` and the time limits of the site.

    ``base_url``: ``https://…`` without a trailing slash; '' means the ``API_BASE_URL`` setting. ``hosts``: further
    hosts that :class:`~wechat_token.WeChatSession` may send the credential to.
    """

    base_url: str = ""
    hosts: frozenset[str] = frozenset()

    def settings(self) -> Settings:
        """The site's settings, with the host of this platform."""
        return _elsewhere(get_settings(), self.base_url) if self.base_url else get_settings()

    def ready(self) -> None:
        """Raises ``ConfigurationError`` where no request could be sent."""
        transport.ready(**self._settings())

    def call(self, method: str, path: str, **options: Any) -> transport.Answer:
        """One request, never repeated: :func:`wechat_token.platforms.transport.call`."""
        return transport.call(method, path, **options, **self._settings())

    def _settings(self) -> dict[str, Any]:
        return {"settings": self.settings()} if self.base_url else {}


@lru_cache(maxsize=32)
def _elsewhere(settings: Settings, base_url: str) -> Settings:
    """The same object each time: connections are kept for it."""
    return replace(settings, api_base_url=base_url)


# -- what a source gets and gives ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Need:
    """Another credential of the same account that a request needs (R20)."""

    kind: str


@dataclass(frozen=True, slots=True)
class Material:
    """What a request is made of beside the account: the values of what its source needs."""

    values: Mapping[Need, Secret] = field(default_factory=dict)

    def __getitem__(self, need: Need) -> Secret:
        return self.values[need]


@dataclass(frozen=True, slots=True)
class Issued:
    """A parsed success: the credential and its life in seconds, counted from before the request was sent (R6).

    ``skew`` is how many seconds the issuer's clock is ahead of ours, if it told.
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
    """The ration of forced refreshes (R9)."""

    per_day: int
    min_gap: float  # seconds


Call = Callable[[], Issued]
Clearing = Callable[[], None]


class CredentialSource(abc.ABC):
    """One kind of credential at one platform."""

    kind: ClassVar[str]
    #: What is fetched first (R20). No circle, four deep at most: system checks refuse others.
    needs: ClassVar[tuple[Need, ...]] = ()
    #: The issuer hands out the same value again until its time is over: the birth rule (R23), and no ``renewal``.
    repeats: ClassVar[bool] = False
    #: The row is made by the first request, and renewed ahead only while somebody asks (R28).
    lazy: ClassVar[bool] = False
    #: The query parameter that carries the value in business calls.
    parameter: ClassVar[str] = "access_token"
    #: What an ``errcode`` means while this credential is fetched.
    codes: ClassVar[Mapping[int, Meaning]] = {}
    #: Whether :meth:`prepare_clearing` gives a call.
    clears_quota: ClassVar[bool] = False
    #: Answers to a business call or a probe that mean "this credential is dead". Nothing else does.
    dead_codes: ClassVar[frozenset[int]] = frozenset()

    @abc.abstractmethod
    def prepare(self, account: AccountLike, material: Material, *, forced: bool) -> Call:
        """Everything about a request that can fail by itself, without the network: the secret is read, settings are
        judged. Nothing is claimed yet (R31).

        The :data:`Call` returned asks the issuer, with one HTTP request and no retry, and raises ``UpstreamError``
        only. Raises ``EncryptionKeyError`` and ``ConfigurationError``.
        """

    def blame(self, errcode: int) -> Need | None:
        """Which need a refusal is about (R21); None: the account itself, or nobody."""
        return None

    def is_accepted(self, account: AccountLike, value: Secret) -> bool | None:
        """Whether the issuer still accepts this value, by one cheap harmless call; None: cannot tell (R29).

        Raises ``UpstreamError`` if no answer could be had.
        """
        return None

    def prepare_clearing(self, account: AccountLike) -> Clearing:
        """A call that sets the account's counters at the platform to zero, by hand only.

        As of :meth:`prepare`: what is raised here has cost nothing, the call raises ``UpstreamError`` only. Raises
        ``LookupError`` where there is no such call.
        """
        raise LookupError(f"{account.ref} has no call that clears its quota.")

    def endpoint(self, account: AccountLike, *, forced: bool) -> str:
        """The name under which this call is counted and guarded (R16), for example ``stable`` or ``stable_forced``."""
        return self.kind

    @abc.abstractmethod
    def daily_limit(self, account: AccountLike, *, forced: bool) -> int:
        """How many calls of :meth:`endpoint` the issuer allows in a day."""

    def displaces(self, account: AccountLike, *, forced: bool) -> bool:
        """Whether the request, merely by arriving, can end the life of the value we hold (R2)."""
        return False

    def renewal(self, account: AccountLike, life: float) -> Renewal:
        """How long before its end a value of ``life`` seconds is to be renewed."""
        return Renewal(earliest=min(1200.0, life / 6), latest=min(960.0, life / 7.5))

    def forced_refresh(self, account: AccountLike) -> ForcedRefreshRule | None:
        """The ration of forced refreshes, or None where a plain fetch already brings a new value."""
        return None

    def lookup(self, errcode: int) -> Meaning:
        """The meaning of an ``errcode``. One that is not in the table is ``UNKNOWN``: a slow probe, never a loop."""
        return self.codes.get(errcode, UNKNOWN_CODE)

    def explain(self, error: UpstreamError) -> Meaning:
        """The meaning of any failed call, also of one without an ``errcode``."""
        if error.errcode is not None:
            return self.lookup(error.errcode)
        return NO_ANSWER if isinstance(error, TransportError) else UNUSABLE_ANSWER

    # -- for the sources themselves ----------------------------------------------------------------

    def read(
        self, answer: transport.Answer, account: str, *, name: str, hide: Secret, body: Mapping[str, Any] | None = None
    ) -> Issued | UpstreamError:
        """The credential in an answer by R11, or the error to raise; the value is looked for before the errcode.

        ``account``: its ref, for the error's text. ``name``: the member that holds the value. ``hide``: the secret of
        the request, should the answer quote it. ``body``: the JSON object to read, if it is not the answer's own.
        """
        body = answer.body if body is None else body
        value, life = body.get(name), body.get("expires_in")
        if (
            isinstance(value, str)
            and _VALUE.fullmatch(value)
            and type(life) is int  # a bool is an int as well
            and 0 < life <= LONGEST_LIFE
        ):
            return Issued(Secret(value), life, skew=answer.skew)
        code = read_errcode(body)
        if not code:
            return AnswerError(
                f"{account}: an answer with neither a usable {self.kind} and life nor an errcode",
                error_class=ErrorClass.TRANSIENT,
                may_have_issued=True,
            )
        return self.refusal(code, body.get("errmsg"), account, hide=hide)

    def refusal(self, code: int, errmsg: object, account: str, *, hide: Secret) -> APIError:
        """An ``errcode`` as an error, with what is fit to be shown of its text."""
        text = without(errmsg, hide) if isinstance(errmsg, str) else ""
        meaning = self.lookup(code)
        return APIError(
            f"{account}: errcode {code}: {clean_errmsg(text)}",
            error_class=meaning.error_class,
            errcode=code,
            rid=find_rid(text),
            retry_after=meaning.retry_after,
            egress_ip=find_egress_ip(text),
        )


def issued(outcome: Issued | UpstreamError) -> Issued:
    """``outcome``, or raises it: apart from the frames that hold secrets (S2)."""
    if isinstance(outcome, Issued):
        return outcome
    try:
        raise outcome
    finally:
        del outcome


def checked(result: Issued) -> Issued:
    """What a source returned, whoever wrote it. Raises ``TypeError`` and ``ValueError`` for what is no credential."""
    if not isinstance(result, Issued) or not isinstance(result.value, Secret) or type(result.expires_in) is not int:
        raise TypeError("a source returns Issued, with a Secret and whole seconds")
    if not _VALUE.fullmatch(result.value.reveal()) or not 0 < result.expires_in <= LONGEST_LIFE:
        raise ValueError("a credential is printable, and lives between a second and a month")
    return result


# -- the platform ----------------------------------------------------------------------------------


def _appid(account: AccountLike) -> str:
    return account.appid


@dataclass(frozen=True, slots=True, eq=False)
class Platform:
    """One sort of account. ``name`` stands in the accounts' rows: do not rename it.

    ``make_ref``: the one string that names an account everywhere (R27), from the account's other fields and the ref
    it has had so far, if any; by default its AppID.
    """

    name: str
    label: StrPromise | str
    sources: tuple[CredentialSource, ...]
    way: Way = Way()
    make_ref: Callable[[AccountLike], str] = _appid

    def ref(self, account: AccountLike) -> str:
        """Raises ``ValueError`` for a ref that could not stand in a URL or a log line as it is."""
        ref = self.make_ref(account)
        if self.make_ref is not _appid and not _REF.fullmatch(ref):
            raise ValueError(f"{ref!r} cannot be the ref of an account: 1 to 160 letters, digits and -_.:@~")
        return ref

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(source.kind for source in self.sources)

    def source(self, kind: str) -> CredentialSource | None:
        """The source of this kind, None if the platform has none."""
        return next((source for source in self.sources if source.kind == kind), None)

    def dependents(self, kind: str) -> frozenset[str]:
        """The kinds that need this one, directly or through others."""
        found: frozenset[str] = frozenset()
        while True:
            wanted = found | {kind}
            more = {source.kind for source in self.sources if any(need.kind in wanted for need in source.needs)}
            if more <= found:
                return found
            found |= more

    def depth(self, kind: str, seen: tuple[str, ...] = ()) -> float:
        """How many credentials are fetched one after the other for this one; infinite for a circle."""
        if kind in seen:
            return float("inf")
        source = self.source(kind)
        needs = source.needs if source is not None else ()
        return 1 + max((self.depth(need.kind, (*seen, kind)) for need in needs), default=0)
