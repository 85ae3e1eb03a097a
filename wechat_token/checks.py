"""System checks: what is wrong with the configuration, where, and what to do (``docs/checks.md``).

What matters in production only is checked with ``check --deploy``; what needs rows, with ``--database``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.conf import settings as django_settings
from django.core import checks
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import connections

from . import beat, conf, encryption, text_cache
from .encryption import plaintext
from .engine import alias as database_alias
from .engine import identity
from .exceptions import ConfigurationError
from .models import Site
from .platforms import platforms, problems, transport

TAG = "wechat_token"

SQLITE_TIMEOUT = 5.0  # seconds; also what Python's driver waits if nothing is set


def register() -> None:
    for check in (
        check_setting_names, check_setting_values, check_api_base_url, check_platforms, check_beat_installed,
        check_time_zone, check_redis_timeout, check_alert_addresses,
    ):  # fmt: skip
        checks.register(check, TAG)
    for check in (
        check_cache_shared, check_cache_text, check_encryption_key, check_sqlite, check_paused, check_tls, check_alerts,
    ):  # fmt: skip
        checks.register(check, TAG, deploy=True)
    for check in (check_periodic_task, check_site):
        checks.register(check, TAG, checks.Tags.database)


# -- the WECHAT_TOKEN setting ----------------------------------------------------------------------


def check_setting_names(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    return [unknown_key(key) for key in conf.unknown_keys()]


def unknown_key(key: str) -> CheckMessage:
    known = sorted(conf.known_keys())
    nearest = difflib.get_close_matches(key.upper(), known, n=1)
    hint = f"Did you mean {nearest[0]!r}?" if nearest else f"Known keys: {', '.join(known)}."
    return checks.Error(f"WECHAT_TOKEN has an unknown key: {key!r}.", hint=hint, id="wechat_token.E001")


def check_setting_values(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    found = conf.problems()
    if found:
        return [unusable_value(problem.message) for problem in found]
    settings = conf.get_settings()
    messages = [
        unusable_value(text.removesuffix(hint).strip(), hint if text.endswith(hint) else None)
        for hint in [encryption.HOW_TO_MAKE_A_KEY]
        for text in encryption.problems()
    ]
    if settings.cache_alias not in django_settings.CACHES:
        messages.append(
            unusable_value(
                f"WECHAT_TOKEN['CACHE_ALIAS'] is {settings.cache_alias!r}, which is not in CACHES.",
                f"CACHES has: {', '.join(sorted(django_settings.CACHES))}.",
            )
        )
    for key, file in (("CA_BUNDLE", settings.ca_bundle), ("REMOTE_CA_BUNDLE", settings.remote_ca_bundle)):
        if file is not None and not Path(file).exists():
            messages.append(unusable_value(f"WECHAT_TOKEN[{key!r}]: there is no file {file!r}."))
    if settings.remote_url and not settings.remote_key.strip():
        messages.append(
            unusable_value(
                "WECHAT_TOKEN['REMOTE_KEY'] is missing: the client key for REMOTE_URL.",
                "Make one at that site: manage.py wechat_token add-key NAME --account APPID",
            )
        )
    return messages


def unusable_value(message: str, hint: str | None = None) -> CheckMessage:
    return checks.Error(message, hint=hint, id="wechat_token.E002")


def check_api_base_url(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """What :mod:`wechat_token.platforms.transport` would refuse, and a path that it would send twice."""
    if conf.problems():
        return []
    settings = conf.get_settings()
    if settings.remote_url:
        refusal = _refusal(replace(settings, api_base_url=settings.remote_url, proxy=None), "REMOTE_URL")
        return [unsafe_way(refusal)] if refusal else []
    refusal = _refusal(replace(settings, proxy=None))
    if not refusal and "cgi-bin" in urlsplit(settings.api_base_url).path:
        refusal = "WECHAT_TOKEN['API_BASE_URL'] must end before /cgi-bin, which is added to it."
    if refusal:
        return [unsafe_way(refusal, f"Leave it out for {conf.Settings().api_base_url}.")]
    refusal = _refusal(settings)
    return [unsafe_way(refusal)] if refusal else []


def _refusal(settings: conf.Settings, name: str = "API_BASE_URL") -> str:
    try:
        transport.base_url(settings, name)
    except ConfigurationError as error:
        return str(error)
    return ""


def check_platforms(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """What would keep a credential from ever being fetched: unknown needs, circles, names taken twice, unsafe hosts."""
    if conf.problems():
        return []
    found = problems()
    if not found:
        ways = [(platform.name, platform.way) for platform in platforms().values() if platform.way.base_url]
        refusals = ((name, _refusal(way.settings(), f"PLATFORMS: {name}")) for name, way in ways)
        found = [refusal for _name, refusal in refusals if refusal]
    return [unusable_platform(message) for message in found]


def unusable_platform(message: str) -> CheckMessage:
    return checks.Error(message, hint="See docs/sources.md.", id="wechat_token.E014")


def unsafe_way(message: str, hint: str | None = None) -> CheckMessage:
    return checks.Error(message, hint=hint, id="wechat_token.E003")


# -- what the site is built on ---------------------------------------------------------------------


def check_cache_shared(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    alias = _cache_alias()
    if alias is None or not isinstance(caches[alias], LocMemCache | DummyCache):
        return []
    return [cache_not_shared(alias, type(caches[alias]).__name__)]


def cache_not_shared(alias: str, backend: str) -> CheckMessage:
    return checks.Warning(
        f"The cache {alias!r} is a {backend}, which processes do not share.",
        hint="Every process then asks the database for each token once a second. Use Redis, Memcached or "
        "Django's database cache, or name such a cache in WECHAT_TOKEN['CACHE_ALIAS'].",
        id="wechat_token.W004",
    )  # fmt: skip


def check_cache_text(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    alias = _cache_alias()
    return [cache_unpickles(alias)] if alias is not None and text_cache.unpickles(alias) else []


def cache_unpickles(alias: str) -> CheckMessage:
    return checks.Warning(
        f"The cache {alias!r} unpickles what it reads.",
        hint="Whoever can write to the server behind it can run code in every process of this site. Tokens need no "
        "pickle: give them an alias of their own with the serializer wechat_token.text_cache.TextSerializer, and name "
        "it in WECHAT_TOKEN['CACHE_ALIAS'].",
        id="wechat_token.W020",
    )


def check_beat_installed(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    if beat.is_installed() or beat.is_scheduled_in_settings() or _is_remote():
        return []
    return [beat_not_installed()]


def beat_not_installed() -> CheckMessage:
    return checks.Warning(
        "Nothing renews tokens in time: django_celery_beat is not in INSTALLED_APPS.",
        hint="Add it and run migrate. With another scheduler, have it start the task "
        f"{beat.TASK} every few seconds and silence this check.",
        id="wechat_token.W005",
    )


def check_periodic_task(
    app_configs: Any = None, databases: Iterable[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    if _is_remote() or beat.is_scheduled_in_settings():
        return []
    if not any(beat.has_tables(using) for using in databases or ()):
        return []  # migrate runs this check before there is a table, and makes the task afterwards
    ticks = beat.ticks()
    if any(tick.enabled for tick in ticks):
        return []
    return [tick_disabled() if ticks else tick_missing()]


def tick_missing() -> CheckMessage:
    return checks.Warning(
        f"No periodic task starts {beat.TASK}: nothing renews tokens in time.",
        hint="Run manage.py migrate, which makes the task.",
        id="wechat_token.W006",
    )


def tick_disabled() -> CheckMessage:
    return checks.Warning(
        f"The periodic task that starts {beat.TASK} is disabled: nothing renews tokens in time.",
        hint="Enable it in the admin under Periodic tasks.",
        id="wechat_token.W006",
    )


def check_encryption_key(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    if conf.problems() or _is_remote():
        return []
    try:
        why = encryption.weakness()
    except ConfigurationError:
        return []  # check_setting_values complains, or the vault is not within reach of this command
    if not why:
        return []
    return [weak_encryption_key(why, "SECRET_KEY" if not encryption.own_keys_set() else "ENCRYPTION_KEYS")]


def weak_encryption_key(why: str, setting: str) -> CheckMessage:
    derived = setting == "SECRET_KEY"
    return checks.Warning(
        f"AppSecrets are encrypted with {'a key derived from ' if derived else ''}a weak {setting}: it is {why}.",
        hint=f"Set WECHAT_TOKEN['ENCRYPTION_KEYS'] to a list with a key of its own in front{_FOR_A_ROTATION[derived]}, "
        f"then run manage.py wechat_token rotate-encryption. {encryption.HOW_TO_MAKE_A_KEY}",
        id="wechat_token.W007",
    )


_FOR_A_ROTATION = {True: " and READ_DERIVED_KEYS to True", False: ""}


def check_sqlite(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    alias = database_alias()
    database = django_settings.DATABASES[alias]
    if not database["ENGINE"].endswith("sqlite3"):
        return []
    options = database.get("OPTIONS", {})
    missing = []
    if "journal_mode=wal" not in str(options.get("init_command", "")).lower().replace(" ", ""):
        missing.append("'init_command': 'PRAGMA journal_mode=WAL;'")
    if str(options.get("transaction_mode", "")).upper() != "IMMEDIATE":
        missing.append("'transaction_mode': 'IMMEDIATE'")
    if options.get("timeout", SQLITE_TIMEOUT) < SQLITE_TIMEOUT:
        missing.append("'timeout': 20")
    return [sqlite_options_missing(alias, missing)] if missing else []


def sqlite_options_missing(alias: str, missing: list[str]) -> CheckMessage:
    return checks.Warning(
        f"The SQLite database {alias!r} is not set up for several processes.",
        hint=f"Web server, worker and beat write to one file. Add to its OPTIONS: {', '.join(missing)}. "
        "For more than one machine use PostgreSQL or MySQL.",
        id="wechat_token.W009",
    )


def check_time_zone(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    return [] if django_settings.USE_TZ else [naive_times()]


def naive_times() -> CheckMessage:
    return checks.Error(
        "wechat_token needs USE_TZ = True.",
        hint="Hosts in different time zones share the rows, SQLite and MySQL refuse such times without it, "
        "and celery beat then sleeps for hours or fires without pause.",
        id="wechat_token.E010",
    )


def check_redis_timeout(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    alias = _cache_alias()
    if alias is None:
        return []
    cache = django_settings.CACHES[alias]
    if "redis" not in str(cache.get("BACKEND", "")).lower():
        return []
    options = {str(key).lower() for key in cache.get("OPTIONS", {})} | _options_in(cache.get("LOCATION", ()))
    return [] if "socket_timeout" in options else [redis_timeout_missing(alias)]


def redis_timeout_missing(alias: str) -> CheckMessage:
    return checks.Warning(
        f"The Redis cache {alias!r} has no socket_timeout.",
        hint="While Redis hangs, each read hangs with it, for 5 seconds or, before redis-py 8, for ever. "
        f"Set CACHES[{alias!r}]['OPTIONS'] to {{'socket_timeout': 0.5, 'socket_connect_timeout': 0.5}}.",
        id="wechat_token.W011",
    )


def check_paused(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    return [paused()] if not conf.problems() and conf.get_settings().paused else []


def paused() -> CheckMessage:
    return checks.Warning(
        "WECHAT_TOKEN['PAUSED'] is set: no token is renewed.",
        hint="That is right for a copy of a site, such as staging. On the site itself take it out.",
        id="wechat_token.W012",
    )


def check_tls(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    return [without_tls(way.setting, way.host) for way in plaintext.ways(database_alias(), _cache_alias())]


def without_tls(setting: str, host: str) -> CheckMessage:
    return checks.Warning(
        f"{setting} leads to {host} without TLS.",
        hint="Whoever is on the way reads its password and may write there (docs/security.md). PostgreSQL: "
        "'sslmode': 'verify-full'; MySQL: 'ssl_mode': 'VERIFY_IDENTITY'; Redis: rediss://; RabbitMQ: amqps://. "
        "Silence it where the network is the site's own.",
        id="wechat_token.W024",
    )  # fmt: skip


def check_alert_addresses(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """By number, never by value: a webhook's address is a secret, and a typo does not change that (S2)."""
    if conf.problems():
        return []
    settings = conf.get_settings()
    messages = []
    for number, address in enumerate(settings.alert_emails, 1):
        try:
            validate_email(address)
        except ValidationError:
            messages.append(unusable_value(f"WECHAT_TOKEN['ALERT_EMAILS']: entry {number} is no e-mail address."))
    for number, hook in enumerate(settings.alert_webhooks, 1):
        if not _is_http(hook.url.reveal()):
            messages.append(
                unusable_value(
                    f"WECHAT_TOKEN['ALERT_WEBHOOKS']: entry {number} is no URL of the form https://HOST/PATH.",
                    "Copy it again from the robot's page.",
                )
            )
    return messages


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        return False


