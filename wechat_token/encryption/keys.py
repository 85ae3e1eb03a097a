"""Which encryption keys there are (S1): those of a file, of the settings, or derived from ``SECRET_KEY``.

In this order: ``ENCRYPTION_KEYS_FILE``, ``ENCRYPTION_KEYS``, and only where neither is set, or ``READ_DERIVED_KEYS``
says so for a rotation, one derived from ``SECRET_KEY`` and from each of ``SECRET_KEY_FALLBACKS``. The first writes,
all read.

Keys travel in :class:`Keys`, which shows none; no frame that can raise binds one to a name (S2).
"""

from __future__ import annotations

import base64
import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from django.conf import settings as django_settings
from django.utils.encoding import force_bytes, force_str

from .. import clock, process
from ..conf import get_settings
from ..exceptions import ConfigurationError
from ..redaction import Secret

logger = logging.getLogger("wechat_token")

HOW_TO_MAKE_A_KEY: Final = (
    "Make one with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
)
KEY_BYTES: Final = 32
LONGEST_FILE: Final = 65_536  # bytes; a key takes 45
LOOK_SECONDS: Final = 1.0  # how often the file is looked at, at most
ASK_SECONDS: Final = 30.0  # how often a callable is asked again because something does not open, at most

SETTING: Final = "WECHAT_TOKEN['ENCRYPTION_KEYS']"
FILE_SETTING: Final = "WECHAT_TOKEN['ENCRYPTION_KEYS_FILE']"


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of 32 bytes, the writing one first; none twice."""

    raw: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there are no keys, in words that hold none."""

    text: str


@dataclass(frozen=True, slots=True)
class _FromFile:
    path: str
    stamp: tuple[int, ...]
    keys: Keys | Problem
    problem: Problem | None = None  # why the keys are those of an earlier look


_file: tuple[float, _FromFile] | None  # looked at (monotonic)
_asked: tuple[Any, float, Keys] | None  # the callable, when it was asked (monotonic), what it said
process.keep(globals(), _file=lambda: None, _asked=lambda: None)


def keys() -> Keys:
    """All keys in force. Raises ``ConfigurationError`` if there are none to use."""
    settings = get_settings()
    parts: list[Keys | Problem] = []
    if settings.encryption_keys_file is not None:
        parts.append(_of_file(settings.encryption_keys_file))
    if callable(settings.encryption_keys):
        parts.append(_of_callable(settings.encryption_keys))
    elif settings.encryption_keys:
        parts.append(_read(settings.encryption_keys, f"{SETTING}: entry"))
    if derived_keys_read():
        parts.append(_derived(django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS))
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Keys) else _joined(parts)


def _joined(parts: list[Keys | Problem]) -> Keys:
    for part in parts:
        if isinstance(part, Problem):
            raise ConfigurationError(part.text)
    return Keys(tuple(dict.fromkeys(raw for part in parts if isinstance(part, Keys) for raw in part.raw)))


def own_keys_set() -> bool:
    settings = get_settings()
    return settings.encryption_keys_file is not None or bool(settings.encryption_keys)


def derived_keys_read() -> bool:
    """Whether what was written with a key derived from ``SECRET_KEY`` is read."""
    return not own_keys_set() or get_settings().read_derived_keys


def news() -> bool:
    """Something did not open: whether there are other keys now than a moment ago."""
    return _news_in_file() or _news_of_callable()


def _news_in_file() -> bool:
    """Another process may have read the file, and written with its keys, within the second that this one waits."""
    global _file
    path = get_settings().encryption_keys_file
    if path is None or _file is None or _file[1].path != path:
        return False
    before = _file[1]
    _file = -math.inf, before
    return _of_file(path) != before.keys


def _news_of_callable() -> bool:
    global _asked
    source = get_settings().encryption_keys
    if not callable(source) or _asked is None or _asked[0] is not source:
        return False
    _source, asked_at, before = _asked
    if clock.monotonic() < asked_at + ASK_SECONDS:
        return False
    said = _ask(source)
    after = said if isinstance(said, Keys) else before
    _asked = source, clock.monotonic(), after
    if isinstance(said, Problem):
        logger.warning("%s The keys at hand stay in use.", said.text)
    return after != before


# -- reading keys ------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _read(texts: tuple[str, ...], label: str) -> Keys | Problem:
    """Never raises, as this frame shows keys (S2). ``label``: what an entry is called in front of its number."""
    found: list[bytes] = []
    for number, text in enumerate(texts, 1):
        raw = _decoded(text)
        if raw is None:
            return Problem(f"{label} {number} is not a Fernet key. {HOW_TO_MAKE_A_KEY}")
        if raw not in found:
            found.append(raw)
    return Keys(tuple(found))


def _decoded(text: str) -> bytes | None:
    """The 32 bytes of a Fernet key; also as other tools write base64."""
    try:
        raw = base64.b64decode(text.strip().replace("-", "+").replace("_", "/"), validate=True)
    except ValueError:
        return None
    return raw if len(raw) == KEY_BYTES else None


@lru_cache(maxsize=4)
def _derived(*secret_keys: str | bytes) -> Keys:
    return Keys(
        tuple(
            hashlib.sha256(b"wechat_token.encryption:" + force_bytes(key, errors="surrogatepass")).digest()
            for key in secret_keys
        )
    )


