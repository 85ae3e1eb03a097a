"""Which of the site's services are on other machines and spoken to without TLS (``check --deploy``).

Whoever is on the way reads ciphertext of AppSecrets and tokens there, and passwords of the services; and may write
(``docs/security.md``).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from celery import current_app
from django.conf import settings as django_settings

POSTGRES_MODES: Final = {"require", "verify-ca", "verify-full"}
MYSQL_MODES: Final = {"REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"}
PLAIN_BROKERS: Final = {"amqp", "pyamqp", "redis", "sentinel"}
POSTGRES_ENGINES: Final = ("postgresql", "postgis")
MYSQL_ENGINES: Final = ("mysql",)


class Way(NamedTuple):
    """``setting`` names where it is configured; ``host``: never more of a URL, which holds a password."""

    setting: str
    host: str


def ways(database: str, cache: str | None) -> list[Way]:
    """The ways in plain text, of this database's alias, this cache's (None: not known) and Celery's broker."""
    found = [*_of_database(database), *_of_cache(cache), *_of_broker()]
    return list(dict.fromkeys(found))


def _of_database(alias: str) -> Iterator[Way]:
    database = django_settings.DATABASES[alias]
    options = database.get("OPTIONS", {})
    engine = str(database["ENGINE"]).rpartition(".")[2]
    if engine in POSTGRES_ENGINES:
        if "service" in options:  # libpq's own file says where and how
            return
        mode = options.get("sslmode") or os.environ.get("PGSSLMODE", "")
        encrypted = mode in POSTGRES_MODES
    elif engine in MYSQL_ENGINES:
        encrypted = bool(options.get("ssl")) or str(options.get("ssl_mode", "")).upper() in MYSQL_MODES
    else:
        return
    host = str(options.get("host") or database.get("HOST") or "")
    if not encrypted and _is_elsewhere(host):
        yield Way(f"DATABASES[{alias!r}]", host)


def _of_cache(alias: str | None) -> Iterator[Way]:
    if alias is None:
        return
    cache = django_settings.CACHES[alias]
    backend = str(cache.get("BACKEND", "")).lower()
    if _mentions_tls(cache.get("OPTIONS", {})):
        return
    for location in _list(cache.get("LOCATION", ())):
        if "redis" in backend:
            host = _plain_host(location, {"redis"})
        elif "memcached" in backend:
            host = urlsplit(f"//{location.removeprefix('tcp:')}").hostname or ""
        else:
            return
        if _is_elsewhere(host):
            yield Way(f"CACHES[{alias!r}]", host)


def _of_broker() -> Iterator[Way]:
    conf = current_app.conf
    if conf.broker_use_ssl:
        return
    for url in _list(conf.broker_write_url or conf.broker_url or (), conf.broker_read_url or ()):
        for part in url.split(";"):
            host = _plain_host(part, PLAIN_BROKERS)
            if _is_elsewhere(host):
                yield Way("CELERY_BROKER_URL", host)


def _list(*values: str | Iterable[str]) -> list[str]:
    return [text for value in values for text in ([value] if isinstance(value, str) else value)]


def _plain_host(url: str, plain: set[str]) -> str:
    """The host of a URL of one of these schemes; '' for any other, and for one that asks for TLS behind its ``?``."""
    parts = urlsplit(url)
    if parts.scheme not in plain or any("ssl" in name for name in parse_qs(parts.query)):
        return ""
    return parts.hostname or ""


def _mentions_tls(options: Mapping[str, Any]) -> bool:
    """``ssl_…``, ``tls_context`` or a class of connections named so, here or one level below."""
    for name, value in options.items():
        if isinstance(value, Mapping) and _mentions_tls(value):
            return True
        about = f"{name} {value}" if "class" in name.lower() else name
        if value and any(word in about.lower() for word in ("ssl", "tls")):
            return True
    return False


def _is_elsewhere(host: str) -> bool:
    """A name or address of another machine. Names in ``/etc/hosts`` are taken for others."""
    host = host.strip("[]")
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True
