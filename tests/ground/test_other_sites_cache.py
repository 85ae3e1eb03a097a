"""R32: a cache entry belongs to one site, whoever else has the same Redis, the same keys and the same AppID."""

from __future__ import annotations

import datetime as dt
import io
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.live import services
from wechat_token import get_access_token
from wechat_token.models import Account
from wechat_token.sandbox import FakeWeChat, FakeWeChatServer
from wechat_token.sandbox.testing import fake_wechat

from .caches import SETTING, SharedCache
from .looks import printed
from .site import SECRET, Ground, on
from .stage import ask, pause

Caches = dict[str, Any]


def files(folder: Path) -> Iterator[Caches]:
    yield {"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(folder)}}


def redis(folder: Path) -> Iterator[Caches]:
    run = f"ground{uuid.uuid4().hex[:12]}"
    options = {"socket_connect_timeout": 0.5, "socket_timeout": 0.5}
    yield {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": services.REDIS,
            "KEY_PREFIX": run, "OPTIONS": options,
        }
    }  # fmt: skip
    services.delete_keys(f"{run}*")


_no_redis = services.missing("redis")
REDIS = [pytest.mark.services] + ([pytest.mark.skip(reason=_no_redis)] if _no_redis else [])


@pytest.fixture(params=[files, pytest.param(redis, marks=REDIS)], ids=lambda make: make.__name__)
def caches(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Caches]:
    """The CACHES setting of everybody in the scene."""
    yield from request.param(tmp_path / "cache")


@pytest.fixture
def elsewhere() -> Iterator[FakeWeChatServer]:
    """What another site takes for WeChat."""
    with FakeWeChatServer(FakeWeChat(seed=2)) as server:
        yield server


def live_worker(appid: str) -> dict[str, Any]:
    """Scene: a web worker that has served the token, and goes on serving it."""
    from wechat_token import clock

    first = ask(appid)
    pause(first)
    clock.sleep(1.1)  # it looks at the cache again
    return ask(appid)


def served_meanwhile(ground: Ground, appid: str, caches: Caches, meanwhile: Callable[[], str]) -> None:
    """Nobody on the live site, now or later, gets what ``meanwhile`` gets."""
    live = ground.start(live_worker, appid, settings={"CACHES": caches})
    token = live.paused()["token"]
    other = meanwhile()
    assert other != token
    live.go_on()
    assert live.result()["token"] == token
    assert ground.play(ask, appid, settings={"CACHES": caches})["token"] == token


# -- tests, and a second site with a database of its own


@on("sqlite")
@pytest.mark.django_db(transaction=True)
def test_fake_wechat__token_reaches_no_live_site(ground: Ground, caches: Caches, settings: Any) -> None:
    appid = ground.account()
    settings.CACHES, settings.SECRET_KEY = caches, ground.site.env["DJANGO_SECRET_KEY"]

    def a_test_of_the_project() -> str:
        with fake_wechat(seed=2) as fake:
            fake.add_account(appid, SECRET)
            Account.objects.create(appid=appid, secret=SECRET)
            return get_access_token(appid)

    served_meanwhile(ground, appid, caches, a_test_of_the_project)


@pytest.mark.django_db(transaction=True)
def test_fake_wechat__touches_no_shared_cache(settings: Any) -> None:
    SharedCache.clear_all()
    settings.CACHES = SETTING
    with fake_wechat(seed=1) as fake:
        fake.add_account("wx0123456789abcdef", SECRET)
        account = Account.objects.create(appid="wx0123456789abcdef", secret=SECRET)
        assert get_access_token() == get_access_token(account.appid)
        account.delete()
    assert SharedCache.calls == []


