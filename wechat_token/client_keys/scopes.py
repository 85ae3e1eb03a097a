"""What a client key opens, so that making and widening one can be judged and recorded (S9)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from django.db import Error as AnyDatabaseError
from django.db import transaction
from django.utils.translation import gettext as _

from .. import security
from ..engine import alias, fingerprint
from ..exceptions import WeChatTokenError
from ..models import Account, ClientKey, Reading
from ..redaction import Secret
from .networks import Network, networks_of


@dataclass(frozen=True, slots=True)
class Scope:
    """``appids`` None: every account, also those to come. ``networks`` None: anywhere. ``expires_at`` None: never."""

    appids: frozenset[str] | None
    may_refresh: bool
    networks: tuple[Network, ...] | None
    expires_at: dt.datetime | None
    may_read: str = Reading.EVERYTHING

    @classmethod
    def of(cls, key: ClientKey, accounts: Iterable[Account] | None = None) -> Scope:
        """The scope of a key, with ``accounts`` in the place of the stored ones."""
        chosen = key.accounts.only("appid") if accounts is None else accounts
        return cls(
            appids=None if key.all_accounts else frozenset(account.ref for account in chosen),
            may_refresh=key.may_refresh,
            networks=networks_of(key.networks),
            expires_at=key.expires_at,
            may_read=key.may_read,
        )

    def widens(self, former: Scope) -> bool:
        """Whether this opens anything, to anybody, at any time, that ``former`` did not."""
        return (
            _exceeds(self.appids, former.appids)
            or (self.may_refresh and not former.may_refresh)
            or _step(self.may_read) > _step(former.may_read)
            or _reaches_beyond(self.networks, former.networks)
            or (former.expires_at is not None and (self.expires_at is None or self.expires_at > former.expires_at))
        )

    def as_fields(self) -> dict[str, object]:
        """For a security event."""
        return {
            "accounts": "*" if self.appids is None else self.appids or "-",
            "may_read": self.may_read,
            "may_complain": self.may_refresh,
            "networks": self.networks or ("-" if self.networks == () else "*"),
            "expires_at": self.expires_at,
        }

    def __str__(self) -> str:
        """In the words of the admin, whole: what the record leaves out would be where to hide an account."""
        accounts = _("all") if self.appids is None else ", ".join(sorted(self.appids)) or _("none")
        networks = _("anywhere") if self.networks is None else ", ".join(map(str, self.networks)) or _("none")
        expires = _("never") if self.expires_at is None else self.expires_at.isoformat(timespec="seconds")
        rights = _("read, complain") if self.may_refresh else _("read")
        if self.may_read in Reading.values and self.may_read != Reading.EVERYTHING:
            rights = f"{rights} ({Reading(self.may_read).label})"
        return _("Accounts: %(accounts)s. Rights: %(rights)s. Networks: %(networks)s. Expires: %(expires)s.") % {
            "accounts": accounts,
            "rights": rights,
            "networks": networks,
            "expires": expires,
        }


def _step(may_read: str) -> int:
    return Reading.values.index(may_read) if may_read in Reading.values else -1


def _exceeds(appids: frozenset[str] | None, former: frozenset[str] | None) -> bool:
    return former is not None and (appids is None or not appids <= former)


def _reaches_beyond(networks: tuple[Network, ...] | None, former: tuple[Network, ...] | None) -> bool:
    if former is None:
        return False
    return networks is None or not all(any(_lies_in(network, old) for old in former) for network in networks)


def _lies_in(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]  # the same version


def tell(event: str, key: ClientKey, *, by: str, scope: Scope | None = None) -> None:
    """A security event about a key, once what happened to it is committed. ``by``: who did it."""
    fields = {"key": key.prefix, "name": key.name, "user": by, **(scope.as_fields() if scope is not None else {})}
    transaction.on_commit(partial(_tell, event, fields, Secret(key.digest)), using=alias())


def _tell(event: str, fields: dict[str, object], digest: Secret) -> None:
    """After the commit: the first fingerprint of a site writes its key, which on SQLite waits for the caller's lock."""
    with suppress(WeChatTokenError, AnyDatabaseError):
        fields["key_fingerprint"] = fingerprint(digest)
    security.event(event, **fields)
