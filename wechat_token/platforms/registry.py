"""Which platforms there are: those of the package, in one tuple, and those that ``WECHAT_TOKEN["PLATFORMS"]`` names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from django.utils.module_loading import import_string

from ..conf import get_settings
from ..exceptions import ConfigurationError, UpstreamError
from . import official_account
from .base import ACCESS_TOKEN, CredentialSource, Platform
from .errcodes import UNKNOWN_CODE, Meaning

BUILT_IN: Final = (official_account.PLATFORM,)
DEEPEST: Final = 4  # credentials that may be fetched one after the other for one

OFFICIAL_ACCOUNT: Final = official_account.PLATFORM.name


def platforms() -> Mapping[str, Platform]:
    """All platforms by name. Raises ``ConfigurationError`` for a dotted path that leads to none."""
    return _platforms(get_settings().platforms)


@lru_cache(maxsize=8)
def _platforms(paths: tuple[str, ...]) -> Mapping[str, Platform]:
    return MappingProxyType({platform.name: platform for platform in (*map(_imported, paths), *BUILT_IN)})


def _imported(path: str) -> Platform:
    try:
        found = import_string(path)
    except ImportError as exc:
        raise ConfigurationError(f"WECHAT_TOKEN['PLATFORMS']: {path!r} cannot be imported: {exc}") from exc
    if not isinstance(found, Platform):
        raise ConfigurationError(f"WECHAT_TOKEN['PLATFORMS']: {path!r} is a {type(found).__name__}, not a Platform.")
    return found


def platform(name: str) -> Platform:
    """Raises ``ConfigurationError`` for the name of one that is not installed (any more)."""
    found = platforms().get(name)
    if found is None:
        known = ", ".join(sorted(platforms()))
        raise ConfigurationError(f"The platform {name!r} is not installed; there are: {known}.")
    return found


def source_for(name: str, kind: str) -> CredentialSource:
    """The source of a kind at a platform. Raises ``ConfigurationError`` where there is none."""
    source = platform(name).source(kind)
    if source is None:
        raise ConfigurationError(f"The platform {name!r} has no {kind!r}; it has: {', '.join(platform(name).kinds)}.")
    return source


def meaning(name: str, kind: str, errcode: int) -> Meaning:
    """What an ``errcode`` that was stored meant, also where its platform has gone since."""
    found = platforms().get(name)
    source = found.source(kind) if found is not None else None
    return source.lookup(errcode) if source is not None else UNKNOWN_CODE


def explain(name: str, kind: str, error: UpstreamError) -> Meaning:
    """The meaning of a call that failed just now. Raises as :func:`source_for`."""
    return source_for(name, kind).explain(error)


def problems() -> list[str]:
    """What is wrong with the platforms, for the system check."""
    paths = get_settings().platforms
    try:
        listed = [*map(_imported, paths), *BUILT_IN]
    except ConfigurationError as exc:
        return [str(exc)]
    found = [
        f"The platform name {name!r} is taken twice."
        for name, count in Counter(platform.name for platform in listed).items()
        if count > 1
    ]
    for each in listed:
        found += _problems_of(each)
    return found


def _problems_of(platform: Platform) -> list[str]:
    """Names that are taken twice, needs that are unknown, circles, and needs too deep."""
    name, kinds = platform.name, platform.kinds
    found = [f"The platform {name!r} has two sources of {kind!r}." for kind, n in Counter(kinds).items() if n > 1]
    if ACCESS_TOKEN not in kinds:
        found.append(f"The platform {name!r} has no source of {ACCESS_TOKEN!r}, an account's main credential.")
    for source in platform.sources:
        found += [
            f"The platform {name!r}: {source.kind!r} needs {need.kind!r}, which it has not."
            for need in source.needs
            if need.kind not in kinds
        ]
        depth = platform.depth(source.kind)
        if depth == float("inf"):
            found.append(f"The platform {name!r}: {source.kind!r} needs itself, directly or through others.")
        elif depth > DEEPEST:
            found.append(f"The platform {name!r}: {source.kind!r} is {depth} needs deep; {DEEPEST} is the limit.")
    return found
