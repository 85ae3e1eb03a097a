"""``python -m wechat_token.sandbox``: the fake WeChat on a loopback port, until interrupted."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Final

from .server import FakeWeChatServer
from .weixin import FakeWeChat

SECRET_VARIABLE: Final = "WECHAT_SANDBOX_SECRET"  # noqa: S105 - the name of a variable, not its value
DEFAULT_APPID: Final = "wx0123456789abcdef"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 after a stop, 2 for wrong arguments or a port that cannot be had."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        fake = FakeWeChat(
            life=options.life,
            overlap=options.overlap,
            window=options.window,
            seed=options.seed,
            strict=options.strict,
            ticket_world=options.ticket_world,
        )
        server = FakeWeChatServer(fake, options.host, options.port)
        notes = [_add_account(fake, account) for account in options.account or [DEFAULT_APPID]]
    except ValueError as error:
        parser.error(str(error))
    try:
        server.start()
    except OSError as error:
        return _fail(f"cannot listen on {options.host} port {options.port}: {error.strerror}")
    try:
        _say(f"Sandbox WeChat at {server.url} (not the real one; no secret here is real)")
        for note in notes:
            _say(note)
        _wait(options.seconds)
    finally:
        server.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m wechat_token.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8799, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--life", type=float, default=7200, help="of a token, in seconds (default: %(default)s)")
    parser.add_argument(
        "--overlap", type=float, default=300, help="seconds a displaced one works on (default: %(default)s)"
    )
    parser.add_argument(
        "--ticket-world", choices=("A", "B"), default="A",
        help="A: a ticket lives from its first issue; B: a new one at every even hour (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--window",
        type=float,
        help="last seconds of a stable token's life in which a call gets a new one (default: as --overlap)",
    )
    parser.add_argument("--strict", action="store_true", help="classic: overlap for the previous token only")
    parser.add_argument("--seed", help="the same seed gives the same tokens (default: unguessable ones)")
    parser.add_argument(
        "--account",
        action="append",
        metavar="APPID[:SECRET]",
        help=f"may be repeated; without SECRET it comes from ${SECRET_VARIABLE}, or one is made up "
        f"and printed (default: {DEFAULT_APPID}). Never give the AppSecret of a real account.",
    )
    parser.add_argument("--seconds", type=float, help="stop after so long (default: when interrupted)")
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return port


def _add_account(fake: FakeWeChat, argument: str) -> str:
    """Add the account and return what to tell the user about it. A secret that was given is not repeated."""
    appid, _, secret = argument.partition(":")
    if not appid:
        raise ValueError("--account needs an AppID")
    if secret:
        note = "secret as given"
    elif secret := os.environ.get(SECRET_VARIABLE, ""):
        note = f"secret from ${SECRET_VARIABLE}"
    else:
        secret = secrets.token_hex(16)
        note = f"secret {secret}"
    fake.add_account(appid, secret)
    return f"  AppID {appid}, {note}"


def _wait(seconds: float | None) -> None:
    """Until SIGINT, SIGTERM or the end of ``seconds``."""
    stop = threading.Event()
    before = {name: signal.signal(name, lambda *_: stop.set()) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop.wait(seconds)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _fail(line: str) -> int:
    sys.stderr.write(f"{line}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
