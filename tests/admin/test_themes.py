"""The pages under other themes of the admin, each in a process of its own: a theme is an app, put in first."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LOOK = """
import django
django.setup()
from django.core.management import call_command
from django.test import Client
call_command("migrate", verbosity=0)
from tests.screenshots.scene import build
client = Client(headers={"host": "localhost"})
client.cookies["sessionid"] = build("en")
for path in ("account/", "account/1/change/", "clientkey/1/change/"):
    print("====", path, client.get("/admin/wechat_token/" + path).content.decode())
"""


@pytest.mark.proof
@pytest.mark.parametrize("theme", ["", "unfold", "simpleui"])
def test_pages__have_all_their_parts_under(theme, tmp_path):
    if theme and importlib.util.find_spec(theme) is None:
        pytest.skip(f"django-{theme} is not installed")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "REDIS_"))},
        "DJANGO_SETTINGS_MODULE": "tests.screenshots.settings", "WECHAT_TOKEN_DATA_DIR": str(tmp_path),
        "ADMIN_THEME": theme, "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    _before, accounts, account, key = done.stdout.split("==== ")
    assert accounts.count('class="wt-chips"') == 1
    assert accounts.index("wx5f2e8a90c1d34b67") < accounts.index("wx4e6d8c0a2b1f3579")  # worst first
    for part in ("wt-panel-access_token", 'class="wt-timeline"', "Refresh now", "Force a new token…", "203.0.113.9"):
        assert account.count(part) >= 1, part
    assert account.count('id="wt-panel-access_token"') == 1  # once, whatever blocks the theme has
    for part in ("Replace this key…", "Revoke this key…", 'id="wt-use-title"'):
        assert key.count(part) == 1, part