@on("sqlite")
@pytest.mark.django_db(transaction=True)
def test_second_site__shares_the_cache_server_and_no_token(
    ground: Ground, caches: Caches, settings: Any, elsewhere: FakeWeChatServer
) -> None:
    """Staging: the same settings but for DATABASES, and the same AppID."""
    appid = ground.account()
    settings.CACHES, settings.SECRET_KEY = caches, ground.site.env["DJANGO_SECRET_KEY"]
    settings.WECHAT_TOKEN = {"API_BASE_URL": elsewhere.url}
    elsewhere.fake.add_account(appid, SECRET)

    def staging() -> str:
        Account.objects.create(appid=appid, secret=SECRET)
        token = get_access_token(appid)
        assert elsewhere.fake.is_valid(token)
        return token

    served_meanwhile(ground, appid, caches, staging)


# -- a copy of the database


def copied(ground: Ground, folder: Path) -> str:
    """The NAME of a copy of the site's database, made while nobody uses it."""
    name = ground.site.database.name
    if ground.vendor == "sqlite":
        path = str(folder / "staging.sqlite3")
        with closing(sqlite3.connect(name)) as source:
            source.execute("VACUUM INTO ?", [path])
        return path
    with services.admin("postgres") as execute:
        execute(f"CREATE DATABASE {name}_copy TEMPLATE {name}")
    return f"{name}_copy"


@pytest.fixture
def copy_of(tmp_path: Path) -> Iterator[Callable[[Ground], dict[str, Any]]]:
    """Makes a copy; the change to DATABASES that leads to it."""
    made: list[str] = []

    def make(ground: Ground) -> dict[str, Any]:
        name = copied(ground, tmp_path)
        if ground.vendor == "postgres":
            made.append(name)
        return {"default": {"NAME": name}}

    yield make
    for name in made:
        with services.admin("postgres") as execute:
            execute(f"DROP DATABASE {name} WITH (FORCE)")


def renewed(appid: str) -> dict[str, Any]:
    """Scene: by hand, some time after the last renewal."""
    from django.core.management import call_command

    from wechat_token import clock
    from wechat_token.models import Token

    Token.objects.update(sent_at=clock.now() - dt.timedelta(hours=1))
    call_command("wechat_token", "refresh", appid, stdout=io.StringIO())
    return ask(appid)


def said() -> dict[str, str]:
    """Scene: what an operator sees who looks."""
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.test import Client

    checked, boss = io.StringIO(), User.objects.filter(username="boss").first()
    with suppress(SystemExit):
        call_command("check", databases=["default"], stdout=checked, stderr=checked)
    admin = Client(SERVER_NAME="localhost")
    admin.force_login(boss or User.objects.create_superuser("boss"))
    page = admin.get("/admin/wechat_token/account/").content.decode()
    return {"check": checked.getvalue(), "doctor": printed("doctor"), "admin": page}


def manage(*command: str) -> str:
    """Scene."""
    from django.core.management import call_command

    out = io.StringIO()
    call_command("wechat_token", *command, stdout=out, stderr=out)
    return out.getvalue()


def speak_of_a_copy(found: dict[str, str]) -> dict[str, bool]:
    signs = {"check": "wechat_token.W013", "doctor": "new-site", "admin": "new-site"}
    return {name: sign in found[name] for name, sign in signs.items()}


ALL, NONE = (dict.fromkeys(("check", "doctor", "admin"), value) for value in (True, False))


@on("sqlite", "postgres")
def test_copy_of_the_database__keeps_to_itself_and_is_noticed(
    ground: Ground, tmp_path: Path, copy_of: Callable[[Ground], dict[str, Any]], elsewhere: FakeWeChatServer
) -> None:
    """A dump on staging has the id of the site it comes from. It goes on working, apart, until somebody settles it."""
    [caches] = files(tmp_path / "cache")
    appid = ground.account()
    elsewhere.fake.add_account(appid, SECRET)
    assert "token" in ground.play(ask, appid, settings={"CACHES": caches})
    copy = copy_of(ground)
    staging: dict[str, Any] = {
        "databases": copy, "settings": {"CACHES": caches}, "wechat": {"API_BASE_URL": elsewhere.url},
    }  # fmt: skip

    def renewed_on_staging() -> str:
        token = str(ground.play(renewed, appid, **staging)["token"])
        assert elsewhere.fake.is_valid(token)
        return token

    served_meanwhile(ground, appid, caches, renewed_on_staging)
    assert speak_of_a_copy(ground.play(said, **staging)) == ALL
    assert speak_of_a_copy(ground.play(said, settings={"CACHES": caches})) == NONE
    ground.play(manage, "new-site", **staging)
    assert speak_of_a_copy(ground.play(said, **staging)) == NONE
    served_meanwhile(ground, appid, caches, renewed_on_staging)


