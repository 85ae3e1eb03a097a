"""Credential sources: one file per platform, found here by the kind of token they issue."""

from __future__ import annotations

from .base import CredentialSource, ForcedRefreshRule, Issued, Renewal

__all__ = ["CredentialSource", "ForcedRefreshRule", "Issued", "Renewal", "source_for"]


def source_for(kind: str) -> CredentialSource:
    """The source that issues tokens of this kind. Raises ``LookupError`` for a kind nobody registered."""
    return _sources()[kind]


def _sources() -> dict[str, CredentialSource]:
    from .official_account import OfficialAccountAccessToken

    return {source.kind: source for source in (OfficialAccountAccessToken(),)}
