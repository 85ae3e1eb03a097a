"""Keeps what a process gives away while it works: log lines, prints, warnings, errors, reports, signals, events."""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import sys
import traceback
import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core import mail
from django.core.signals import got_request_exception
from django.utils.log import AdminEmailHandler
from django.views.debug import ExceptionReporter

from wechat_token import signals


class Recorder(logging.Handler):
    """Handles every log record of every logger at DEBUG; errors that are logged are kept as errors too."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.lines: dict[str, list[str]] = defaultdict(list)  # by the first name of the logger
        self.messages: set[str] = set()  # what the package has to say, before its arguments are filled in
        self.errors: list[BaseException] = []
        self.signals: list[dict[str, Any]] = []
        self.technical_pages: list[str] = []
        self.stdout, self.stderr = io.StringIO(), io.StringIO()
        self.warnings: list[warnings.WarningMessage] = []
        self._reported: set[str] = set()

    def __repr__(self) -> str:
        return "<Recorder>"

    def emit(self, record: logging.LogRecord) -> None:
        family = record.name.partition(".")[0]
        if family == "django" and record.name.count("."):
            family = ".".join(record.name.split(".")[:2])
        if record.name in ("wechat_token.security", "gunicorn.error"):
            family = record.name
        self.lines[family].append(f"{self.format(record)}\n{vars(record)!r}")
        if family.startswith("wechat_token"):
            self.messages.add(str(record.msg))
        # Templates that ask for what is not there, of which the admin has many, are no failures.
        if record.exc_info and record.exc_info[1] is not None and record.name != "django.template":
            self.errors.append(record.exc_info[1])

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(self.stdout))
            stack.enter_context(contextlib.redirect_stderr(self.stderr))
            self.warnings = stack.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            stack.enter_context(_everything_logged([self, _mail_handler()]))
            stack.callback(setattr, http.client.HTTPConnection, "debuglevel", http.client.HTTPConnection.debuglevel)
            http.client.HTTPConnection.debuglevel = 1
            for signal in (signals.refresh_finished, signals.attention_needed, signals.foreign_refresh_detected):
                signal.connect(self._on_signal)
                stack.callback(signal.disconnect, self._on_signal)
            got_request_exception.connect(self._on_request_exception)
            stack.callback(got_request_exception.disconnect, self._on_request_exception)
            yield

    def _on_signal(self, **payload: Any) -> None:
        self.signals.append(payload)

    def _on_request_exception(self, request: Any, **kwargs: Any) -> None:
        """What Django shows of a failed request: to the developer, and to the operator of a site in production."""
        kind, error, trace = sys.exc_info()
        assert error is not None
        self.errors.append(error)
        # Django renders every frame's source and locals: the same failure once more tells nothing new. With DEBUG
        # it also shows developers what they have just typed into the admin; docs/secrecy.md says so.
        failure = f"{kind} {traceback.format_tb(trace)}"
        if failure not in self._reported and not (request.method == "POST" and request.path.startswith("/admin/")):
            self._reported.add(failure)
            with _debug():
                reporter = ExceptionReporter(request, kind, error, trace)
                self.technical_pages += [reporter.get_traceback_html(), reporter.get_traceback_text()]


@contextlib.contextmanager
def _debug() -> Iterator[None]:
    """``override_settings`` would have every template compiled again."""
    before, settings.DEBUG = settings.DEBUG, True
    try:
        yield
    finally:
        settings.DEBUG = before


def _mail_handler() -> logging.Handler:
    handler = AdminEmailHandler(include_html=True)
    handler.setLevel(logging.ERROR)
    handler.addFilter(_OncePerKind())
    return handler


class _OncePerKind(logging.Filter):
    """A mail with all its frames takes long to write: the same line with the same kind of error tells nothing new."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[tuple[str, str, object]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        kind = (record.name, record.msg, record.exc_info[0] if record.exc_info else None)
        is_new = kind not in self._seen
        self._seen.add(kind)
        return is_new


@contextlib.contextmanager
def _everything_logged(handlers: list[logging.Handler]) -> Iterator[None]:
    root = logging.getLogger()
    named = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    before = [(logger, logger.level, logger.disabled) for logger in (root, *named)]
    deaf = [root, *(logger for logger in named if not logger.propagate)]
    for logger in (root, *named):
        logger.setLevel(logging.DEBUG)
        logger.disabled = False
    for logger in deaf:
        for handler in handlers:
            logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in deaf:
            for handler in handlers:
                logger.removeHandler(handler)
        for logger, level, disabled in before:
            logger.setLevel(level)
            logger.disabled = disabled


def mails() -> Iterator[str]:
    for message in mail.outbox:
        yield f"{message.subject}\n{message.body}"
        yield from (str(content) for content, _kind in getattr(message, "alternatives", []))
        yield message.message().as_string()
