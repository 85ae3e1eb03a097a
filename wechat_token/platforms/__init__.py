"""Credential sources: one file per platform, found here by the kind of token they issue."""

from __future__ import annotations

from typing import Final

from .base import Call, Clearing, CredentialSource, ForcedRefreshRule, Issued, Renewal
from .official_account import OfficialAccountAccessToken

__all__ = ["KINDS", "Call", "Clearing", "CredentialSource", "ForcedRefreshRule", "Issued", "Renewal", "source_for"]


_SOURCES: Final[dict[str, CredentialSource]] = {source.kind: source for source in (OfficialAccountAccessToken(),)}
KINDS: Final = tuple(_SOURCES)


def source_for(kind: str) -> CredentialSource:
    """The source that issues tokens of this kind. Raises ``LookupError`` for a kind nobody registered."""
    return _SOURCES[kind]
