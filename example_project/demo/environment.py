"""The demo's own environment.

Settings are read from the environment once, when Django starts. So the command looks round, writes down what
the settings are to be, and starts itself again in the same process; the user's own database, broker and keys
are out of reach from then on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import CommandError

HOST: Final = "127.0.0.1"
MARK: Final = "WECHAT_TOKEN_DEMO"

# What would lead the demo, or its children, to something that is not the demo's. Celery takes any variable
# with its prefix for a setting or an option.
FOREIGN: Final = ("DATABASE_URL", "REDIS_URL", "DJANGO_ALLOWED_HOSTS", "DJANGO_HTTPS")
FOREIGN_PREFIXES: Final = ("CELERY_", "WECHAT_TOKEN_")


def is_prepared() -> bool:
    """Whether this process runs in the demo's environment already."""
    return MARK in os.environ


def wants_real_wechat(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the user gave credentials. Raises ``CommandError`` for one without the other."""
    given = [name for name in ("WECHAT_APPID", "WECHAT_SECRET") if environ.get(name)]
    if len(given) == 1:
        raise CommandError("Set both WECHAT_APPID and WECHAT_SECRET to run against the real WeChat, or neither.")
    return bool(given)


def check_port(port: int) -> int:
    """``port`` itself, or a free one for 0. Raises ``CommandError`` if the web server could not have it."""
    with socket.socket() as listener:
        # As the web server does it: a port whose last connections are still fading is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            reason = error.strerror
        else:
            return int(listener.getsockname()[1])
    raise CommandError(f"Port {port} cannot be used: {reason}. Choose another one, for example --port {port + 1}.")


def enter(arguments: Sequence[str], parent: str | None) -> NoReturn:
    """Start ``manage.py demo`` with ``arguments`` again, with its data in a new folder inside ``parent``."""
    manage = Path(settings.BASE_DIR) / "manage.py"
    environ = demo_environ(os.environ, scratch_path(parent))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, str(manage), "demo", *arguments], environ)  # noqa: S606  ourselves


def scratch_path(parent: str | None) -> Path:
    """A name nobody has, inside ``parent`` or the system's temporary folder. Nothing is created yet."""
    try:
        folder = Path(parent or tempfile.gettempdir())
    except OSError as error:  # no temporary folder can be written
        raise CommandError(f"No place for scratch data: {error.strerror}. Name one with --folder.") from None
    return folder.absolute() / f"wechat-token-demo-{secrets.token_hex(4)}"


def demo_environ(user: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The user's environment with everything replaced that the example project reads."""
    environ = {
        name: value for name, value in user.items() if name not in FOREIGN and not name.startswith(FOREIGN_PREFIXES)
    }
    environ |= {
        MARK: "1",
        "WECHAT_TOKEN_DATA_DIR": str(folder),
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
        "DJANGO_SECRET_KEY": secrets.token_urlsafe(48),
        "DJANGO_DEBUG": "1",  # the development server serves the admin's static files
        "PYTHONUNBUFFERED": "1",
        # kombu moves each message through the temporary folder.
        "TMPDIR": str(folder),
    }
    if not wants_real_wechat(user):
        environ["WECHAT_API_BASE_URL"] = f"http://{HOST}:{check_port(0)}"
    return environ


def fake_port() -> int:
    """The port that :func:`demo_environ` chose for the fake WeChat."""
    return urlsplit(settings.WECHAT_TOKEN["API_BASE_URL"]).port or 0


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """The folder for all data of this run, readable for its owner only, and gone afterwards."""
    folder = Path(settings.DATA_DIR)
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise CommandError(
            f"Cannot write into {folder.parent}: {error.strerror}. Name another place with --folder."
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