@on("sqlite")
def test_moved_database__says_so_and_works_until_same_site_settles_it(
    ground: Ground, tmp_path: Path, copy_of: Callable[[Ground], dict[str, Any]]
) -> None:
    [caches] = files(tmp_path / "cache")
    appid = ground.account("classic")
    token = ground.play(ask, appid, settings={"CACHES": caches})["token"]
    moved: dict[str, Any] = {"databases": copy_of(ground), "settings": {"CACHES": caches}}
    assert ground.play(ask, appid, **moved)["token"] == token
    assert speak_of_a_copy(ground.play(said, **moved)) == ALL
    ground.play(manage, "same-site", **moved)
    assert speak_of_a_copy(ground.play(said, **moved)) == NONE
    assert ground.play(ask, appid, **moved)["token"] == token
    assert ground.fake.calls_to(appid, "classic") == 1


# -- PAUSED: the way to run a copy


def paused_copy(appid: str) -> dict[str, Any]:
    """Scene: everything a site does of itself and is asked to do, on a dump whose token is still good."""
    from django.core.management.base import CommandError

    from wechat_token import clock, tasks
    from wechat_token.models import Account, Token

    answer = ask(appid)
    complaint = ask(appid, stale=answer.get("token", "none"))
    Token.objects.update(due_at=clock.now())
    tasks.refresh_due_tokens()
    with suppress(CommandError):
        manage("refresh", appid)
    account = Account.objects.get(appid=appid)
    account.secret = "another"
    account.save()
    again = ask(appid)
    Token.objects.update(version=0)
    clock.sleep(1.1)
    return {"answer": answer, "complaint": complaint, "again": again, "without": ask(appid)}


@on("sqlite")
def test_paused__copy_calls_nobody_and_serves_what_it_has(
    ground: Ground, tmp_path: Path, copy_of: Callable[[Ground], dict[str, Any]], elsewhere: FakeWeChatServer
) -> None:
    [caches] = files(tmp_path / "cache")
    appid = ground.account("classic")
    elsewhere.fake.add_account(appid, SECRET)
    token = ground.play(ask, appid, settings={"CACHES": caches})["token"]
    entries = sorted(path.read_bytes() for path in (tmp_path / "cache").iterdir())
    paused = ground.play(
        paused_copy, appid, databases=copy_of(ground), settings={"CACHES": caches},
        wechat={"API_BASE_URL": elsewhere.url, "PAUSED": True},
    )  # fmt: skip
    assert elsewhere.fake.calls == []
    assert paused["answer"]["token"] == token
    assert paused["again"]["token"] == token
    assert "TokenUnavailable" in paused["without"]["error"]
    assert "paused" in paused["without"]["text"].lower()
    assert sorted(path.read_bytes() for path in (tmp_path / "cache").iterdir()) == entries
    assert ground.play(ask, appid, settings={"CACHES": caches})["token"] == token


@pytest.mark.django_db(transaction=True)
def test_paused__touches_no_shared_cache(settings: Any) -> None:
    SharedCache.clear_all()
    with FakeWeChatServer(FakeWeChat(seed=1)) as server:
        server.fake.add_account("wx0123456789abcdef", SECRET)
        settings.WECHAT_TOKEN = {"API_BASE_URL": server.url}
        Account.objects.create(appid="wx0123456789abcdef", secret=SECRET)
        token = get_access_token()
        settings.CACHES = SETTING
        settings.WECHAT_TOKEN = {"API_BASE_URL": server.url, "PAUSED": True}
        with fake_wechat():
            pass  # forgets: the next read is that of a process that has just started
        assert get_access_token() == token
        Account.objects.all().delete()
    assert SharedCache.calls == []
