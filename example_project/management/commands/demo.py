"""``manage.py demo``: all of wechat_token on this machine, no server to install, nothing left behind."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from example_project.demo import content, environment, processes, words
from example_project.demo.content import Content
from example_project.demo.environment import HOST
from example_project.demo.processes import Children, StopRequest
from example_project.demo.watch import Reader, Renewals
from wechat_token.sandbox import FakeWeChat, FakeWeChatServer

UP_SECONDS = 45.0  # for a slow machine under load; usually it takes three
LOOK_EVERY = 0.2
SHORTEST_LIFE, LONGEST_LIFE = 10, 7200


# The names of these three stand in argparse's messages.
def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < 10**7:
        raise argparse.ArgumentTypeError("a positive number of seconds")
    return number


def life(text: str) -> int:
    number = int(text)
    if not SHORTEST_LIFE <= number <= LONGEST_LIFE:
        raise argparse.ArgumentTypeError(f"from {SHORTEST_LIFE} to {LONGEST_LIFE} seconds")
    return number


class Command(BaseCommand):
    help = (
        "Runs everything on this machine for you to look at: a fake WeChat whose tokens live for a minute, "
        "the web server with admin and token service, a Celery worker and beat. Scratch data only, gone at "
        "the end. With WECHAT_APPID and WECHAT_SECRET set it uses the real WeChat (or WECHAT_API_BASE_URL)."
    )
    requires_system_checks = ()  # they would judge the user's environment, which the demo does not use

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--port",
            type=port,
            default=8000,
            help="of the web server; 0 takes a free one (default: %(default)s)",
        )
        parser.add_argument("--seconds", type=seconds, help="end after so long (default: when interrupted)")
        parser.add_argument(
            "--life",
            type=life,
            default=60,
            help="of the fake WeChat's tokens, in seconds (default: %(default)s)",
        )
        parser.add_argument(
            "--folder", help="where the scratch folder is made (default: the system's temporary folder)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        port, seconds, life = options["port"], options["seconds"], options["life"]
        if not environment.is_prepared():
            arguments = ["--port", str(environment.check_port(port)), "--life", str(life)]
            if seconds is not None:
                arguments += ["--seconds", str(seconds)]
            environment.enter(arguments, options["folder"])
        if isinstance(sys.stdout, io.TextIOWrapper):  # a pipe or a file gets each line at once, whatever is in it
            sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
        try:
            self._run(port, seconds, life)
        except BrokenPipeError:  # nobody reads on, as in `demo | head`; everything is put away already
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None

    def _run(self, port: int, seconds: float | None, life: int) -> None:
        started = time.monotonic()
        real = environment.wants_real_wechat()
        with contextlib.ExitStack() as stack:
            stop = stack.enter_context(StopRequest())
            folder = stack.enter_context(environment.scratch_folder())
            stack.enter_context(own_log(folder / "demo.log"))
            stack.callback(connections.close_all)
            self.stdout.write("Starting the database, web server, Celery worker and beat ...")
            fake = None if real else stack.enter_context(fake_wechat(life))
            call_command("migrate", interactive=False, verbosity=0)
            shown = content.create(fake)
            children = stack.enter_context(Children(folder / "logs"))
            start_all(children, port)
            renewals = Renewals()
            if not self._wait_until_up(children, shown, renewals, port, stop):
                self.stdout.write("Stopped before everything was up.")
                return
            self.stdout.write(f"Everything is up after {time.monotonic() - started:.1f} s.")
            for line in words.introduction(shown, port, life, real=real):
                self.stdout.write(line)
            with Reader([account.appid for account in shown.accounts], fake) as reader:
                self._follow(children, renewals, stop, seconds)
            self.stdout.write("\n" + words.verdict(shown, renewals, reader, fake))
            if seconds is not None and not stop.requested:
                renewals_due = fake is not None and seconds > 1.2 * life
                judge(shown, renewals, reader, renewals_due=renewals_due)

    def _wait_until_up(
        self, children: Children, shown: Content, renewals: Renewals, port: int, stop: StopRequest
    ) -> bool:
        """Until the web server answers and the worker has tried each account; False if told to stop."""
        wanted = {account.appid for account in shown.accounts}
        deadline = time.monotonic() + UP_SECONDS
        web = False
        while not stop.requested:
            children.check()
            web = web or processes.answers(HOST, port, "/admin/login/")
            self._tell(renewals)
            if web and wanted <= renewals.tried:
                return True
            if time.monotonic() > deadline:
                raise CommandError(f"Not up after {UP_SECONDS:.0f} s. The last words of all:\n{children.last_words()}")
            time.sleep(LOOK_EVERY)
        return False

    def _follow(self, children: Children, renewals: Renewals, stop: StopRequest, seconds: float | None) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        while not stop.requested and (deadline is None or time.monotonic() < deadline):
            children.check()
            self._tell(renewals)
            time.sleep(LOOK_EVERY)

    def _tell(self, renewals: Renewals) -> None:
        for line in renewals.news():
            self.stdout.write(line)


@contextlib.contextmanager
def fake_wechat(life: int) -> Iterator[FakeWeChat]:
    """Its overlap is short as its tokens' life, so that they really die; its window is the one R6 assumes."""
    fake = FakeWeChat(life=life, overlap=life / 6, window=life / 3)
    server = FakeWeChatServer(fake, HOST, environment.fake_port())
    try:
        server.start()
    except OSError as error:
        raise CommandError(f"The port of the fake WeChat was taken just now ({error.strerror}). Start again.") from None
    try:
        yield fake
    finally:
        server.stop()


def start_all(children: Children, port: int) -> None:
    children.start("web server", "manage.py", "runserver", "--noreload", f"{HOST}:{port}", debug=True)
    # Threads, for an end without stragglers; and a single worker has nobody to gossip with.
    children.start(
        "Celery worker",
        *processes.celery("worker", "--pool", "threads", "--concurrency", "2"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    )
    children.start("Celery beat", *processes.celery("beat"))


@contextlib.contextmanager
def own_log(path: Path) -> Iterator[None]:
    """This process' own log lines go beside its children's, not between the lines for the user."""
    logger = logging.getLogger("wechat_token")
    handler = logging.FileHandler(path, encoding="utf-8")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def judge(shown: Content, renewals: Renewals, reader: Reader, *, renewals_due: bool) -> None:
    """Raise ``CommandError`` if the run did not show what it is to show."""
    for account in shown.accounts:
        if account.appid not in renewals.first:
            raise CommandError(f"{account.appid} never got a token; the lines above say why.")
        if renewals_due and not renewals.renewed[account.appid]:
            raise CommandError(f"The token of {account.appid} was not renewed once.")
    if reader.dead:
        raise CommandError(f"{reader.dead} of {reader.reads} reads got a dead token.")
    if reader.missing:
        raise CommandError(f"{reader.missing} reads got no token.")
