"""System checks: each compared as the whole message."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path

import pytest
from celery import Celery
from cryptography.fernet import Fernet
from django.core import checks as django_checks
from django.core.checks import Error, Warning
from django.db import connection
from django_celery_beat.models import PeriodicTask

from wechat_token import checks, conf, process
from wechat_token.encryption import plaintext
from wechat_token.engine import identity
from wechat_token.exceptions import ConfigurationError
from wechat_token.models import Site
from wechat_token.platforms import transport

BEAT = "wechat_token.refresh_due_tokens"
REDIS = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1"}
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}
KEY_COMMAND = "Make one with: python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"


@pytest.fixture
def configure(settings):
    def configure(**values):
        settings.WECHAT_TOKEN = values

    return configure


def run(*, deploy=False, databases=None):
    return django_checks.run_checks(tags=["wechat_token"], include_deployment_checks=deploy, databases=databases)


def test_checks__example_project_has_no_complaint():
    assert run() == []


def test_checks__each_id_has_a_heading_in_the_documentation():
    root = Path(__file__).parent.parent
    ids = set(re.findall(r'"(wechat_token\.[EW]\d{3})"', (root / "wechat_token/checks.py").read_text()))
    headings = re.findall(r"^## (wechat_token\.[EW]\d{3})$", (root / "docs/checks.md").read_text(), re.MULTILINE)
    assert sorted(headings, key=lambda heading: heading[-3:]) == headings
    assert set(headings) == ids


@pytest.mark.parametrize("setting", [None, {"OVERLAP": "x"}, {"CACHE_ALIAS": "nope"}, {"ENCRYPTION_KEYS": ["x"]}])
def test_checks__a_wrong_setting_is_said_once_and_breaks_no_other_check(settings, setting):
    settings.WECHAT_TOKEN = setting
    others = {"wechat_token.W004", "wechat_token.W007", "wechat_token.W030"}
    assert {message.id for message in run(deploy=True)} - others == {"wechat_token.E002"}


# -- E001


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("API_BASE_ULR", "Did you mean 'API_BASE_URL'?"),
        ("overlap", "Did you mean 'OVERLAP'?"),
        ("XYZ", "Known keys: " + ", ".join(sorted(conf.known_keys())) + "."),
    ],
)
def test_check_setting_names__unknown_key(configure, key, hint):
    configure(**{key: 1})
    assert checks.check_setting_names() == [
        Error(f"WECHAT_TOKEN has an unknown key: {key!r}.", hint=hint, id="wechat_token.E001")
    ]


# -- E002


def test_check_setting_values__each_problem_is_a_message(configure):
    configure(OVERLAP=-1, BATCH_SIZE="9")
    assert checks.check_setting_values() == [
        Error("WECHAT_TOKEN['OVERLAP'] must be a number of 0 or more, not -1.", id="wechat_token.E002"),
        Error("WECHAT_TOKEN['BATCH_SIZE'] must be a whole number above 0, not str.", id="wechat_token.E002"),
    ]


def test_check_setting_values__not_a_dict(settings):
    settings.WECHAT_TOKEN = ["OVERLAP"]
    assert checks.check_setting_values() == [Error("WECHAT_TOKEN must be a dict, not list.", id="wechat_token.E002")]


def test_check_setting_values__no_fernet_key(configure):
    configure(ENCRYPTION_KEYS=[Fernet.generate_key(), "canary"])
    assert checks.check_setting_values() == [
        Error(
            "WECHAT_TOKEN['ENCRYPTION_KEYS']: entry 2 is not a Fernet key.",
            hint=KEY_COMMAND,
            id="wechat_token.E002",
        )
    ]


def test_check_setting_values__no_such_cache(configure):
    configure(CACHE_ALIAS="tokens")
    assert checks.check_setting_values() == [
        Error(
            "WECHAT_TOKEN['CACHE_ALIAS'] is 'tokens', which is not in CACHES.",
            hint="CACHES has: default.",
            id="wechat_token.E002",
        )
    ]


def test_check_setting_values__no_ca_bundle(configure, tmp_path):
    configure(CA_BUNDLE=str(tmp_path / "ca.pem"))
    assert checks.check_setting_values() == [
        Error(
            f"WECHAT_TOKEN['CA_BUNDLE']: there is no file {str(tmp_path / 'ca.pem')!r}.",
            id="wechat_token.E002",
        )
    ]


# -- E003


@pytest.mark.parametrize(
    "url",
    [
        "https://api.weixin.qq.com",
        "https://api2.weixin.qq.com/",
        "https://gate:8443/weixin",
        "http://127.0.0.1:9",
        "http://[::1]:9",
    ],
)
def test_check_api_base_url__good(configure, url):
    configure(API_BASE_URL=url)
    assert checks.check_api_base_url() == []


@pytest.mark.parametrize(
    "url", ["http://api.weixin.qq.com", "https://user:canary@api.weixin.qq.com", "api.weixin.qq.com", ""]
)
def test_check_api_base_url__says_what_transport_would_refuse(configure, url):
    configure(API_BASE_URL=url)
    with pytest.raises(ConfigurationError) as refusal:
        transport.base_url(conf.get_settings())
    assert checks.check_api_base_url() == [
        Error(
            str(refusal.value),
            hint="Leave it out for https://api.weixin.qq.com.",
            id="wechat_token.E003",
        )
    ]
    assert "canary" not in str(refusal.value)


def test_check_api_base_url__path_that_would_be_sent_twice(configure):
    configure(API_BASE_URL="https://api.weixin.qq.com/cgi-bin")
    assert checks.check_api_base_url() == [
        Error(
            "WECHAT_TOKEN['API_BASE_URL'] must end before /cgi-bin, which is added to it.",
            hint="Leave it out for https://api.weixin.qq.com.",
            id="wechat_token.E003",
        )
    ]


@pytest.mark.parametrize(
    ("url", "proxy"),
    [("https://api.weixin.qq.com", "proxy:canary"), ("http://127.0.0.1:9", "http://user:canary@proxy.example:3128")],
)
def test_check_api_base_url__unsafe_proxy(configure, url, proxy):
    configure(API_BASE_URL=url, PROXY=proxy)
    with pytest.raises(ConfigurationError) as refusal:
        transport.base_url(conf.get_settings())
    assert checks.check_api_base_url() == [Error(str(refusal.value), id="wechat_token.E003")]
    assert "canary" not in str(refusal.value)


def test_check_api_base_url__unsafe_remote_site(configure):
    configure(REMOTE_URL="http://tokens.example/wechat/", REMOTE_KEY="x")
    with pytest.raises(ConfigurationError) as refusal:
        transport.base_url(replace(conf.get_settings(), api_base_url="http://tokens.example"), "REMOTE_URL")
    assert checks.check_api_base_url() == [Error(str(refusal.value), id="wechat_token.E003")]


# -- remote mode


def test_check_setting_values__remote_key_missing(configure):
    configure(REMOTE_URL="https://tokens.example/wechat/", REMOTE_KEY=" ")
    assert checks.check_setting_values() == [
        Error(
            "WECHAT_TOKEN['REMOTE_KEY'] is missing: the client key for REMOTE_URL.",
            hint="Make one at that site: manage.py wechat_token add-key NAME --account APPID",
            id="wechat_token.E002",
        )
    ]


def test_checks__remote_mode_needs_no_beat(configure, settings, db):
    configure(REMOTE_URL="https://tokens.example/wechat/", REMOTE_KEY="x")
    PeriodicTask.objects.all().delete()
    assert checks.check_periodic_task(databases=["default"]) == []
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django_celery_beat"]
    assert run() == []


# -- W004


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        ("django.core.cache.backends.locmem.LocMemCache", "LocMemCache"),
        ("django.core.cache.backends.dummy.DummyCache", "DummyCache"),
    ],
)
def test_check_cache_shared__not_shared(settings, backend, name):
    settings.CACHES = {"default": {"BACKEND": backend}}
    assert checks.check_cache_shared() == [
        Warning(
            f"The cache 'default' is a {name}, which processes do not share.",
            hint="Every process then asks the database for each token once a second. Use Redis, Memcached or "
            "Django's database cache, or name such a cache in WECHAT_TOKEN['CACHE_ALIAS'].",
            id="wechat_token.W004",
        )
    ]


def test_check_cache_shared__shared(settings):
    settings.CACHES = {"default": REDIS}
    assert checks.check_cache_shared() == []


def test_check_cache_shared__looks_at_the_cache_in_use(settings, configure):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}, "tokens": REDIS}
    configure(CACHE_ALIAS="tokens")
    assert checks.check_cache_shared() == []


# -- W005, W006


def test_check_beat_installed__is_not(settings):
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django_celery_beat"]
    assert checks.check_beat_installed() == [
        Warning(
            "Nothing renews tokens in time: django_celery_beat is not in INSTALLED_APPS.",
            hint="Add it and run migrate. With another scheduler, have it start the task "
            "wechat_token.refresh_due_tokens every few seconds and silence this check.",
            id="wechat_token.W005",
        )
    ]


def test_check_beat_installed__schedule_in_settings_will_do(settings):
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django_celery_beat"]
    settings.CELERY_BEAT_SCHEDULE = {"tokens": {"task": BEAT, "schedule": 5}}
    assert checks.check_beat_installed() == []


def test_check_periodic_task__migrate_has_made_it(db):
    assert checks.check_periodic_task(databases=["default"]) == []


def test_check_periodic_task__missing(db):
    PeriodicTask.objects.filter(task=BEAT).delete()
    assert checks.check_periodic_task(databases=["default"]) == [
        Warning(
            "No periodic task starts wechat_token.refresh_due_tokens: nothing renews tokens in time.",
            hint="Run manage.py migrate, which makes the task.",
            id="wechat_token.W006",
        )
    ]


def test_check_periodic_task__disabled(db):
    PeriodicTask.objects.filter(task=BEAT).update(enabled=False)
    assert checks.check_periodic_task(databases=["default"]) == [
        Warning(
            "The periodic task that starts wechat_token.refresh_due_tokens is disabled: nothing renews tokens in time.",
            hint="Enable it in the admin under Periodic tasks.",
            id="wechat_token.W006",
        )
    ]


def test_check_periodic_task__schedule_in_settings_will_do(db, settings):
    PeriodicTask.objects.filter(task=BEAT).delete()
    settings.CELERY_BEAT_SCHEDULE = {"tokens": {"task": BEAT, "schedule": 5}}
    assert checks.check_periodic_task(databases=["default"]) == []


def test_check_periodic_task__needs_the_database_option():
    """Without ``db``: a query would fail the test."""
    assert checks.check_periodic_task(databases=None) == []
    assert checks.check_periodic_task(databases=["other"]) == []


def test_check_periodic_task__silent_before_the_first_migrate(db, monkeypatch):
    monkeypatch.setattr("django.db.connection.introspection.table_names", list)
    assert checks.check_periodic_task(databases=["default"]) == []


# -- W007


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("x" * 31, "short"),
        (b"x" * 31, "short"),
        ("django-insecure-" + "x" * 50, "published"),
        ("example-project-only-not-for-production", "published"),
        ("abab" * 20, "made by hand"),
    ],
)
def test_check_encryption_key__weak_secret_key(settings, key, why):
    settings.SECRET_KEY = key
    assert checks.check_encryption_key() == [
        Warning(
            f"AppSecrets are encrypted with a key derived from a weak SECRET_KEY: it is {why}.",
            hint="Set WECHAT_TOKEN['ENCRYPTION_KEYS'] to a list with a key of its own in front and READ_DERIVED_KEYS "
            f"to True, then run manage.py wechat_token rotate-encryption. {KEY_COMMAND}",
            id="wechat_token.W007",
        )
    ]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (base64.urlsafe_b64encode(bytes(32)), "made by hand"),
        (base64.urlsafe_b64encode(b"correct-horse-battery-staple-123"), "made by hand"),
        (base64.urlsafe_b64encode(bytes(range(8)) * 4), "made by hand"),
        ("cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=", "published"),
    ],
)
def test_check_encryption_key__weak_key_of_ones_own(configure, key, why):
    configure(ENCRYPTION_KEYS=[key, Fernet.generate_key()])
    assert checks.check_encryption_key() == [
        Warning(
            f"AppSecrets are encrypted with a weak ENCRYPTION_KEYS: it is {why}.",
            hint="Set WECHAT_TOKEN['ENCRYPTION_KEYS'] to a list with a key of its own in front, then run manage.py "
            f"wechat_token rotate-encryption. {KEY_COMMAND}",
            id="wechat_token.W007",
        )
    ]


def test_check_encryption_key__strong_or_not_used(settings, configure):
    settings.SECRET_KEY = "0123456789abcdef" * 2
    assert checks.check_encryption_key() == []
    settings.SECRET_KEY = "short"
    configure(ENCRYPTION_KEYS=[Fernet.generate_key()])
    assert checks.check_encryption_key() == []


# -- W009


def test_check_sqlite__options_missing(settings, monkeypatch):
    monkeypatch.setitem(settings.DATABASES, "default", SQLITE | {"OPTIONS": {"timeout": 1}})
    assert checks.check_sqlite() == [
        Warning(
            "The SQLite database 'default' is not set up for several processes.",
            hint="Web server, worker and beat write to one file. Add to its OPTIONS: "
            "'init_command': 'PRAGMA journal_mode=WAL;', 'transaction_mode': 'IMMEDIATE', 'timeout': 20. "
            "For more than one machine use PostgreSQL or MySQL.",
            id="wechat_token.W009",
        )
    ]


@pytest.mark.parametrize(
    "database",
    [
        {"ENGINE": "django.db.backends.postgresql"},
        SQLITE | {"OPTIONS": {"init_command": "pragma Journal_Mode = wal", "transaction_mode": "immediate"}},
    ],
)
def test_check_sqlite__fine(settings, monkeypatch, database):
    monkeypatch.setitem(settings.DATABASES, "default", database)
    assert checks.check_sqlite() == []


# -- E010


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai"])
def test_check_time_zone__naive_times(settings, zone):
    settings.USE_TZ, settings.TIME_ZONE = False, zone
    assert checks.check_time_zone() == [
        Error(
            "wechat_token needs USE_TZ = True.",
            hint="Hosts in different time zones share the rows, SQLite and MySQL refuse such times without "
            "it, and celery beat then sleeps for hours or fires without pause.",
            id="wechat_token.E010",
        )
    ]


# -- W011


@pytest.mark.parametrize(
    "cache",
    [
        REDIS,
        REDIS | {"OPTIONS": {"db": 1}},
        REDIS | {"LOCATION": ["redis://a?socket_timeout=1", "redis://b"]},
        {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://a"},
    ],
)
def test_check_redis_timeout__missing(settings, cache):
    settings.CACHES = {"default": cache}
    assert checks.check_redis_timeout() == [
        Warning(
            "The Redis cache 'default' has no socket_timeout.",
            hint="While Redis hangs, each read hangs with it, for 5 seconds or, before redis-py 8, "
            "for ever. Set CACHES['default']['OPTIONS'] to "
            "{'socket_timeout': 0.5, 'socket_connect_timeout': 0.5}.",
            id="wechat_token.W011",
        )
    ]


@pytest.mark.parametrize(
    "cache",
    [
        REDIS | {"OPTIONS": {"socket_timeout": 1}},
        REDIS | {"LOCATION": "redis://a?socket_timeout=1"},
        {"BACKEND": "django_redis.cache.RedisCache", "OPTIONS": {"SOCKET_TIMEOUT": 1}},
        {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    ],
)
def test_check_redis_timeout__fine(settings, cache):
    settings.CACHES = {"default": cache}
    assert checks.check_redis_timeout() == []


# -- W012


def test_check_paused__warns_where_it_is_deployed(configure):
    configure(PAUSED=True)
    assert checks.check_paused() == [
        Warning(
            "WECHAT_TOKEN['PAUSED'] is set: no token is renewed.",
            hint="That is right for a copy of a site, such as staging. On the site itself take it out.",
            id="wechat_token.W012",
        )
    ]
    assert "wechat_token.W012" not in {message.id for message in run()}
    assert "wechat_token.W012" in {message.id for message in run(deploy=True)}


def test_check_paused__is_content_without(configure):
    configure(PAUSED=False)
    assert checks.check_paused() == []


# -- W013


@pytest.fixture
def copied(db):
    """Found elsewhere than where its site was set up."""
    identity()
    Site.objects.update(place="another server")
    process.forget()


def test_check_site__says_which_commands_settle_it(copied):
    assert checks.check_site(databases=["default"]) == [
        Warning(
            "The database is a copy of another site's, or has been moved.",
            hint="It shares nothing with that site's cache, but has its accounts. Run manage.py wechat_token new-site "
            "if that site goes on, manage.py wechat_token same-site if this is that site, moved.",
            id="wechat_token.W013",
        )
    ]


def test_check_site__only_where_the_database_is_asked_about(copied):
    assert checks.check_site() == []
    assert checks.check_site(databases=["other"]) == []
    assert "wechat_token.W013" not in {message.id for message in run()}


def test_check_site__of_a_new_site_writes_nothing(db):
    assert checks.check_site(databases=["default"]) == []
    assert not Site.objects.exists()


def test_check_site__before_there_is_a_table(db):
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE wechat_token_site")
    assert checks.check_site(databases=["default"]) == []


def test_check_site__reading_sites_take_their_tokens_elsewhere(copied, settings):
    settings.WECHAT_TOKEN = {"REMOTE_URL": "https://tokens.example/wechat", "REMOTE_KEY": "x"}
    assert checks.check_site(databases=["default"]) == []


# -- W024

POSTGRES = {"ENGINE": "django.db.backends.postgresql", "HOST": "db.example.com"}
MEMCACHED = "django.core.cache.backends.memcached.PyMemcacheCache"
MYSQL = {"ENGINE": "django.db.backends.mysql", "HOST": "10.0.0.5"}


@pytest.fixture
def broker(monkeypatch):
    def broker(**conf):
        app = Celery(set_as_current=False)
        app.conf.update(conf)
        monkeypatch.setattr(plaintext, "current_app", app)

    broker(broker_url="memory://")
    return broker


def hosts():
    return [re.search(r"leads to (\S+) without", message.msg)[1] for message in checks.check_tls()]


def test_check_tls__message_has_the_host_and_no_password(settings, monkeypatch, broker):
    broker(broker_url="amqp://me:canary-password@mq.example.com:5672//")
    assert checks.check_tls() == [
        Warning(
            "CELERY_BROKER_URL leads to mq.example.com without TLS.",
            hint="Whoever is on the way reads its password and may write there (docs/security.md). PostgreSQL: "
            "'sslmode': 'verify-full'; MySQL: 'ssl_mode': 'VERIFY_IDENTITY'; Redis: rediss://; RabbitMQ: amqps://. "
            "Silence it where the network is the site's own.",
            id="wechat_token.W024",
        )
    ]


@pytest.mark.parametrize(
    ("database", "found"),
    [
        (POSTGRES, ["db.example.com"]),
        (POSTGRES | {"OPTIONS": {"sslmode": "prefer"}}, ["db.example.com"]),
        (POSTGRES | {"OPTIONS": {"sslmode": "verify-full"}}, []),
        (POSTGRES | {"OPTIONS": {"service": "tokens"}}, []),
        (POSTGRES | {"HOST": "/run/postgresql"}, []),
        (POSTGRES | {"HOST": ""}, []),
        (POSTGRES | {"HOST": "127.0.0.2"}, []),
        (POSTGRES | {"HOST": "::1"}, []),
        (MYSQL, ["10.0.0.5"]),
        (MYSQL | {"OPTIONS": {"ssl_mode": "PREFERRED"}}, ["10.0.0.5"]),
        (MYSQL | {"OPTIONS": {"ssl_mode": "VERIFY_IDENTITY"}}, []),
        (MYSQL | {"OPTIONS": {"ssl": {"ca": "/etc/ca.pem"}}}, []),
        (SQLITE, []),
    ],
)
def test_check_tls__database(settings, monkeypatch, broker, database, found):
    monkeypatch.delenv("PGSSLMODE", raising=False)
    monkeypatch.setitem(settings.DATABASES, "default", database)
    assert hosts() == found


@pytest.mark.parametrize(
    ("cache", "found"),
    [
        (REDIS | {"LOCATION": "redis://:canary@cache.example.com:6379/0"}, ["cache.example.com"]),
        (REDIS | {"LOCATION": ["redis://one.example", "rediss://two.example", "redis://localhost"]}, ["one.example"]),
        (REDIS | {"LOCATION": "rediss://cache.example.com"}, []),
        (REDIS | {"LOCATION": "unix:///run/redis.sock"}, []),
        (REDIS | {"LOCATION": "redis://a.example", "OPTIONS": {"CONNECTION_POOL_KWARGS": {"ssl": True}}}, []),
        ({"BACKEND": MEMCACHED, "LOCATION": "m.example:11211"}, ["m.example"]),
        ({"BACKEND": MEMCACHED, "LOCATION": "127.0.0.1:11211"}, []),
        ({"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "x.example"}, []),
    ],
)  # fmt: skip
def test_check_tls__cache(settings, broker, cache, found):
    settings.CACHES = {"default": cache}
    assert hosts() == found


@pytest.mark.parametrize(
    ("conf", "found"),
    [
        ({"broker_url": "redis://:canary@mq.example/1"}, ["mq.example"]),
        ({"broker_url": "redis://mq.example/1?ssl_cert_reqs=required"}, []),
        ({"broker_url": "rediss://mq.example/1"}, []),
        ({"broker_url": "sentinel://one.example:26379;sentinel://two.example:26379"}, ["one.example", "two.example"]),
        ({"broker_url": ["amqp://one.example", "amqps://two.example"]}, ["one.example"]),
        ({"broker_url": "amqp://mq.example", "broker_use_ssl": True}, []),
        ({"broker_url": "amqp://guest@localhost//"}, []),
        ({"broker_url": "sqs://aws"}, []),
    ],
)
def test_check_tls__broker(settings, broker, conf, found):
    broker(**conf)
    assert hosts() == found
