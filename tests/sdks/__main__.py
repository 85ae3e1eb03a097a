"""``python -m tests.sdks``: every SDK reads a token, calls, has it revoked at WeChat, and calls again.

Starts the fake WeChat and the example project's web server on loopback. SDKs that are missing are installed
into a temporary folder with pip and npm; with ``--no-install``, or where that fails, they are "not installed".
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..live.site import SECRET, Site, live_site
from .server import serve

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NPM = (
    "co-wechat-api@3.11.0",
    "node-easywechat@3.6.2",
    "node-socialite@1.4.1",  # node-easywechat 3.6 asks for ^1.4.1 and needs a file that 1.5 has no more
    "wechat-jssdk@5.1.0",
)
PYPI = {
    "wechatpy": ("wechatpy==1.8.18", "optionaldict", "xmltodict", "six", "python-dateutil"),
    "werobot": ("WeRoBot==1.13.1", "xmltodict"),
    "wechat_django": ("wechat-django==0.4.0", "django-object-tool", "pytz"),
}
STEPS = ("token", "call", "signed", "revoked")


@dataclass(frozen=True)
class SDK:
    name: str
    title: str
    module: str = ""  # of Python; else it is of npm
    settings: str = ""
    issued: int = 2  # tokens, by WeChat, during the steps


SDKS = (
    SDK("session", "WeChatSession, in process", "requests", "tests.live.settings"),
    SDK("session-remote", "WeChatSession, remote mode", "requests", "tests.live.settings"),
    SDK("wechatpy", "wechatpy, in process (WeChatTokenClient)", "wechatpy", "tests.live.settings"),
    SDK("wechatpy-remote", "wechatpy, remote mode (WeChatTokenClient)", "wechatpy", "tests.live.settings"),
    SDK("wechatpy-http", "wechatpy, over HTTP", "wechatpy"),
    SDK("wechat-django", "wechat-django, over HTTP", "wechat_django", "tests.sdks.wechat_django_settings"),
    SDK("werobot", "WeRoBot, over HTTP", "werobot"),
    SDK("co-wechat-api", "co-wechat-api, over HTTP"),
    SDK("node-easywechat", "node-easywechat, over HTTP"),
    SDK("wechat-jssdk", "wechat-jssdk, over HTTP", issued=1),  # all it calls is getticket, which is answered here
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sdks", description=__doc__)
    parser.add_argument("--no-install", action="store_true", help="use only what is installed")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(sdk.name for sdk in SDKS))
    options = parser.parse_args(argv)
    chosen = [sdk for sdk in SDKS if not options.names or sdk.name in options.names]
    with tempfile.TemporaryDirectory(prefix="wechat-token-sdks-") as folder, live_site() as site:
        packages = Path(folder)
        if not options.no_install:
            install(packages)
        centre = serve(site)
        keys = accounts(site, chosen)
        rows = [(sdk, drive(site, sdk, centre, keys[sdk.name], packages)) for sdk in chosen]
        issued = {sdk.name: site.fake.issued(f"wx-{sdk.name}") for sdk in chosen}
    return show(rows, issued)


def install(folder: Path) -> None:
    missing = {name for module, names in PYPI.items() if find_spec(module) is None for name in names}
    if missing:
        run(
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "python"), *missing
        )
    if shutil.which("npm"):
        run("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *NPM)


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        print(f"{' '.join(command[:4])} … failed: {done.stderr.strip()[-500:]}", file=sys.stderr)


def accounts(site: Site, sdks: Sequence[SDK]) -> dict[str, str]:
    """An account and a client key for each SDK, so that none profits from another's complaint."""
    for sdk in sdks:
        site.fake.add_account(f"wx-{sdk.name}", SECRET)
    made = site.shell(
        "import json; from wechat_token.client_keys.keys import make_key; from wechat_token.models import Account\n"
        f"names = {[sdk.name for sdk in sdks]!r}\n"
        f"rows = [Account.objects.create(appid=f'wx-{{n}}', secret={SECRET!r}, name=n) for n in names]\n"
        "keys = [make_key(row.name, accounts=[row], may_refresh=True)[1] for row in rows]\n"
        "print(json.dumps(dict(zip(names, [key.reveal() for key in keys]))))"
    )
    keys: dict[str, str] = json.loads(made)
    return keys


def drive(site: Site, sdk: SDK, centre: str, key: str, packages: Path) -> dict[str, Any] | None:
    """What the driver reports; None if the SDK is not installed."""
    env = {
        **site.env,
        "APPID": f"wx-{sdk.name}",
        "CENTRE": centre,
        "KEY": key,
        "FAKE_WECHAT": site.env["WECHAT_API_BASE_URL"],
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(packages / "python"))),
        "NODE_PATH": os.pathsep.join((str(packages / "node_modules"), os.environ.get("NODE_PATH", ""))),
        "DJANGO_SETTINGS_MODULE": sdk.settings,
    }
    if sdk.name.endswith("-remote"):
        remote = {"REMOTE_URL": centre, "REMOTE_KEY": key}
        env |= {"WECHAT_TOKEN_LIVE_SETTINGS": json.dumps(remote), "DATABASE_URL": "sqlite:////nowhere/at/all"}
    if sdk.module:
        command = [sys.executable, "-W", "ignore", "-m", "tests.sdks.drive", sdk.name]
        installed = bool(find_spec(sdk.module)) or (packages / "python" / sdk.module).exists()
    else:
        command = ["node", "--require", str(HERE / "redirect.js"), str(HERE / "drive.js"), sdk.name]
        installed = shutil.which("node") is not None and (packages / "node_modules" / sdk.name).exists()
    if not installed:
        return None
    done = subprocess.run(command, env=env, cwd=packages, capture_output=True, text=True, timeout=60, check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        report = {"version": "?", "steps": {}, "error": done.stderr}
    return report


def show(rows: Sequence[tuple[SDK, dict[str, Any] | None]], issued: dict[str, int]) -> int:
    """Print the table; 1 if an SDK that is installed failed a step."""
    print(
        f"{'SDK':<42} {'version':<9} {'token':<6} {'call':<5} {'page signed':<12} {'revoked, call':<14} tokens issued"
    )
    failed = 0
    for sdk, report in rows:
        if report is None:
            print(f"{sdk.title:<42} not installed")
            continue
        steps = report["steps"]
        marks = ["ok" if steps.get(step) is True else "FAILED" for step in STEPS]
        if "revoked" in steps and "signed" not in steps:
            marks[2] = "-"  # it signs no pages
        failed += "FAILED" in marks or issued[sdk.name] != sdk.issued
        print(
            f"{sdk.title:<42} {report['version']:<9} {marks[0]:<6} {marks[1]:<5} {marks[2]:<12} {marks[3]:<14} "
            f"{issued[sdk.name]}"
        )
        if "error" in report:
            print("    " + report["error"].replace("\n", "\n    "))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
