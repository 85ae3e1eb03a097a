"""A toy in place of Fernet: it hides nothing and costs nothing, but whether a text can be read depends on keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wechat_token.encryption import Place
from wechat_token.exceptions import EncryptionKeyError
from wechat_token.redaction import Secret

if TYPE_CHECKING:
    from .world import World

SITE, OTHER = "site-key:", "other-key:"  # a host whose settings lack the site's key has another one
LOST = "lost-key:"  # what nobody can read any more


class Cipher:
    """Stands in for :func:`wechat_token.encryption.encrypt` and ``decrypt``."""

    def __init__(self, world: World) -> None:
        self.world = world

    def encrypt(self, text: str | Secret, place: Place) -> str:
        return self._key() + (text.reveal() if isinstance(text, Secret) else text)

    def decrypt(self, ciphertext: str, place: Place) -> str:
        key = self._key()
        if not ciphertext.startswith(key):
            raise EncryptionKeyError("simulated: no key fits")
        return ciphertext[len(key) :]

    def _key(self) -> str:
        task = self.world.kernel.task
        return SITE if task is None or task.process.has_key else OTHER
