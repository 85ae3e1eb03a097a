"""Secrets at rest (S1): MultiFernet keys and the model field that writes nothing but ciphertext.

Which keys: ``WECHAT_TOKEN["ENCRYPTION_KEYS"]`` first, then one derived from ``SECRET_KEY`` and from each of
``SECRET_KEY_FALLBACKS``. The first writes, all read, so that keys can be introduced and retired without
downtime (``manage.py wechat_token rotate-encryption`` rewrites what older keys wrote).

No frame that can raise binds a plain text or a key to a name: error reports show every frame's locals (S2).
"""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings as django_settings
from django.core.exceptions import FieldError, ValidationError
from django.db import models
from django.db.models.expressions import ExpressionWrapper, F
from django.db.models.lookups import Exact
from django.db.models.query_utils import DeferredAttribute
from django.utils.encoding import force_bytes
from django.utils.translation import gettext_lazy as _

from .conf import get_settings
from .exceptions import ConfigurationError, EncryptionKeyError
from .redaction import MASK, Secret

# Marks ciphertext in fixtures, so that loaddata does not encrypt it a second time.
FIXTURE_PREFIX: Final = "encrypted:"

HOW_TO_MAKE_A_KEY: Final = (
    "Make one with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
)

# Any str can be encrypted: an UnicodeEncodeError would carry the whole plain text in its ``object`` (S2).
_CODEC: Final = ("utf-8", "surrogatepass")


def encrypt(text: str | Secret) -> str:
    """Ciphertext by the first key. Raises ``ConfigurationError`` if a configured key is no Fernet key."""
    if not isinstance(text, Secret):
        text = Secret(text)  # should the next line raise, this frame has no plain text to show (S2)
    return _cipher().encrypt(text.reveal().encode(*_CODEC)).decode("ascii")


def decrypt(ciphertext: str) -> str:
    """The plain text. Raises :class:`EncryptionKeyError` if no configured key fits."""
    cipher = _cipher()
    with suppress(InvalidToken, UnicodeError):
        return cipher.decrypt(ciphertext.encode(*_CODEC)).decode(*_CODEC)
    raise _unreadable()  # out here, so that no frame or context of the failed attempt hangs on to it (S2)


def rotate(stored: StoredSecret) -> StoredSecret:
    """The same secret as the first key writes it. Raises :class:`EncryptionKeyError` if no key fits."""
    cipher = _cipher()
    with suppress(InvalidToken):
        return StoredSecret(cipher.rotate(stored.ciphertext.encode(*_CODEC)).decode("ascii"))
    raise _unreadable()


def written_with_first_key(ciphertext: str) -> bool:
    """Whether the key that writes today wrote this, that is, whether rotation may pass it over."""
    cipher = _usable(_keys_cipher(_key_material()[:1]))
    with suppress(InvalidToken):
        cipher.decrypt(ciphertext.encode(*_CODEC))
        return True
    return False


def bad_keys() -> list[int]:
    """Which entries of ``ENCRYPTION_KEYS`` are no Fernet keys, counted from 1."""
    keys = get_settings().encryption_keys
    return [number for number, key in enumerate(keys, 1) if isinstance(_keys_cipher((key,)), int)]


def _unreadable() -> EncryptionKeyError:
    return EncryptionKeyError(
        "A stored WeChat secret cannot be read with the configured keys. Put the key it was written with "
        "back: into WECHAT_TOKEN['ENCRYPTION_KEYS'], or, if that is not set, the old SECRET_KEY into "
        "SECRET_KEY_FALLBACKS. If the key is lost, enter the AppSecret again in the admin."
    )


def _cipher() -> MultiFernet:
    return _usable(_keys_cipher(_key_material()))


def _usable(cipher: MultiFernet | int) -> MultiFernet:
    if isinstance(cipher, MultiFernet):
        return cipher
    raise ConfigurationError(
        f"WECHAT_TOKEN['ENCRYPTION_KEYS']: entry {cipher} is not a Fernet key. {HOW_TO_MAKE_A_KEY}"
    )


