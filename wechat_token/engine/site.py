"""Which site this process serves: the name its cache entries carry (R32), and whether its database is a copy.

The database holds a random id, and beside it the *place* where it was given: what the server says of itself, not how
it is reached. A dump that was restored elsewhere has the id and another place. It goes on working, under a name of
its own in the cache, until somebody says whether it is a new site or the old one moved.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from django.core.cache.backends.base import BaseCache
from django.db import Error as AnyDatabaseError
from django.db import IntegrityError, connections

from .. import clock, encryption, process
from ..conf import get_settings
from ..encryption import Place, StoredSecret, decrypt, encrypt
from ..exceptions import EncryptionKeyError
from ..models import Site
from ..redaction import Secret
from . import ground
from .connections import NotHere, alias, in_place, private, read

BLIND_SECONDS: Final = 5.0
LOOK_AGAIN_SECONDS: Final = 60.0  # "new-site" and "same-site" are seen by every process within this


@dataclass(frozen=True, slots=True)
class Identity:
    """``is_copy``: the database is not where its id was given."""

    site_id: str
    place: str
    is_copy: bool

    @property
    def namespace(self) -> str:
        if not self.is_copy:
            return self.site_id
        return f"{self.site_id}-{hashlib.sha256(self.place.encode()).hexdigest()[:12]}"


_known: tuple[float, Identity] | None  # trusted until (monotonic)
_fingerprint_key: tuple[float, Secret] | None  # likewise
process.keep(globals(), _known=lambda: None, _fingerprint_key=lambda: None)


def namespace(cache: BaseCache) -> str:
    """What the names of this site's entries in the shared cache begin with.

    A process that starts while the database is down is told by ``cache`` (R13). Raises database errors and the
    cache's if neither tells.
    """
    global _known
    remote_url = get_settings().remote_url
    if remote_url:  # a reading site may have no database; its tokens are that other site's
        return f"remote-{hashlib.sha256(remote_url.encode()).hexdigest()[:12]}"
    if _known is not None and clock.monotonic() < _known[0]:
        return _known[1].namespace
    try:
        found = identity()
    except AnyDatabaseError:
        told = _told(cache)
        if told is None:
            raise
        found = told
        _known = clock.monotonic() + BLIND_SECONDS, found
    else:
        name, place = _hint()
        text = json.dumps([found.site_id, found.place, found.is_copy])
        cache.set(name, encrypt(text, place), timeout=None)
    return found.namespace


def _told(cache: BaseCache) -> Identity | None:
    """What the cache says; None for what is not ours."""
    name, place = _hint()
    raw = cache.get(name)
    if not isinstance(raw, str):
        return None
    with suppress(EncryptionKeyError, ValueError, TypeError):
        return Identity(*json.loads(decrypt(raw, place)))
    return None


def identity() -> Identity:
    """Raises database errors in a process that has never been able to ask."""
    global _known
    known, now = _known, clock.monotonic()
    if known is not None and now < known[0]:
        return known[1]
    if known is not None and not in_place():
        # A database that is down must not hold up those who know who they are (R13).
        _known = now + LOOK_AGAIN_SECONDS, known[1]
        ground.aside("which site", _look_again)
        return known[1]
    found = read(_look)
    _known = now + LOOK_AGAIN_SECONDS, found
    return found


def _look_again() -> None:
    global _known
    with suppress(AnyDatabaseError), private():
        _known = clock.monotonic() + LOOK_AGAIN_SECONDS, _look()


def _hint() -> tuple[str, Place]:
    """The name of the hint in the cache, and what only that hint opens with."""
    settings = connections[alias()].settings_dict
    way = "/".join(str(settings[name]) for name in ("ENGINE", "HOST", "PORT", "NAME"))
    return f"wechat_token:site:{hashlib.sha256(way.encode()).hexdigest()[:32]}", Place("site", way)


def settle(*, as_new: bool) -> Identity:
    """Say what a database that is found elsewhere is: a new site, with an id of its own, or the same one, moved."""
    global _known
    with private() as using:
        row = _row(using)
        row.place = _place(using)
        if as_new:
            row.site_id = uuid.uuid4().hex
        row.save(using=using)
        _known = None
    return identity()


# -- fingerprints ----------------------------------------------------------------------------------


def fingerprint(secret: Secret) -> str:
    """By what a token or key is named where it must not be shown: 128 bits of its HMAC under the site's own key.

    The same at every host and after every rotation of keys; worthless without the database *and* its encryption key.
    Raises ``EncryptionKeyError``, ``ConfigurationError`` and database errors. Asks the database once a minute.
    """
    key = _key_of_fingerprints()
    # Unwrapped in this line alone (S2).
    mark = hmac.new(key.reveal().encode(), secret.reveal().encode(errors="surrogatepass"), hashlib.sha256)
    return mark.hexdigest()[:32]


def renew_fingerprint_key() -> None:
    """Where the old one cannot be read any more. What was recorded with it is not found again."""
    global _fingerprint_key
    with private() as using:
        Site.objects.using(using).filter(pk=_row(using).pk).update(fingerprint_key=_new_fingerprint_key())
    _fingerprint_key = None


def _key_of_fingerprints() -> Secret:
    global _fingerprint_key
    known, now = _fingerprint_key, clock.monotonic()
    if known is not None and now < known[0]:
        return known[1]
    with private() as using:
        stored = _row(using).fingerprint_key
        if not stored:
            unset = Site.objects.using(using).filter(encryption.unchanged("fingerprint_key", StoredSecret("")))
            unset.update(fingerprint_key=_new_fingerprint_key())
            stored = _row(using).fingerprint_key
    key = Secret(stored.reveal())
    _fingerprint_key = now + LOOK_AGAIN_SECONDS, key
    return key


def _new_fingerprint_key() -> Secret:
    return Secret(secrets.token_urlsafe(32))


# -- looking ---------------------------------------------------------------------------------------


def _look() -> Identity:
    using = alias()
    place = _place(using)
    row = Site.objects.using(using).order_by("pk").first()
    if row is None:
        if connections[using].in_atomic_block and not in_place():
            raise NotHere  # not in somebody's transaction
        row = _row(using)
    return Identity(row.site_id, place, is_copy=row.place != place)


def _row(using: str) -> Site:
    try:
        row, _created = Site.objects.using(using).get_or_create(
            pk=1, defaults={"site_id": uuid.uuid4().hex, "place": _place(using)}
        )
    except IntegrityError:  # another process was faster
        row = Site.objects.using(using).get(pk=1)
    return row


def _place(using: str) -> str:
    """Where the database is, in its own words: the same for every host and pooler that reaches it."""
    connection = connections[using]
    if connection.vendor == "sqlite":
        name = str(connection.settings_dict["NAME"])
        return f"sqlite inode {os.stat(name).st_ino}" if os.path.exists(name) else "sqlite in memory"
    query = _PLACES.get(connection.vendor)
    if query is None:
        settings = connection.settings_dict
        return f"{connection.vendor} {settings['HOST']}:{settings['PORT']}/{settings['NAME']}"
    with connection.cursor() as cursor:
        cursor.execute(query)
        told = "/".join(str(value) for row in sorted(cursor.fetchall()) for value in row)
    return f"{connection.vendor} {connection.settings_dict['NAME']} {told}"[:255]


_PLACES: Final = {
    "postgresql": "SELECT (SELECT system_identifier FROM pg_control_system()), oid, datname FROM pg_database "
    "WHERE datname = current_database()",
    # server_uuid is MySQL's, server_uid MariaDB's.
    "mysql": "SHOW VARIABLES WHERE Variable_name IN ('hostname', 'port', 'datadir', 'server_uuid', 'server_uid')",
}
