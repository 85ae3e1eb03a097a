"""The example project with an empty view beside it, without a limit for one address, for ``sign.py``."""

from __future__ import annotations

import os

from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
settings.WECHAT_TOKEN["SIGNATURES_PER_MINUTE"] = 10**9

from django.core.wsgi import get_wsgi_application  # noqa: E402

application = get_wsgi_application()

from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

from example_project import urls  # noqa: E402

urls.urlpatterns.insert(0, path("empty", lambda request: HttpResponse()))