def _key_material() -> tuple[str, ...]:
    derived = (
        base64.urlsafe_b64encode(
            hashlib.sha256(b"wechat_token.encryption:" + force_bytes(key, errors="surrogatepass")).digest()
        ).decode()
        for key in (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS)
    )
    return (*get_settings().encryption_keys, *derived)


@lru_cache(maxsize=4)
def _keys_cipher(keys: tuple[str, ...]) -> MultiFernet | int:
    """The cipher, or the number of the first bad key: never raises, as this frame shows keys (S2)."""
    ciphers = []
    for number, key in enumerate(keys, 1):
        try:
            ciphers.append(Fernet(key))
        except (ValueError, TypeError):
            return number
    return MultiFernet(ciphers)


class StoredSecret(Secret):
    """A secret as the database holds it, decrypted only when it is revealed."""

    __slots__ = ()

    @property
    def ciphertext(self) -> str:
        return self._text

    def reveal(self) -> str:
        return decrypt(self._text) if self._text else ""


class _SecretAttribute(DeferredAttribute):
    """Wraps whatever is assigned, so that ``repr(account.__dict__)`` and tracebacks never show it."""

    def __set__(self, instance: models.Model, value: Any) -> None:
        instance.__dict__[self.field.attname] = _wrapped(value)


def _wrapped(value: Any) -> Secret:
    if isinstance(value, Secret):
        return value
    return Secret("" if value is None else str(value))


if TYPE_CHECKING:
    _TextField = models.TextField[Secret | str, Secret]
else:
    _TextField = models.TextField


class EncryptedTextField(_TextField):
    """Text of any length, ciphertext in the database, a :class:`Secret` in Python. Cannot be searched."""

    description = _("Encrypted text")
    descriptor_class = _SecretAttribute

    def from_db_value(self, value: str | None, *args: Any) -> StoredSecret:
        return StoredSecret(value or "")

    def to_python(self, value: Any) -> Secret:
        """What a fixture says; nowhere else does :data:`FIXTURE_PREFIX` mean ciphertext."""
        if isinstance(value, str) and value.startswith(FIXTURE_PREFIX):
            return StoredSecret(value.removeprefix(FIXTURE_PREFIX))
        return _wrapped(value)

    def validate(self, value: Any, model_instance: models.Model | None) -> None:
        # Django would compare with '' and find that no Secret equals it.
        if not self.blank and not value:
            raise ValidationError(self.error_messages["blank"], code="blank")

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """From here on the instance holds what is stored: saved again, it is the same secret, not one entered anew."""
        value = super().pre_save(model_instance, add)
        if isinstance(value, Secret):
            value = StoredSecret(self.get_prep_value(value))
            setattr(model_instance, self.attname, value)
        return value

    def get_prep_value(self, value: Any) -> str:
        secret = _wrapped(value)
        if isinstance(secret, StoredSecret):
            return secret.ciphertext
        return encrypt(secret) if secret else ""

    def value_to_string(self, obj: models.Model) -> str:
        ciphertext = self.get_prep_value(self.value_from_object(obj))
        return FIXTURE_PREFIX + ciphertext if ciphertext else ""

    def save_form_data(self, instance: models.Model, data: Any) -> None:
        # A form that shows the field shows the mask, and sends it back if nobody typed over it.
        if isinstance(data, Secret) or data != MASK:
            super().save_form_data(instance, data)

    def get_lookup(self, lookup_name: str) -> Any:
        raise FieldError(
            f"{self.model.__name__}.{self.name} is encrypted and cannot be searched ({lookup_name!r}): "
            "the same text has another ciphertext each time."
        )


def unchanged(name: str, stored: StoredSecret) -> Exact[bool]:
    """A condition for ``filter()``: the row still holds this very ciphertext in the field ``name``.

    The one comparison that makes sense, for an UPDATE that must not overwrite a newer secret.
    """
    return Exact(ExpressionWrapper(F(name), output_field=models.TextField()), stored.ciphertext)
