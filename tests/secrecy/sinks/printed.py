"""What commands and checks print."""

from __future__ import annotations

import io
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pprint import pformat
from typing import Any

from django.core import checks
from django.core.management import CommandError, call_command
from django.views.debug import SafeExceptionReporterFilter

from tests.secrecy.scene import Scene

from .base import Seen, name_account, sink

# -- what is printed ---------------------------------------------------------------------------------


def _command(*arguments: str) -> None:
    @sink(f"manage.py wechat_token {' '.join(arguments)}", name_account)
    def collect(scene: Scene) -> Seen:
        yield "output", output("wechat_token", *arguments)


_command("status")
_command("status", "--json")
_command("doctor")
_command("refresh")


def _plant_a_check(scene: Scene, text: str) -> None:
    def planted(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
        return [checks.Warning(text)]

    checks.register(planted)
    scene.stack.callback(checks.registry.registry.registered_checks.discard, planted)


@sink("system checks", _plant_a_check)
def system_checks(scene: Scene) -> Seen:
    yield "check --deploy", output("check", deploy=True)


@sink("settings as Django reports them", lambda scene, text: scene.override(PLANTED=text))
def settings(scene: Scene) -> Seen:
    yield "settings", pformat(SafeExceptionReporterFilter().get_safe_settings())


def output(*arguments: Any, **options: Any) -> str:
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        try:
            call_command(*arguments, stdout=out, stderr=out, **options)
        except CommandError as error:
            out.write(str(error))
        except Exception as error:  # dumpdata of a database that fails: its text is output too
            out.write("".join(traceback.format_exception(error)))
    return out.getvalue()
