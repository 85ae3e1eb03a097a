"""The example project with no variable set, and with those that protect it."""

from __future__ import annotations

import os
import runpy
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from example_project import own_key

ROOT = Path(__file__).resolve().parent.parent
OURS = ("DJANGO_", "WECHAT_", "DATABASE_URL", "REDIS_URL", "CELERY_")


def bare(folder: Path, **variables: str) -> dict[str, str]:
    """The environment of somebody who has set nothing but where data goes."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return environ | {"WECHAT_TOKEN_DATA_DIR": str(folder)} | variables


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The settings as a process would read them that starts with these variables."""

    def read(**variables):
        with monkeypatch.context() as patch:
            for name in os.environ:
                if name.startswith(OURS):
                    patch.delenv(name)
            for name, value in bare(tmp_path, **variables).items():
                patch.setenv(name, value)
            patch.delitem(sys.modules, "example_project.settings", raising=False)
            return runpy.run_module("example_project.settings")

    return read


def test_no_variables__what_is_published_decrypts_nothing(tmp_path):
    """As an attacker who has the repository and somebody's database, and a browser."""
    attack = """
import django; django.setup()
from django.conf import settings
published = "example-project-only-not-for-production"
print(settings.DEBUG, settings.SECRET_KEY == published, len(settings.SECRET_KEY) >= 50)
"""
    environ = bare(tmp_path, DJANGO_SETTINGS_MODULE="example_project.settings")
    run = [sys.executable, "-W", "error", "-c", attack]
    assert subprocess.check_output(run, env=environ, cwd=ROOT, text=True).split() == ["False", "False", "True"]


def test_own_key__each_installation_has_its_own_and_keeps_it(project, tmp_path):
    first = project()["SECRET_KEY"]
    assert project()["SECRET_KEY"] == first
    assert stat.S_IMODE((tmp_path / "secret-key").stat().st_mode) == 0o600
    (tmp_path / "secret-key").unlink()
    assert project()["SECRET_KEY"] != first
    assert project(DJANGO_SECRET_KEY="given")["SECRET_KEY"] == "given"
    assert [path.name for path in tmp_path.iterdir()] == ["secret-key"]


def test_own_key__whoever_starts_at_the_same_moment_agrees(tmp_path):
    """Nothing is shared but the folder, as between processes."""
    for number in range(20):
        file, together = tmp_path / str(number) / "secret-key", threading.Barrier(4)

        def start(file=file, together=together):
            together.wait(10)
            return own_key.kept_in(file)

        with ThreadPoolExecutor(4) as pool:
            said = {running.result() for running in [pool.submit(start) for _ in range(4)]}
        assert len(said) == 1
        assert [path.name for path in file.parent.iterdir()] == ["secret-key"]


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (b"", 0o600, "holds no key"),
        (b"canary\n", 0o600, "holds no key"),
        (b"\xff" * 64, 0o600, "holds no key"),
        (b"canary" * 20, 0o644, "others may read .*; chmod 600"),
        (b"canary" * 20, 0o660, "others may read .*; chmod 600"),
    ],
)
def test_own_key__a_file_that_is_no_good_is_named_and_not_shown(tmp_path, content, mode, why):
    file = tmp_path / "secret-key"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(ImproperlyConfigured, match=f"DJANGO_SECRET_KEY.*{why}") as caught:
        own_key.kept_in(file)
    assert "canary" not in str(caught.value)
    assert file.read_bytes() == content


def test_own_key__a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ImproperlyConfigured, match="Set DJANGO_SECRET_KEY"):
        own_key.kept_in(tmp_path / "file" / "secret-key")


def test_debug_off__static_files_of_the_admin_are_served(db, project, settings):
    pytest.importorskip("whitenoise")
    read = project()
    settings.MIDDLEWARE, settings.WHITENOISE_USE_FINDERS = read["MIDDLEWARE"], read["WHITENOISE_USE_FINDERS"]
    assert not read["DEBUG"]
    for path in ("/static/admin/css/base.css", "/static/wechat_token/admin.css"):
        answer = Client().get(path)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, 'text/css; charset="utf-8"')
        answer.close()


def test_https__cookies_are_secure_and_browsers_are_told(db, project, settings):
    read = project(DJANGO_HTTPS="1")
    for name in ("SECURE_PROXY_SSL_HEADER", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_HSTS_SECONDS"):
        setattr(settings, name, read[name])
        assert name not in project()
    answer = Client().get("/admin/login/", headers={"X-Forwarded-Proto": "https"})
    assert answer.cookies["csrftoken"]["secure"]
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert "Strict-Transport-Security" not in Client().get("/admin/login/").headers


def test_encryption_keys__by_variables(project):
    wechat = project(
        WECHAT_TOKEN_ENCRYPTION_KEYS="one,two", WECHAT_TOKEN_ENCRYPTION_KEYS_FILE="/run/keys",
        WECHAT_TOKEN_READ_DERIVED_KEYS="1",
    )["WECHAT_TOKEN"]  # fmt: skip
    assert wechat == {
        "ENCRYPTION_KEYS": ["one", "two"], "ENCRYPTION_KEYS_FILE": "/run/keys", "READ_DERIVED_KEYS": True,
    }  # fmt: skip
    assert project()["WECHAT_TOKEN"] == {"READ_DERIVED_KEYS": False}
