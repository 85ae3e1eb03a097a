"""A whole site with secrets in it: database file, cache, broker, task results, admin, HTTP service, and a WeChat."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlencode

from asgiref.sync import async_to_sync
from celery.app.trace import build_tracer
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core import mail
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connections
from django.test import RequestFactory, override_settings

from example_project import broker
from wechat_token import (
    WeChatSession,
    arefresh_access_token,
    clock,
    get_access_token,
    refresh_access_token,
    tasks,
)
from wechat_token.client_keys.keys import make_key
from wechat_token.engine import Reason, refresh_each
from wechat_token.models import Account, RefreshLog, Token
from wechat_token.redaction import Secret
from wechat_token.sandbox import FakeWeChat, FakeWeChatServer

from .canaries import Canaries
from .recorder import Recorder
from .site import (
    APPIDS,
    ENCRYPTION_KEY,
    ODD,
    ODD_SECRET,
    PLAIN,
    PLAIN_SECRET,
    PROXY_PASSWORD,
    Answer,
    Shy,
    celery_app,
    database_file,
    new_process,
    through_a_server,
)

CSRF = "c" * 32

_SPOILT = (
    "UPDATE wechat_token_token SET due_at = '2020-01-01', lease_until = NULL, lease_owner = '', failures = 0, "
    "complaints = '{}', probe_after = NULL, usage = '{}', forced_at = NULL, alerted_at = NULL, "
    "revision = revision + 1, "
)


class Scene:
    """``exercise()`` uses the site in every way it is used; ``recorder`` and the folder keep what that left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recorder = Recorder()
        self.canaries = Canaries()
        self.fake = FakeWeChat(seed="secrecy")
        self.answers: list[Answer] = []
        self.objects: list[Any] = []
        self.eager: list[str] = []
        self.keys: dict[str, Secret] = {}
        self.service_only = False
        self.is_locked = False  # the database, whenever it is used
        self.repairs: list[Callable[[], object]] = []
        self.held: dict[str, Secret] = {}
        self.presented = Secret("")  # the client key that the service's callers send
        self.complained_about: Secret | None = None  # instead of the current token
        self.sentry: list[Any] = []
        self.stack = ExitStack()
        self._lock: sqlite3.Connection | None = None

    def __repr__(self) -> str:
        return "<Scene>"

    # -- building it -------------------------------------------------------------------------------

    @contextmanager
    def open(self, template: Path) -> Iterator[Scene]:
        with self.stack as stack:
            mail.outbox.clear()
            stack.enter_context(self.recorder.recording())
            self.database = self.folder / "site.sqlite3"
            shutil.copy(template, self.database)
            stack.enter_context(database_file(self.database))
            stack.callback(self._settle)
            self.wsgi = WSGIHandler()
            self.server = stack.enter_context(FakeWeChatServer(self.fake))
            self.wechat_token: dict[str, Any] = {}
            self.override(
                ADMINS=[("operator", "operator@example.com")],
                CACHES={
                    "default": {
                        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
                        "LOCATION": str(self.folder / "cache"),
                    }
                },
            )
            self.configure(
                API_BASE_URL=self.server.url, ENCRYPTION_KEYS=[ENCRYPTION_KEY.reveal()], REQUEST_DEADLINE=2.0,
                LEASE_MARGIN=1.0, WAIT_TIMEOUT=10.0, MEMORY_SECONDS=0.0,
            )  # fmt: skip
            (self.folder / "results").mkdir()
            self.use_broker(broker.URL)
            new_process()
            stack.callback(new_process)
            self._fill()
            yield self

    def override(self, **settings: Any) -> None:
        self.stack.enter_context(override_settings(**settings))

    def configure(self, **values: Any) -> None:
        self.wechat_token |= values
        self.override(WECHAT_TOKEN=self.wechat_token)

    def use_broker(self, url: str) -> None:
        self.celery = self.stack.enter_context(celery_app(self.folder, url))

    def _fill(self) -> None:
        self.canaries.plant("encryption key", ENCRYPTION_KEY.reveal())
        self.canaries.plant("proxy password", PROXY_PASSWORD.reveal())
        for appid, secret, endpoint in ((PLAIN, PLAIN_SECRET, "stable"), (ODD, ODD_SECRET, "classic")):
            self.fake.add_account(appid, secret.reveal())
            self.canaries.plant(f"AppSecret {endpoint}", secret.reveal())
            Account.objects.create(appid=appid, secret=secret, name="shop", endpoint=endpoint)
        accounts = list(Account.objects.all())
        now = clock.now()
        self._make_key("live", accounts, may_refresh=True)
        self._make_key("reading", accounts)
        self._make_key("all", [], all_accounts=True)
        self._make_key("expired", accounts, expires_at=now)
        self._make_key("elsewhere", accounts, networks="192.0.2.0/24")
        self._make_key("other accounts", [])
        self._make_key("revoked", accounts).objects.filter(name="revoked").update(revoked_at=now)
        self.presented = self.keys["live"]
        operator = User.objects.create_superuser("operator", "operator@example.com", "x")
        session = SessionStore()
        session["_auth_user_id"] = str(operator.pk)
        session["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
        session["_auth_user_hash"] = operator.get_session_auth_hash()
        session.save()
        self.session = str(session.session_key)

    def _make_key(self, name: str, accounts: list[Account], **rights: Any) -> Any:
        key, plain = make_key(name, accounts=accounts, **rights)
        self.keys[name] = plain
        # Its first eight characters are shown on purpose; the mark before them would make twelve.
        self.canaries.plant(f"client key, {name}", plain.reveal().removeprefix("wxt_"))
        return type(key)

    # -- keeping it in hand ------------------------------------------------------------------------

    def spoil(self, *, tokens: bool) -> None:
        """Everything due at once, without a memory of earlier failures; ``tokens``: none in hand either."""
        self._settle()
        self.unlock_database()
        new_process()
        with closing(sqlite3.connect(self.database)) as raw, suppress(sqlite3.OperationalError):  # the table is gone
            raw.execute("PRAGMA synchronous=OFF")
            raw.execute(_SPOILT + ("expires_at = '2020-01-01', rejected_version = 0" if tokens else "kind = kind"))
            raw.commit()
        shutil.rmtree(self.folder / "cache", ignore_errors=True)
        if self.is_locked:
            self.lock_database()

    def _settle(self) -> None:
        """Let flights and work in the background end."""
        for _ in range(1000):
            if not any(thread.name.startswith("wechat_token-") for thread in threading.enumerate()):
                return
            time.sleep(0.005)

    def current_token(self, appid: str) -> str:
        return Token.objects.get(account__appid=appid).value.reveal()

    def impatient_database(self) -> None:
        """Connections wait for a lock for a moment only."""
        connections.settings["default"]["OPTIONS"]["timeout"] = 0.02
        connections["default"].close()

    def lock_database(self) -> None:
        """Keep everybody from writing until the scene begins anew."""
        if self._lock is None:
            self._lock = sqlite3.connect(self.database, timeout=0, isolation_level=None, check_same_thread=False)
            self._lock.execute("BEGIN IMMEDIATE")
            self.stack.callback(self.unlock_database)

    def unlock_database(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    def repair(self) -> None:
        """Make the database readable, for those who look for what is left in it."""
        self.is_locked = False
        self.unlock_database()
        for step in self.repairs:
            step()

    def plant_tokens(self) -> None:
        for appid in APPIDS:
            for token in self.fake._vault.of(appid):
                self.canaries.plant(f"token of {appid}", token.text)

    # -- using it ----------------------------------------------------------------------------------

    def attempt(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        try:
            self.objects.append(work(*args, **kwargs))
        except Exception as error:  # of any kind: what it gives away is the question
            self.recorder.errors.append(error)

    def warm_up(self) -> None:
        """All is well at first: both accounts hold a token."""
        self.spoil(tokens=True)
        for appid in APPIDS:
            self.held[appid] = self.read(appid)

    def exercise(self) -> None:
        """Every way to a token: functions, session, tasks, site views, HTTP service, admin."""
        if not self.service_only:
            self._use_functions()
            self._use_tasks()
            self._use_views()
        self.spoil(tokens=False)
        self.use_service()
        if not self.service_only:
            self.spoil(tokens=False)
            self.use_admin()
        self._settle()

    def _use_functions(self) -> None:
        self.spoil(tokens=True)
        self.attempt(self.read, PLAIN)
        self.attempt(self.read, ODD)
        self.spoil(tokens=False)
        for appid in APPIDS:
            self.attempt(self.complain, appid)
            self.attempt(self.call, appid)
        self.spoil(tokens=False)
        for appid in APPIDS:
            self.attempt(async_to_sync(self.acomplain), appid, self._stale(appid))
        self.spoil(tokens=True)
        self.attempt(self.refresh)

    def _use_tasks(self) -> None:
        self.spoil(tokens=True)
        self.run_task(tasks.refresh_due_tokens.name)
        self.spoil(tokens=True)
        self.run_task("site.publish", PLAIN)
        self.run_task("site.publish", ODD)

    def _use_views(self) -> None:
        for way, appid in (("complain", PLAIN), ("call", ODD)):
            self.spoil(tokens=way != "complain")
            self.http("GET", f"/site/{appid}/{way}", headers=self.bearer)

    def read(self, appid: str) -> Secret:
        return Secret(get_access_token(appid))

    def complain(self, appid: str) -> Secret:
        return Secret(refresh_access_token(appid, stale_token=self._stale(appid).reveal()))

    async def acomplain(self, appid: str, stale: Secret) -> Secret:
        return Secret(await arefresh_access_token(appid, stale_token=stale.reveal()))

    def call(self, appid: str) -> Any:
        with WeChatSession(appid) as wx:
            self.objects.append(wx)
            return wx.get("/cgi-bin/user/info", params={"openid": "o1"})

    def refresh(self) -> Any:
        return refresh_each(list(Token.objects.values_list("account__ref", "kind")), reason=Reason.COMMAND)

    def _stale(self, appid: str) -> Secret:
        if self.complained_about is not None:
            return self.complained_about
        try:
            return Secret(self.current_token(appid))
        except Exception:  # the database or its key is gone
            return self.held[appid]

    # -- tasks -------------------------------------------------------------------------------------

    def run_task(self, name: str, *args: Any) -> None:
        """Send it, trace it as a worker does with its result stored, and run it eagerly."""
        task = self.celery.tasks[name]
        try:
            sent = task.apply_async(args, ignore_result=False, retry=False)
        except Exception as error:  # the broker is down
            self.recorder.errors.append(error)
            return
        self.objects.append(sent)
        request = {"id": sent.id, "task": name, "ignore_result": False, "delivery_info": {"routing_key": "celery"}}
        build_tracer(name, task, app=self.celery)(sent.id, args, {}, request)
        eager = task.apply(args)
        self.eager += [repr(eager), repr(eager.result), str(eager.result), str(eager.traceback), repr(eager.info)]
        self.eager += [repr(sent.result), str(sent.traceback), repr(sent.info)]

    # -- HTTP --------------------------------------------------------------------------------------

    @property
    def bearer(self) -> Mapping[str, str]:
        return Shy(Authorization=f"Bearer {self.presented.reveal()}")

    def http(
        self, method: str, path: str, body: bytes | str = b"", *, content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """One request through the site's WSGI application, as a server would make it."""
        environ = RequestFactory(headers=headers).generic(method, path, body, content_type).environ
        started: list[Any] = []
        chunks = self.wsgi(environ, lambda status, fields, exc_info=None: started.extend((status, fields)))
        try:
            content = b"".join(chunks)
        finally:
            chunks.close()
        answer = Answer(f"{method} {path.partition('?')[0]}", int(started[0][:3]), tuple(started[1]), content)
        self.answers.append(answer)
        return answer

    def use_service(self) -> None:
        for appid in APPIDS:
            rest = f"/wechat/accounts/{appid}/access_token"
            wechat = {"grant_type": "client_credential", "appid": appid, "secret": self.presented.reveal()}
            self.http("GET", rest, headers=self.bearer)
            self.http("POST", f"{rest}/refresh", self._complaint(appid), headers=self.bearer)
            self.spoil(tokens=True)
            self.http("GET", f"/wechat/cgi-bin/token?{urlencode(wechat)}")
            through_a_server(self.wsgi, f"/wechat/cgi-bin/token?{urlencode(wechat)}")
            self.http("POST", "/wechat/cgi-bin/stable_token", json.dumps(wechat | {"force_refresh": True}))
            del wechat
        self.http("GET", "/wechat/health")
        self.http("GET", "/wechat/health", headers=self.bearer)
        self.http("GET", "/wechat/openapi.json")

    def _complaint(self, appid: str) -> str:
        return json.dumps({"stale_token": self._stale(appid).reveal()})

    def admin(self, path: str, form: dict[str, Any] | None = None) -> Answer:
        headers = {"Cookie": f"sessionid={self.session}; csrftoken={CSRF}"}
        if form is None:
            return self.http("GET", f"/admin/{path}", headers=headers)
        body = urlencode(form | {"csrfmiddlewaretoken": CSRF})
        return self.http(
            "POST", f"/admin/{path}", body, content_type="application/x-www-form-urlencoded", headers=headers
        )

    def use_admin(self) -> None:
        """Refresh by hand, and enter AppSecrets: what was typed, and whatever becomes of it."""
        for account in Account.objects.defer("secret"):
            self.admin(f"wechat_token/account/{account.pk}/refresh/", {})
            form = {"appid": account.appid, "name": "shop", "endpoint": account.endpoint, "is_active": "on"}
            secret = PLAIN_SECRET if account.appid == PLAIN else ODD_SECRET
            self.admin(f"wechat_token/account/{account.pk}/change/", form | {"secret": secret.reveal()})
        with mock.patch.dict("os.environ", WECHAT_SECRET=PLAIN_SECRET.reveal()):
            self.attempt(call_command, "wechat_token", "add-account", "wx5ec7e7c0ffee0003")

    # -- what happened -----------------------------------------------------------------------------

    def marks(self) -> set[str]:
        """Words for what became of it, by which a failure proves that it took place."""
        found = {type(error).__name__ for error in self.recorder.errors} | self.recorder.messages
        for answer in self.answers:
            found |= {f"HTTP {answer.status}", f"errcode {answer.json.get('errcode')}"}
            error = answer.json.get("error")
            found.add(str(error.get("code")) if isinstance(error, dict) else "")
        try:
            found |= set(RefreshLog.objects.values_list("outcome", flat=True))
            found |= {f"upstream {code}" for code in RefreshLog.objects.values_list("errcode", flat=True) if code}
        except Exception as error:
            found.add(type(error).__name__)
        return found
