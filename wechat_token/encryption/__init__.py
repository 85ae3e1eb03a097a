"""Secrets at rest (S1, S8): which keys there are, what opens where, and the model field that stores only ciphertext."""

from .cipher import Place, decrypt, encrypt, fingerprints, rotate, written_with_first_key
from .field import FIXTURE_PREFIX, EncryptedTextField, StoredSecret, encrypted_fields, sealed, unchanged
from .keys import HOW_TO_MAKE_A_KEY, derived_keys_read, own_keys_set, problems, weakness

__all__ = (
    "FIXTURE_PREFIX",
    "HOW_TO_MAKE_A_KEY",
    "EncryptedTextField",
    "Place",
    "StoredSecret",
    "decrypt",
    "derived_keys_read",
    "encrypt",
    "encrypted_fields",
    "fingerprints",
    "own_keys_set",
    "problems",
    "rotate",
    "sealed",
    "unchanged",
    "weakness",
    "written_with_first_key",
)
