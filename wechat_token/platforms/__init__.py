"""Platforms: one file for each sort of account, with a source for each of its credentials."""

from __future__ import annotations

from .base import (
    ACCESS_TOKEN,
    AccountLike,
    Call,
    Clearing,
    CredentialSource,
    ForcedRefreshRule,
    Issued,
    Material,
    Need,
    Platform,
    Renewal,
    Way,
    checked,
    issued,
)
from .errcodes import Meaning
from .registry import OFFICIAL_ACCOUNT, explain, meaning, platform, platforms, problems, source_for

__all__ = [
    "ACCESS_TOKEN",
    "OFFICIAL_ACCOUNT",
    "AccountLike",
    "Call",
    "Clearing",
    "CredentialSource",
    "ForcedRefreshRule",
    "Issued",
    "Material",
    "Meaning",
    "Need",
    "Platform",
    "Renewal",
    "Way",
    "checked",
    "explain",
    "issued",
    "meaning",
    "platform",
    "platforms",
    "problems",
    "source_for",
]
