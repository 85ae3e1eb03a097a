"""A night on call: a whole site, one fault after another, and what its webhook was told, when, and by which cause.

While the faults last, the web servers get one request a minute; nobody else does anything.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from .crew import CELERY, Crew
from .link import Link
from .site import SECRET, Site, live_site

TOLD_WITHIN: Final = 90.0  # seconds
OVER_WITHIN: Final = 240.0
QUIET: Final = 45.0  # seconds after the start in which nothing is to be told
MANY: Final = [f"wx0000000many{number:05}" for number in range(206)]
CLASSIC, SHARED, WRONG, LIED = "wx0000000classic1", "wx000000000shared", "wx00000000wrong01", "wx000000000lied01"
SETUP: Final = """
from wechat_token import clock
from wechat_token.models import Account, Token
accounts = Account.objects.bulk_create(
    [Account(appid=a, ref=a, secret={secret!r}, endpoint=e) for a, e in {accounts!r}.items()])
Token.objects.bulk_create([Token(account=account, due_at=clock.now()) for account in Account.objects.all()])
"""
# What ``doctor`` says where it looks for itself.
DOCTORS_WORDS: Final = {
    "whitelist/": "whitelist", "another-system/": "Another system", "complaints-refused": "Complaints about",
    "cache-down": "fails:", "wechat-unreachable": "WeChat: http",
}  # fmt: skip


@dataclass
class Told:
    at: float
    body: dict[str, Any]


@dataclass
class Receiver:
    """Listens for alerts, as an operator's own webhook."""

    told: list[Told] = field(default_factory=list)

    @contextmanager
    def listening(self) -> Iterator[str]:
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.append(Told(time.monotonic(), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/night"
        finally:
            server.shutdown()
            server.server_close()

    def wait(self, event: str, causes: tuple[str, ...], since: float, seconds: float) -> Told | None:
        give_up_at = since + seconds
        while time.monotonic() < give_up_at:
            for told in list(self.told):
                if told.at >= since and told.body["event"] == event and told.body["cause"].startswith(causes):
                    return told
            time.sleep(0.2)
        return None


@dataclass(frozen=True)
class Fault:
    """``causes``: what its message may be about. ``happens``: from beginning to end."""

    name: str
    causes: tuple[str, ...]
    happens: Callable[[], AbstractContextManager[None]]
    together: bool = False  # does no harm to others: all of these happen at once


@dataclass
class Found:
    fault: Fault
    told: float | None = None
    text: str = ""
    host: str = ""
    over: float | None = None
    doctor: bool = False
    health: bool = False

    @property
    def is_kept(self) -> bool:
        return (
            self.told is not None and self.told <= TOLD_WITHIN and self.over is not None and self.health and self.doctor
        )


class Night:
    def __init__(
        self, site: Site, crew: Crew, receiver: Receiver, links: list[Link], urls: list[str], key: str
    ) -> None:
        self.site, self.crew, self.receiver, self.urls, self.key = site, crew, receiver, urls, key
        self.wechat, self.redis = links[0], links[1:]
        self.faults = [
            Fault("worker dead", ("worker-silent",), lambda: self.dead("worker")),
            Fault("beat dead", ("beat-silent",), lambda: self.dead("beat")),
            Fault("wrong key on one host", ("secrets-unreadable",), self.wrong_key),
            Fault("database read-only", ("database-read-only",), site.database.read_only),
            Fault("WeChat unreachable", ("wechat-unreachable",), lambda: self.down(self.wechat)),
            Fault("Redis down", ("cache-down", "broker-unreachable"), lambda: self.down(*self.redis)),
            Fault("206 accounts: whitelist", ("whitelist/",), self.whitelist, together=True),
            Fault("wrong AppSecret", ("refused/40125", "refused/40001"), self.wrong_secret, together=True),
            Fault("quota near its end", ("quota-near",), self.quota, together=True),
            Fault("another system fetches", ("another-system/",), self.another_system, together=True),
            Fault("complaints refused", ("complaints-refused",), self.lies, together=True),
            Fault("client key about to end", ("client-key-ends",), self.key_ends, together=True),
        ]

    # -- the faults --------------------------------------------------------------------------------

    @contextmanager
    def dead(self, name: str) -> Iterator[None]:
        self.crew.kill(name)
        yield
        self.crew.start(name)

    @contextmanager
    def wrong_key(self) -> Iterator[None]:
        self.crew.kill("web-2")
        self.crew.start("web-2-wrong")
        yield
        self.crew.kill("web-2-wrong")
        self.crew.start("web-2")

    @contextmanager
    def down(self, *links: Link) -> Iterator[None]:
        for link in links:
            link.down()
        yield
        for link in links:
            link.up()

    @contextmanager
    def whitelist(self) -> Iterator[None]:
        for appid in MANY:
            self.site.fake.set_ip_whitelist(appid, ["192.0.2.1"])
        self.due("Token.objects.filter(account__appid__contains='many')")
        yield
        for appid in MANY:
            self.site.fake.set_ip_whitelist(appid, None)
        self.due("Token.objects.filter(account__appid__contains='many')")

    @contextmanager
    def wrong_secret(self) -> Iterator[None]:
        self.site.fake.reset_secret(WRONG, "another-secret-0123456789abcdef0")
        self.due(f"Token.objects.filter(account__appid={WRONG!r})")
        yield
        self.site.fake.reset_secret(WRONG, SECRET)
        self.due(f"Token.objects.filter(account__appid={WRONG!r})")

    @contextmanager
    def quota(self) -> Iterator[None]:
        change = (
            "from wechat_token.models import Token; token = Token.objects.get(account__appid={!r});"
            "token.usage['classic'] = {}; Token.objects.filter(pk=token.pk).update(usage=token.usage)"
        )
        self.site.shell(change.format(CLASSIC, 1700))
        yield
        self.site.shell(change.format(CLASSIC, 10))

    @contextmanager
    def another_system(self) -> Iterator[None]:
        url = f"{self.site.env['WECHAT_API_BASE_URL']}/cgi-bin/token?grant_type=client_credential&appid={SHARED}"
        token = self.site.shell(f"from wechat_token import get_access_token; print(get_access_token({SHARED!r}))")
        for _ in range(2):  # the second ends the overlap that the first one left to ours
            urllib.request.urlopen(f"{url}&secret={SECRET}", timeout=5).close()
        time.sleep(6)
        self.site.shell(
            "from wechat_token import refresh_access_token;"
            f"refresh_access_token({SHARED!r}, stale_token={token.strip()!r})"
        )
        yield
        self.site.shell(  # as if a day had passed
            "from wechat_token.models import Token; Token.objects.update(foreign_at=None)"
        )

    @contextmanager
    def lies(self) -> Iterator[None]:
        over = threading.Event()

        def lie() -> None:
            path = f"{self.urls[0]}/wechat/accounts/{LIED}/access_token"
            while not over.wait(2.1):
                with_key = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
                try:
                    with urllib.request.urlopen(urllib.request.Request(path, headers=with_key), timeout=20) as answer:
                        token = json.load(answer)["access_token"]
                    body = json.dumps({"stale_token": token}).encode()
                    request = urllib.request.Request(f"{path}/refresh", body, with_key, method="POST")
                    urllib.request.urlopen(request, timeout=20).close()
                except OSError:
                    pass

        thread = threading.Thread(target=lie, daemon=True)
        thread.start()
        yield
        over.set()
        thread.join(timeout=30)
        self.site.shell(  # as if ten minutes had passed
            "from wechat_token.models import Token; Token.objects.update(complaints_refused_at=None)"
        )

    @contextmanager
    def key_ends(self) -> Iterator[None]:
        change = (
            "from wechat_token import clock; from wechat_token.models import ClientKey; import datetime as dt;"
            "ClientKey.objects.filter(name='crm').update(last_used_at=clock.now(), expires_at={})"
        )
        self.site.shell(change.format("clock.now() + dt.timedelta(days=3)"))
        yield
        self.site.shell(change.format("None"))

    def due(self, tokens: str) -> None:
        self.site.shell(
            "from wechat_token import clock; from wechat_token.models import Token;"
            f"from django.db.models import F; {tokens}.update(due_at=clock.now(), revision=F('revision') + 1)"
        )

    # -- what is seen ------------------------------------------------------------------------------

    def health_names(self, causes: tuple[str, ...]) -> bool:
        """Whether the health view of some web server names the cause to whoever has a key."""
        for url in self.urls:
            request = urllib.request.Request(f"{url}/wechat/health", headers={"Authorization": f"Bearer {self.key}"})
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    body = json.load(answer)
            except urllib.error.HTTPError as refused:
                body = json.load(refused)
            except OSError:
                continue
            if any(problem["id"].startswith(causes) for problem in body.get("problems", ())):
                return True
        return False

    def doctor_names(self, text: str, fault: Fault) -> bool:
        """Whether ``doctor`` says the same, or names the account and its code."""
        try:
            told = self.site.run("manage.py", "wechat_token", "doctor", timeout=120)
        except RuntimeError as unhealthy:
            told = str(unhealthy)
        shown = [DOCTORS_WORDS.get(cause, text[:26]) for cause in fault.causes]
        return any(word in told for word in shown) or (fault.name == "wrong AppSecret" and WRONG in told)


def run(database: str, only: str = "") -> bool:
    receiver = Receiver()
    with ExitStack() as stack:
        hook = stack.enter_context(receiver.listening())
        settings = {"ALERT_WEBHOOKS": [hook], "OVERLAP": 5}
        site = stack.enter_context(
            live_site(database, redis=True, broker="redis", overlap=5, settings=settings, linked=True)
        )
        upstream = urlsplit(site.env["WECHAT_API_BASE_URL"])
        wechat = stack.enter_context(Link(upstream.hostname or "127.0.0.1", upstream.port or 80))
        site.env["WECHAT_API_BASE_URL"] = f"http://127.0.0.1:{wechat.port}"
        accounts = dict.fromkeys([*MANY, WRONG, LIED], "stable") | {CLASSIC: "classic", SHARED: "classic"}
        for appid in accounts:
            site.fake.add_account(appid, SECRET)
        site.shell(SETUP.format(secret=SECRET, accounts=accounts))
        key = site.add_key("monitor", "--all-accounts", "--may-refresh")
        site.add_key("crm", "--account", LIED)
        crew = Crew(site)
        crew.add("worker", *CELERY, "worker", "--concurrency", "2", "--loglevel", "warning")
        crew.add("beat", *CELERY, "beat", "--pidfile=")
        urls = [_add_web(crew, "web"), _add_web(crew, "web-2")]
        _add_web(crew, "web-2-wrong", url=urls[1], env={"DJANGO_SECRET_KEY": "another one, of an older deployment"})
        for name in ("worker", "beat", "web", "web-2"):
            crew.start(name)
        stack.callback(crew.stop)
        stack.enter_context(_a_request_a_minute(urls))
        night = Night(site, crew, receiver, [wechat, site.links["cache"], site.links["broker"]], urls, key)
        return _live_through(night, [fault for fault in night.faults if only in fault.name])


def _add_web(crew: Crew, name: str, *, url: str = "", env: dict[str, str] | None = None) -> str:
    from .crew import free_port

    url = url or f"http://127.0.0.1:{free_port()}"
    crew.add(
        name, "-m", "gunicorn", "example_project.wsgi", "--bind", urlsplit(url).netloc, "--workers", "2",
        "--threads", "4", "--log-level", "warning", env=env,
    )  # fmt: skip
    return url


@contextmanager
def _a_request_a_minute(urls: list[str]) -> Iterator[None]:
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            for url in urls:
                with suppress(OSError):
                    urllib.request.urlopen(f"{url}/wechat/health/live", timeout=5).close()
            over.wait(60)

    threading.Thread(target=ask, daemon=True).start()
    yield
    over.set()


def _live_through(night: Night, faults: list[Fault]) -> bool:
    time.sleep(QUIET)
    early = [told.body["cause"] for told in night.receiver.told]
    print(f"quiet for {QUIET:.0f} s: {early or 'nothing told'}", flush=True)
    found = []
    for fault in faults:
        if not fault.together:
            found += _happen(night, [fault])
    together = [fault for fault in faults if fault.together]
    if together:
        found += _happen(night, together)
    expected = tuple(cause for fault in faults for cause in fault.causes)
    others = [told.body["cause"] for told in night.receiver.told if not told.body["cause"].startswith(expected)]
    many = [told.body["event"] for told in night.receiver.told if told.body["cause"].startswith("whitelist/")]
    print(f"messages about 206 accounts: {many}; about anything else than the faults: {others or 'none'}")
    asked_for_many = any(fault.name.startswith("206") for fault in faults)
    return not early and all(one.is_kept for one in found) and (not asked_for_many or many == ["broken", "over"])


def _happen(night: Night, faults: list[Fault]) -> list[Found]:
    found = []
    with ExitStack() as stack:
        began = {}
        for fault in faults:
            began[fault.name] = time.monotonic()
            stack.enter_context(fault.happens())
        for fault in faults:
            one = Found(fault)
            found.append(one)
            told = night.receiver.wait("broken", fault.causes, began[fault.name], 2 * TOLD_WITHIN)
            if told is not None:
                one.told, one.text = told.at - began[fault.name], told.body["text"]
            one.health = night.health_names(fault.causes)
            one.doctor = night.doctor_names(one.text, fault)
        ended = time.monotonic()
    for one in found:
        over = night.receiver.wait("over", one.fault.causes, ended, OVER_WITHIN) if one.told is not None else None
        one.over = over.at - ended if over is not None else None
        print(
            f"{one.fault.name:26} told after {_seconds(one.told)}, over {_seconds(one.over)} after its end; "
            f"health {_names(one.health)}, doctor {_names(one.doctor)}: {one.text}",
            flush=True,
        )
    return found


def _names(cause: bool) -> str:
    return "names it" if cause else "SILENT"


def _seconds(seconds: float | None) -> str:
    return "NEVER" if seconds is None else f"{seconds:5.1f} s"