def check_alerts(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    if conf.problems() or _is_remote():
        return []
    settings = conf.get_settings()
    if not settings.alert_emails and not settings.alert_webhooks:
        return [nobody_is_told()]
    backend = django_settings.EMAIL_BACKEND.rpartition(".")[0].rpartition(".")[2]
    if settings.alert_emails and backend in {"console", "dummy", "filebased", "locmem"}:
        return [mail_stays_here(backend)]
    return []


def nobody_is_told() -> CheckMessage:
    return checks.Warning(
        "Nobody is told when tokens cannot be renewed.",
        hint="Set WECHAT_TOKEN['ALERT_EMAILS'] or ['ALERT_WEBHOOKS'] and try them with manage.py wechat_token alert "
        "--test.",
        id="wechat_token.W030",
    )


def mail_stays_here(backend: str) -> CheckMessage:
    return checks.Warning(
        f"Alerts go by mail, and the {backend} mail backend sends none.",
        hint="Set EMAIL_BACKEND and EMAIL_HOST.",
        id="wechat_token.W031",
    )


def check_site(app_configs: Any = None, databases: Iterable[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    using = database_alias()
    if conf.problems() or using not in (databases or ()):
        return []
    if Site._meta.db_table not in connections[using].introspection.table_names():
        return []  # migrate runs this check before there is a table
    return [database_copied()] if database_is_copy() else []


def database_is_copy() -> bool:
    """Whether this database is not where its site was set up (R32); writes nothing."""
    return not _is_remote() and Site.objects.exists() and identity().is_copy


def database_copied() -> CheckMessage:
    return checks.Warning(
        "The database is a copy of another site's, or has been moved.",
        hint="It shares nothing with that site's cache, but has its accounts. Run manage.py wechat_token new-site if "
        "that site goes on, manage.py wechat_token same-site if this is that site, moved.",
        id="wechat_token.W013",
    )


def _is_remote() -> bool:
    """Whether another site renews the tokens."""
    return not conf.problems() and bool(conf.get_settings().remote_url)


def _cache_alias() -> str | None:
    """The cache in use; None if :func:`check_setting_values` complains about it."""
    if conf.problems():
        return None
    alias = conf.get_settings().cache_alias
    return alias if alias in django_settings.CACHES else None


def _options_in(location: str | Iterable[str]) -> set[str]:
    urls = [location] if isinstance(location, str) else list(location)
    return set.intersection(*(set(parse_qs(urlsplit(url).query)) for url in urls)) if urls else set()
