"""The example project with another admin's theme in front, if ``ADMIN_THEME`` names one."""

from __future__ import annotations

import os

from example_project.settings import *  # noqa: F403  all of it, and a theme
from example_project.settings import INSTALLED_APPS as USUAL_APPS
from example_project.settings import WECHAT_TOKEN as USUAL_SETTINGS

THEME = os.environ.get("ADMIN_THEME", "")
INSTALLED_APPS = [*([THEME] if THEME else []), *USUAL_APPS]
STATIC_ROOT = None
WECHAT_TOKEN = {**USUAL_SETTINGS, "ALERT_EMAILS": ["oncall@example.com"]}
