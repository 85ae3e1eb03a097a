"""The ``WECHAT_TOKEN`` setting: one dict, every key optional, read anew whenever Django's settings change.

Keys are the fields of :class:`Settings` in upper case. Unknown keys are reported by the system check
``wechat_token.E001`` and ignored here, so that a typo never stops a running site. A value of the wrong type
or out of range is reported by ``wechat_token.E002``; where checks are skipped, :func:`get_settings` raises
``ConfigurationError`` with the key's name when a setting is first needed, never at import.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from .exceptions import ConfigurationError
from .redaction import Secret

NAME = "WECHAT_TOKEN"

# Numbers have to be above zero, except where the annotation is one of these.
_ZERO_ALLOWED: Final = "zero allowed"
NonNegative = Annotated[float, _ZERO_ALLOWED]
NonNegativeInt = Annotated[int, _ZERO_ALLOWED]


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where alerts go. Both parts are secrets (S2); ``secret`` is what DingTalk and Feishu sign with, '' for none."""

    url: Secret
    secret: Secret = field(default_factory=lambda: Secret(""))


@dataclass(frozen=True, slots=True)
class Settings:
    """Durations are in seconds unless the name says otherwise."""

    paused: bool = False  # a copy of a site: no call to WeChat, nothing read from or put into the shared cache
    # -- WeChat
    api_base_url: str = "https://api.weixin.qq.com"
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    ca_bundle: str | None = None
    connect_timeout: float = 3.0
    request_deadline: float = 10.0  # total, from the first byte out to the last byte in
    max_answer_bytes: int = 65_536
    platforms: tuple[str, ...] = ()  # dotted paths of further platforms (docs/sources.md)
    # -- life of a token
    overlap: NonNegative = 300.0  # how long WeChat keeps the old token working after a renewal
    lease_margin: float = 5.0  # the lease outlives the request deadline by this much (R2)
    wait_timeout: NonNegative = 15.0  # how long a caller without a usable token waits for a refresh (R5)
    caller_grace: NonNegative = 15.0  # how long an overdue token is left to beat before callers renew it (R7)
    # -- serving
    cache_alias: str = "default"
    memory_seconds: NonNegative = 1.0  # how long a process trusts its own memory (R18)
    memory_entries: int = 10_000  # how many tokens a process remembers at most; about 1.2 kB each
    cache_seconds: NonNegative = 60.0  # how long a cached entry is trusted before the database is asked again
    # -- remote mode: tokens come from another site's HTTP service, never from WeChat
    remote_url: str | None = None  # where that site includes wechat_token.urls
    remote_key: str = field(default="", repr=False)  # a client key made there
    remote_appid: str | None = None  # the account meant where none is named
    remote_ca_bundle: str | None = None  # for its certificate; CA_BUNDLE and PROXY are for WeChat only
    remote_memory_seconds: float = 30.0  # how long its answer is trusted before it is asked again
    # -- the HTTP service
    trusted_proxies: NonNegativeInt = 0  # how many in front append to X-Forwarded-For; 0: it is ignored
    failures_per_minute: int = 10  # wrong client keys from one address before it is told 429
    complaints_per_minute: int = 60  # of one client key, in each process
    wechat_dialect: Literal["on", "stable", "off"] = "on"  # stable: without the call that has a key in its URL
    signatures_per_minute: int = 3000  # for browsers without a key, of one address (carriers have few) and process
    usage_seconds: float = 60.0  # how often a process writes down what client keys asked for
    # -- pages inside WeChat
    jssdk_url: str = "https://res.wx.qq.com/open/js/jweixin-1.6.0.js"  # where {% wechat_jssdk %} loads WeChat's script
    # -- the batch
    beat_interval: int = 5  # first value of the periodic task; later edits in the admin win
    batch_size: int = 1000
    batch_threads: int = 32
    drain_deadline: float = 20.0  # how long one tick goes on with what has become due meanwhile (R35)
    # -- alerts: who is told what is wrong with this site
    alert_emails: tuple[str, ...] = ()
    alert_webhooks: tuple[Webhook, ...] = ()  # each a URL, or {"url": …, "secret": …}
    # -- secrecy and housekeeping
    encryption_keys: tuple[str, ...] | Callable[[], Iterable[str | bytes]] = field(default=(), repr=False)
    encryption_keys_file: str | None = None  # one key a line; read at start and whenever it changes
    read_derived_keys: bool = False  # read what SECRET_KEY encrypted although there are keys of our own
    log_days: int = 30

    @property
    def lease(self) -> float:
        """How long a refresh may be under way before others take over: longer than its request (R2)."""
        return self.request_deadline + self.lease_margin


