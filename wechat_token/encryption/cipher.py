"""What opens where (S8): a ciphertext opens in the field and for the row that it was written for, and nowhere else.

Each field has a subkey of each key, by HKDF; so what one field holds is noise in another. Whose value it is stands
inside the ciphertext, where nobody without the key can change it: moved to another row, it opens, says so, and is
refused. Written where the row is not known (``QuerySet.update()`` of a plain text), it says nothing and opens in every
row of its field, until ``rotate-encryption`` binds it.

No frame that can raise binds a plain text or a key to a name: error reports show every frame's locals (S2).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from contextlib import suppress
from functools import lru_cache
from typing import Final, NamedTuple

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .. import clock, process, signals
from ..exceptions import EncryptionKeyError
from ..redaction import Secret
from . import keys
from .keys import Keys

# Any str can be encrypted: an UnicodeEncodeError would carry the whole plain text in its ``object`` (S2).
_CODEC: Final = ("utf-8", "surrogatepass")
_CIPHERTEXT: Final = re.compile("[A-Za-z0-9_-]+={0,2}")
_MARK_BYTES: Final = 16
_UNBOUND: Final = bytes(_MARK_BYTES)

TELL_SECONDS: Final = 60.0  # the same ciphertext is looked at again and again: its event once in so long
TOLD_KEPT: Final = 1000


class Place(NamedTuple):
    """Where a ciphertext lies. ``field``: model and field, or what else it is for; ``row``: whose value it is, None if
    that is not known."""

    field: str
    row: str | None = None


_told: dict[Place, float]  # when an event was sent (monotonic)
process.keep(globals(), _told=dict)


def encrypt(text: str | Secret, place: Place) -> str:
    """Ciphertext by the first key, for this place. Raises ``ConfigurationError`` if a configured key is none."""
    if not isinstance(text, Secret):
        text = Secret(text)  # should the next line raise, this frame has no plain text to show (S2)
    cipher = _cipher(keys.keys(), place.field)
    return cipher.encrypt(_mark(place) + text.reveal().encode(*_CODEC)).decode("ascii")


def decrypt(ciphertext: str, place: Place) -> str:
    """The plain text. Raises :class:`EncryptionKeyError` if no key opens it here; that is also a security event."""
    for _attempt in range(2):
        cipher = _cipher(keys.keys(), place.field)
        with suppress(InvalidToken, UnicodeError):
            return _unmarked(_opened(cipher, ciphertext), place).decode(*_CODEC)
        if not keys.news():
            break
    _tell(ciphertext, place)
    raise _unreadable()  # out here, so that no frame or context of the failed attempt hangs on to it (S2)


def rotate(ciphertext: str, place: Place) -> str:
    """The same secret as the first key writes it, bound to its row. Raises :class:`EncryptionKeyError`."""
    return encrypt(Secret(decrypt(ciphertext, place)), place)


def written_with_first_key(ciphertext: str, place: Place) -> bool:
    """Whether rotation may pass this over: the key that writes today wrote it, and bound it to its row."""
    cipher = _cipher(Keys(keys.keys().raw[:1]), place.field)
    with suppress(InvalidToken):
        return hmac.compare_digest(_opened(cipher, ciphertext)[:_MARK_BYTES], _mark(place))
    return False


def fingerprints(secret: Secret) -> tuple[str, ...]:
    """What a row can be found by whose secret this is: its HMAC under a subkey of each key, the one that writes first.

    For what lives for hours: a rotation of keys leaves nothing to write anew. Raises ``ConfigurationError``.
    """
    found = _fingerprint_keys(keys.keys())
    # Unwrapped in this line alone (S2).
    return tuple(hmac.new(key, secret.reveal().encode(*_CODEC), hashlib.sha256).hexdigest() for key in found.raw)


@lru_cache(maxsize=8)
def _fingerprint_keys(found: Keys) -> Keys:
    return Keys(tuple(_subkey(found, number, "fingerprint") for number in range(len(found.raw))))


def _opened(cipher: MultiFernet, ciphertext: str) -> bytes:
    """Raises ``InvalidToken``; also for what Python's base64 would pass over, such as a second ciphertext behind it."""
    if not _CIPHERTEXT.fullmatch(ciphertext):
        raise InvalidToken
    return cipher.decrypt(ciphertext.encode("ascii"))


def _mark(place: Place) -> bytes:
    if place.row is None:
        return _UNBOUND
    return hashlib.sha256(place.row.encode(*_CODEC)).digest()[:_MARK_BYTES]


def _unmarked(plain: bytes, place: Place) -> bytes:
    """Raises ``InvalidToken`` if the value is another row's. Where the row is not known, any will do."""
    mark = plain[:_MARK_BYTES]
    if len(mark) == _MARK_BYTES and (place.row is None or mark in (_UNBOUND, _mark(place))):
        return plain[_MARK_BYTES:]
    del plain, mark
    raise InvalidToken


@lru_cache(maxsize=64)
def _cipher(found: Keys, field: str) -> MultiFernet:
    """The subkeys for one field; deriving them takes longer than using them."""
    return MultiFernet([Fernet(base64.urlsafe_b64encode(_subkey(found, n, field))) for n in range(len(found.raw))])


def _subkey(found: Keys, number: int, field: str) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=f"wechat_token:{field}".encode()).derive(found.raw[number])


def _tell(ciphertext: str, place: Place) -> None:
    now = clock.monotonic()
    if now < _told.get(place, 0.0):
        return
    if len(_told) >= TOLD_KEPT:
        _told.clear()
    _told[place] = now + TELL_SECONDS
    cause = "another row's" if _opens(ciphertext, Place(place.field)) else "no key opens it here"
    signals.encryption_unfit.send_robust(sender=Place, field=place.field, row=place.row or "", cause=cause)


def _opens(ciphertext: str, place: Place) -> bool:
    with suppress(InvalidToken):
        _opened(_cipher(keys.keys(), place.field), ciphertext)
        return True
    return False


def _unreadable() -> EncryptionKeyError:
    return EncryptionKeyError(
        "A stored WeChat secret cannot be read with the configured keys, or lies where it does not belong. Put the key "
        "it was written with back: into WECHAT_TOKEN['ENCRYPTION_KEYS'], or, if that is not set, the old SECRET_KEY "
        "into SECRET_KEY_FALLBACKS. If keys of your own are new and SECRET_KEY wrote it, set "
        "WECHAT_TOKEN['READ_DERIVED_KEYS'] and run rotate-encryption. If the key is lost, enter the AppSecret again in "
        "the admin."
    )
