"""Client keys (S3): how they are made, what they look like, and what is kept of them.

A key is ``wxt_``, 32 random characters (190 bits) and 6 characters of checksum. The checksum tells a mistyped
key from an unknown one without asking anybody; the prefix lets scanners find keys that got into a repository.
With this much randomness a plain SHA-256 is a safe digest, and a slow password hash would only slow down the
service.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Iterable
from typing import Final

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables

from .. import clock
from ..engine import alias
from ..models import Account, ClientKey, Reading
from ..redaction import Secret
from . import scopes
from .networks import validate_networks
from .scopes import Scope

MARK: Final = "wxt_"
RANDOM_LENGTH: Final = 32
CHECKSUM_LENGTH: Final = 6  # 62**6 exceeds 2**32
SHOWN_LENGTH: Final = 8

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SHAPE: Final = re.compile(rf"{MARK}[0-9A-Za-z]{{{RANDOM_LENGTH + CHECKSUM_LENGTH}}}")


@sensitive_variables()
def make_key(
    name: str,
    *,
    accounts: Iterable[Account] = (),
    all_accounts: bool = False,
    may_refresh: bool = False,
    may_read: str = Reading.EVERYTHING,
    networks: str = "",
    expires_at: dt.datetime | None = None,
    by: str = "",
) -> tuple[ClientKey, Secret]:
    """Store a new key and return it with its text, which can never be read again: show it once.

    ``by``: who makes it, for the security log. Raises ``ValidationError`` for a name or networks that cannot be stored.
    """
    key = ClientKey(name=name, all_accounts=all_accounts, may_refresh=may_refresh)
    key.networks, key.expires_at, key.may_read = networks, expires_at, may_read
    plain = assign(key)
    try:
        validate_networks(networks)
    except ValidationError as error:
        raise ValidationError({"networks": error}) from None
    key.full_clean()
    with transaction.atomic(using=alias()):
        key.save()
        key.accounts.set(accounts)
        scopes.tell("key_made", key, by=by, scope=Scope.of(key))
    return key, plain


@sensitive_variables()
def assign(key: ClientKey) -> Secret:
    """Give ``key`` a new text, of which it keeps the digest and the first characters; the caller saves it."""
    plain = generate()
    key.prefix = shown(plain.reveal())
    key.digest = digest(plain.reveal())
    return plain


@sensitive_variables()
def generate() -> Secret:
    body = "".join(secrets.choice(_ALPHABET) for _place in range(RANDOM_LENGTH))
    return Secret(MARK + body + checksum(body))


@sensitive_variables()
def is_well_formed(text: str) -> bool:
    """Whether ``text`` has the shape and the checksum of a key. Needs no database."""
    if not _SHAPE.fullmatch(text):
        return False
    body = text.removeprefix(MARK)
    return checksum(body[:RANDOM_LENGTH]) == body[RANDOM_LENGTH:]


def checksum(body: str) -> str:
    """CRC-32 of the random part in base 62. Finds typing errors; secrecy does not depend on it."""
    rest = zlib.crc32(body.encode())
    digits = []
    for _place in range(CHECKSUM_LENGTH):
        rest, place = divmod(rest, len(_ALPHABET))
        digits.append(_ALPHABET[place])
    return "".join(reversed(digits))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def shown(text: str) -> str:
    """The part of a key that pages and logs may show."""
    return text.removeprefix(MARK)[:SHOWN_LENGTH]


# What a successor does not take over: it is another key, and its own record begins.
_OWN: Final = frozenset(
    {"id", "prefix", "digest", "expires_at", "revoked_at", "last_used_at", "created_at", "updated_at", "stamp"}
)


@sensitive_variables()
def succeed(key: ClientKey, *, ends_at: dt.datetime, by: str = "") -> tuple[ClientKey, Secret]:
    """A new key with the name and the rights of ``key``, which ends at ``ends_at`` or at its own end if that is sooner.

    Until then both work, so that no service is without one. A key that was to end gets a successor that lives as long
    as it was made for. ``by``: who does it, for the security log. Raises ``ValidationError`` for a key that is revoked
    or has ended.
    """
    now = clock.now()
    fields = {field.name: getattr(key, field.name) for field in ClientKey._meta.concrete_fields}
    heir = ClientKey(**{name: value for name, value in fields.items() if name not in _OWN})
    if key.expires_at is not None:
        heir.expires_at = now + (key.expires_at - key.created_at)
    plain = assign(heir)
    with transaction.atomic(using=alias()):
        living = ClientKey.objects.using(alias()).filter(pk=key.pk, revoked_at=None)
        living = living.filter(Q(expires_at=None) | Q(expires_at__gt=now))
        if not living.update(expires_at=min(filter(None, (key.expires_at, ends_at)))):
            raise ValidationError(_("This key has ended; make a new one instead."))
        heir.save()
        heir.accounts.set(key.accounts.all())
        scopes.tell("key_made", heir, by=by, scope=Scope.of(heir))
    return heir, plain
