"""Errors, and what is reported of them."""

from __future__ import annotations

import json
import traceback

import sentry_sdk

from tests.leaks import TESTS
from tests.secrecy.recorder import mails
from tests.secrecy.scene import Scene

from .base import Seen, errors_of, pickled, shown, sink

# -- errors ------------------------------------------------------------------------------------------


def _raise(scene: Scene, text: str, code: str) -> None:
    def work() -> None:
        exec(compile(code, "planted.py", "exec"), {"text": text, "Odd": type("Odd", (Exception,), {})})

    scene.attempt(work)


@sink("error: text", lambda scene, text: _raise(scene, text, "raise Odd('x') from ValueError(text)"))
def error_text(scene: Scene) -> Seen:
    for error in errors_of(scene):
        yield type(error).__name__, f"{error!s}\n{error!r}\n{error.args!r}\n{getattr(error, '__notes__', '')}"


@sink("error: attributes", lambda scene, text: _raise(scene, text, "e = Odd(); e.request = {'url': text}; raise e"))
def error_attributes(scene: Scene) -> Seen:
    for error in errors_of(scene):
        public = {name: getattr(error, name, None) for name in dir(error) if not name.startswith("__")}
        yield type(error).__name__, shown(public)
        yield from ((f"{type(error).__name__}.{name}", shown(value)) for name, value in public.items())


@sink("error: locals of frames", lambda scene, text: _raise(scene, text, "def f():\n held = text\n 1 / 0\nf()"))
def error_frames(scene: Scene) -> Seen:
    seen: set[int] = set()
    for error in errors_of(scene):
        trace = error.__traceback__
        while trace is not None:
            frame = trace.tb_frame
            if id(frame) not in seen and not frame.f_code.co_filename.startswith(TESTS):
                seen.add(id(frame))
                for name, value in list(frame.f_locals.items()):
                    where = f"{frame.f_code.co_filename}:{trace.tb_lineno} {frame.f_code.co_qualname} {name}"
                    yield where, shown(value)
            trace = trace.tb_next


@sink("error: formatted with locals", lambda scene, text: _raise(scene, text, "held = text\n1 / 0"))
def error_formatted(scene: Scene) -> Seen:
    for error in errors_of(scene):
        report = traceback.TracebackException.from_exception(error, capture_locals=True)
        yield type(error).__name__, "".join(report.format())


@sink("error: pickled", lambda scene, text: scene.recorder.errors.append(ValueError(text)))
def error_pickled(scene: Scene) -> Seen:
    for error in errors_of(scene):
        yield type(error).__name__, pickled(error)


# -- reports of errors -------------------------------------------------------------------------------


def _fail_in_a_view(scene: Scene, text: str) -> None:
    scene.http("GET", f"/site/fail?planted={text}")


@sink("Django's technical page", _fail_in_a_view)
def technical_page(scene: Scene) -> Seen:
    return (("page", text) for text in scene.recorder.technical_pages)


@sink("Django's error mail", _fail_in_a_view)
def error_mail(scene: Scene) -> Seen:
    return (("mail", text) for text in mails())


@sink("Sentry events", lambda scene, text: sentry_sdk.capture_message(text))
def sentry_events(scene: Scene) -> Seen:
    for event in scene.sentry:
        for name, value in event.items():
            yield f"event {name}", json.dumps(value, default=repr, ensure_ascii=False)
