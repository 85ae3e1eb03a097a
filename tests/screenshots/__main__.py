"""Pictures of the admin.

::

    python -m tests.screenshots               # those of the documentation, into docs/images
    python -m tests.screenshots --looks DIR   # every page, language, width, mode and theme, to be judged

Needs chromium, chromedriver and selenium; django-unfold and django-simpleui where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --hide-scrollbars --disable-dev-shm-usage --force-device-scale-factor=1"
)
PAGES = {
    "list": "account/",
    "account": "account/1/change/",
    "foreign": "account/5/change/",
    "keys": "clientkey/",
    "key": "clientkey/1/change/",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots")
    parser.add_argument("--looks", type=Path, metavar="DIR", help="all looks, instead of the documentation's pictures")
    parser.add_argument("--theme", default="", help="only this theme's looks: unfold, simpleui")
    looks: Path | None = (options := parser.parse_args()).looks
    if looks is None:
        for language in ("en", "zh"):
            with _site(language, "") as camera:
                camera.take("account", ROOT / "docs/images" / f"admin-{language}.png")
                camera.take("list", ROOT / "docs/images" / f"list-{language}.png")
        return
    looks.mkdir(parents=True, exist_ok=True)
    themes = [options.theme] if options.theme else ["", *filter(importlib.util.find_spec, ("unfold", "simpleui"))]
    for theme in themes:
        for language in ("en", "zh"):
            with _site(language, theme) as camera:
                for name in PAGES:
                    for width in (1280, 390):
                        for mode in ("light", "dark"):
                            parts = [theme or "stock", name, language, str(width), mode]
                            camera.take(name, looks / f"{'-'.join(parts)}.png", width=width, mode=mode)


class Camera:
    def __init__(self, driver: object, base: str) -> None:
        self.driver, self.base = driver, base

    def take(self, name: str, file: Path, *, width: int = 1280, mode: str = "light") -> None:
        driver = self.driver
        # A headless window is at least 500 wide: a phone has to be emulated.
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get(f"{self.base}/admin/login/")
        driver.execute_script("localStorage.setItem('theme', arguments[0])", mode)
        driver.execute_script("localStorage.setItem('adminTheme', JSON.stringify(arguments[0]))", mode)
        driver.get(f"{self.base}/admin/wechat_token/{PAGES[name]}")
        time.sleep(0.4)
        both = "return Math.max(document.documentElement.scrollHeight, document.body.scrollHeight)"
        height = driver.execute_script(both)
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics | {"height": min(max(height, 600), 4000)})
        time.sleep(0.1)
        driver.get_screenshot_as_file(str(file))


@contextmanager
def _site(language: str, theme: str) -> Iterator[Camera]:
    """A site with the scene of :mod:`tests.screenshots.scene`, and a browser that is logged in."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        s.close()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "REDIS_"))},
            "DJANGO_SETTINGS_MODULE": "tests.screenshots.settings", "WECHAT_TOKEN_DATA_DIR": folder,
            "ADMIN_THEME": theme, "DJANGO_DEBUG": "1", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        manage = [sys.executable, "-m", "django"]
        build = "import django; django.setup(); from tests.screenshots.scene import build; print(build(%r))"
        subprocess.run([*manage, "migrate", "-v0"], env=environment, cwd=folder, check=True)
        built = subprocess.run(
            [sys.executable, "-c", build % language], env=environment, cwd=folder, check=True, capture_output=True,
            text=True,
        )  # fmt: skip
        server = subprocess.Popen(
            [*manage, "runserver", f"127.0.0.1:{port}", "--noreload"], env=environment, cwd=folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
        for option in (*OPTIONS.split(), f"--user-data-dir={folder}/profile"):
            options.add_argument(option)
        driver = None
        try:
            base = f"http://127.0.0.1:{port}"
            _wait_for(base)
            driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
            driver.get(f"{base}/admin/login/")
            cookies = {"sessionid": built.stdout.strip(), "django_language": "zh-hans" if language == "zh" else "en"}
            for name, value in cookies.items():
                driver.add_cookie({"name": name, "value": value, "path": "/"})
            yield Camera(driver, base)
        finally:
            if driver is not None:
                driver.quit()
            server.terminate()
            server.wait()


def _wait_for(base: str) -> None:
    for _ in range(100):
        with suppress(OSError), urllib.request.urlopen(f"{base}/admin/login/"):
            return
        time.sleep(0.1)
    raise SystemExit("the site did not come up")


if __name__ == "__main__":
    main()