def known_keys() -> frozenset[str]:
    return frozenset(f.name.upper() for f in fields(Settings))


def unknown_keys() -> list[str]:
    return sorted(set(map(str, _configured())) - known_keys())


@dataclass(frozen=True, slots=True)
class Problem:
    """A value that cannot be used; ``key`` is '' where it is the dict itself."""

    key: str
    message: str


def problems() -> list[Problem]:
    """Every value of the wrong type or out of range, in the order of :class:`Settings`."""
    configured = getattr(django_settings, NAME, {})
    if not isinstance(configured, Mapping):
        return [Problem("", f"{NAME} must be a dict, not {type(configured).__name__}.")]
    found = []
    for name, hint in get_type_hints(Settings, include_extras=True).items():
        key = name.upper()
        expected = _expected(hint, configured[key]) if key in configured else ""
        if expected:
            got = _shown(configured[key])
            found.append(Problem(key, f"{NAME}[{key!r}] must be {expected}, not {got}."))
    return found


def _expected(hint: Any, value: Any) -> str:
    """What a value of this type has to be, in words; '' if it is."""
    if get_origin(hint) is Annotated:
        return _expected_number(get_args(hint)[0], value, zero_allowed=_ZERO_ALLOWED in get_args(hint))
    if get_origin(hint) is Literal:
        return "" if value in get_args(hint) else "one of " + ", ".join(map(repr, get_args(hint)))
    if isinstance(hint, types.UnionType):
        refusals = [_expected(option, value) for option in get_args(hint)]
        return "" if "" in refusals else " or ".join(refusals)
    if hint == tuple[Webhook, ...]:
        fits = isinstance(value, list | tuple) and all(map(_is_webhook, value))
        return "" if fits else 'a list of URLs, or of {"url": …, "secret": …}'
    if get_origin(hint) is tuple:
        fits = isinstance(value, list | tuple) and all(isinstance(item, str | bytes) for item in value)
        return "" if fits else "a list of strings"
    if get_origin(hint) is Callable:
        return "" if callable(value) else "a callable"
    if hint in (int, float):
        return _expected_number(hint, value, zero_allowed=False)
    return "" if isinstance(value, hint) else _WORDS[hint]


def _is_webhook(value: Any) -> bool:
    if isinstance(value, str):
        return True
    texts = isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values())
    return texts and "url" in value and set(value) <= {"url", "secret"}


def _expected_number(hint: type, value: Any, *, zero_allowed: bool) -> str:
    right_type = isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    if right_type and 0 <= value < math.inf and (value or zero_allowed):
        return ""
    number = "a whole number" if hint is int else "a number"
    return f"{number} {'of 0 or more' if zero_allowed else 'above 0'}"


_WORDS: Final[dict[type, str]] = {str: "a string", bool: "True or False", types.NoneType: "None"}


def _shown(value: Any) -> str:
    """A number itself, of all else only the type: a password may have slipped into the wrong place (S2)."""
    return str(value) if isinstance(value, int | float) else type(value).__name__


def _configured() -> Mapping[str, Any]:
    configured = getattr(django_settings, NAME, {})
    return configured if isinstance(configured, Mapping) else {}


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings in force. Raises ``ConfigurationError`` naming the first key with an unusable value."""
    found = problems()
    if found:
        raise ConfigurationError(found[0].message)
    return _read()


def _read() -> Settings:
    known = known_keys()
    values = {key.lower(): value for key, value in _configured().items() if key in known}
    for name, value in values.items():
        if name == "alert_webhooks":
            hooks = ({"url": hook} if isinstance(hook, str) else hook for hook in value)
            values[name] = tuple(Webhook(Secret(hook["url"].strip()), Secret(hook.get("secret", ""))) for hook in hooks)
        elif isinstance(value, list | tuple):
            # Fernet.generate_key() makes bytes; both spellings are the same key.
            values[name] = tuple(v.decode("ascii", "replace") if isinstance(v, bytes) else v for v in value)
    return Settings(**values)


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == NAME:
        get_settings.cache_clear()


setting_changed.connect(_forget, dispatch_uid="wechat_token.conf")
