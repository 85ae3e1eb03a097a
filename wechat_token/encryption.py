"""Secrets at rest (S1): MultiFernet keys and the model field that writes nothing but ciphertext.

Which keys: ``WECHAT_TOKEN["ENCRYPTION_KEYS"]`` first, then one derived from ``SECRET_KEY`` and from each of
``SECRET_KEY_FALLBACKS``. The first writes, all read, so that keys can be introduced and retired without downtime
(``manage.py wechat_token rotate-encryption`` rewrites what older keys wrote).
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings as django_settings
from django.core.exceptions import FieldError
from django.db import models
from django.db.models.query_utils import DeferredAttribute
from django.utils.translation import gettext_lazy as _

from .conf import get_settings
from .exceptions import ConfigurationError, EncryptionKeyError
from .redaction import Secret

# Marks ciphertext in fixtures, so that loaddata does not encrypt it a second time.
FIXTURE_PREFIX: Final = "encrypted:"


def encrypt(text: str) -> str:
    return _cipher().encrypt(text.encode()).decode("ascii")


def decrypt(ciphertext: str) -> str:
    """The plain text. Raises :class:`EncryptionKeyError` if no configured key fits."""
    try:
        return _cipher().decrypt(ciphertext.encode()).decode()
    except (InvalidToken, UnicodeError):
        unreadable = True
    if unreadable:  # raised out here so that no frame of the failed attempt hangs on to the error (S2)
        raise EncryptionKeyError(
            "A stored WeChat secret cannot be read with the configured keys. Put the key it was written with back: "
            "into WECHAT_TOKEN['ENCRYPTION_KEYS'], or, if that is not set, the old SECRET_KEY into "
            "SECRET_KEY_FALLBACKS. If the key is lost, enter the AppSecret again in the admin."
        )
    raise AssertionError("unreachable")


def written_with_first_key(ciphertext: str) -> bool:
    """Whether the key that writes today wrote this, that is, whether rotation may pass it over."""
    try:
        _keys_cipher(_key_material()[:1]).decrypt(ciphertext.encode())
    except InvalidToken:
        return False
    return True


def _key_material() -> tuple[str, ...]:
    derived = (
        base64.urlsafe_b64encode(hashlib.sha256(b"wechat_token.encryption:" + key.encode()).digest()).decode()
        for key in (django_settings.SECRET_KEY, *django_settings.SECRET_KEY_FALLBACKS)
    )
    return (*get_settings().encryption_keys, *derived)


@lru_cache(maxsize=4)
def _keys_cipher(keys: tuple[str, ...]) -> MultiFernet:
    ciphers = []
    for number, key in enumerate(keys, 1):
        try:
            ciphers.append(Fernet(key))
        except (ValueError, TypeError):
            raise ConfigurationError(
                f"WECHAT_TOKEN['ENCRYPTION_KEYS']: entry {number} is not a Fernet key. "
                "Make one with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
            ) from None
    return MultiFernet(ciphers)


def _cipher() -> MultiFernet:
    return _keys_cipher(_key_material())


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
        if not isinstance(value, Secret):
            value = Secret("" if value is None else str(value))
        instance.__dict__[self.field.attname] = value


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
        if isinstance(value, Secret):
            return value
        text = "" if value is None else str(value)
        if text.startswith(FIXTURE_PREFIX):
            return StoredSecret(text.removeprefix(FIXTURE_PREFIX))
        return Secret(text)

    def get_prep_value(self, value: Any) -> str:
        secret = self.to_python(value)
        if isinstance(secret, StoredSecret):
            return secret.ciphertext
        return encrypt(secret.reveal()) if secret else ""

    def value_to_string(self, obj: models.Model) -> str:
        ciphertext = self.get_prep_value(self.value_from_object(obj))
        return FIXTURE_PREFIX + ciphertext if ciphertext else ""

    def get_lookup(self, lookup_name: str) -> Any:
        raise FieldError(
            f"{self.model.__name__}.{self.name} is encrypted and cannot be searched ({lookup_name!r}): "
            "the same text has another ciphertext each time."
        )