def _of_callable(source: Callable[[], Iterable[str | bytes]]) -> Keys | Problem:
    """Asked once in a process, and again (:func:`news`) when something does not open: a vault is no hot path."""
    global _asked
    known = _asked
    if known is None or known[0] is not source:
        said = _ask(source)
        if isinstance(said, Problem):
            return said
        _asked = known = source, clock.monotonic(), said
    return known[2]


def _ask(source: Callable[[], Iterable[str | bytes]]) -> Keys | Problem:
    """Never raises: the error of a vault's client may hold anything."""
    try:
        said: Any = source()
        entries = [] if isinstance(said, str | bytes) else list(said)
    except Exception as error:
        return Problem(f"{SETTING}: the callable raised {type(error).__name__}.")
    if not entries or not all(isinstance(entry, str | bytes) for entry in entries):
        return Problem(f"{SETTING}: the callable must return a list of Fernet keys.")
    texts = tuple(force_str(entry, "ascii", errors="replace") for entry in entries)
    return _read(texts, f"{SETTING}: what the callable returned as key")


def _of_file(path: str) -> Keys | Problem:
    """The keys in the file, read anew when it changes. Once they were read, a file that is gone or garbled changes
    nothing: whoever writes it may be in the middle of it.
    """
    global _file
    known, now = _file, clock.monotonic()
    if known is not None and known[1].path == path and now < known[0] + LOOK_SECONDS:
        return known[1].keys
    former = known[1] if known is not None and known[1].path == path else None
    stamp = _stamp(path)
    if former is None or stamp != former.stamp or former.problem or isinstance(former.keys, Problem):
        former = _looked(path, stamp, former)
    _file = now, former
    return former.keys


def _looked(path: str, stamp: tuple[int, ...], former: _FromFile | None) -> _FromFile:
    """A file that cannot be read is tried again at every look: what is mended may be something else than the file."""
    loaded = _load(path)
    if former is None or isinstance(former.keys, Problem) or isinstance(loaded, Keys):
        return _FromFile(path, stamp, loaded)
    if loaded != former.problem or stamp != former.stamp:
        logger.warning("%s The keys read before stay in use.", loaded.text)
    return _FromFile(path, stamp, former.keys, loaded)


def _stamp(path: str) -> tuple[int, ...]:
    """The time of change as well: it moves with the file's owner and mode, and nobody can set it back."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return ()
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


def _load(path: str) -> Keys | Problem:
    """Never raises, as this frame shows keys (S2). One key a line; blank lines and those with ``#`` are passed over."""
    try:
        with open(path, "rb") as file:
            content = file.read(LONGEST_FILE + 1)
    except (OSError, ValueError) as error:
        return Problem(f"{FILE_SETTING}: {path!r} cannot be read: {type(error).__name__}.")
    lines = (line.strip() for line in content[:LONGEST_FILE].decode("ascii", "replace").splitlines())
    texts = tuple(line for line in lines if line and not line.startswith("#"))
    if len(content) > LONGEST_FILE or not texts:
        what = "is too long for a file of keys" if texts else "holds no key"
        return Problem(f"{FILE_SETTING}: {path!r} {what}.")
    return _read(texts, f"{FILE_SETTING}: in {path!r} key")


# -- what is wrong with them -------------------------------------------------------------------------


def problems() -> list[str]:
    """What is wrong with the keys of the settings and of the file as it is now; no callable is asked."""
    settings = get_settings()
    found: list[str] = []
    if settings.encryption_keys_file is not None:
        loaded = _load(settings.encryption_keys_file)
        found += [loaded.text] if isinstance(loaded, Problem) else []
    for number, text in enumerate(() if callable(settings.encryption_keys) else settings.encryption_keys, 1):
        if _decoded(text) is None:
            found.append(f"{SETTING}: entry {number} is not a Fernet key. {HOW_TO_MAKE_A_KEY}")
    return found


SHORTEST_SECRET_KEY: Final = 32  # characters: below, guessing it is cheaper than breaking the cipher
FEWEST_CHARACTERS: Final = 5  # different ones, as Django's own check wants
FEWEST_BYTES: Final = 16  # different ones in a key; a random one has 22 or more, as good as always

# What stood in this project's own files, or stands in everybody's documentation, and is no secret.
PUBLISHED_SECRET_KEYS: Final = frozenset({"example-project-only-not-for-production"})
PUBLISHED_KEYS: Final = frozenset({"cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="})  # the Fernet specification's


def weakness() -> str:
    """Why the key that writes is weak: '' or one of ``short``, ``published``, ``made by hand``.

    Raises ``ConfigurationError`` as :func:`keys` does.
    """
    if not own_keys_set():
        return _weakness_of_text(Secret(force_str(django_settings.SECRET_KEY, errors="replace")))
    return _weakness_of_key(keys())


def _weakness_of_text(key: Secret) -> str:
    if key.reveal() in PUBLISHED_SECRET_KEYS or key.reveal().startswith("django-insecure-"):
        return "published"
    if len(key.reveal()) < SHORTEST_SECRET_KEY:
        return "short"
    return "made by hand" if len(set(key.reveal())) < FEWEST_CHARACTERS else ""


def _weakness_of_key(found: Keys) -> str:
    if base64.urlsafe_b64encode(found.raw[0]).decode() in PUBLISHED_KEYS:
        return "published"
    typed = found.raw[0].isascii() and found.raw[0].decode().isprintable()
    return "made by hand" if typed or len(set(found.raw[0])) < FEWEST_BYTES else ""
