"""The example project's settings, made quick and quiet for tests; services by DATABASE_URL and REDIS_URL."""

import os

SECRET_KEY = os.environ["DJANGO_SECRET_KEY"] = "tests-only-secret-key-0123456789"  # or the project would make one

from example_project.settings import *  # noqa: F403  the point of this file

# It looks for static files whenever a test makes a client.
MIDDLEWARE = [name for name in MIDDLEWARE if "whitenoise" not in name]  # noqa: F405
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CELERY_TASK_ALWAYS_EAGER = False
LANGUAGE_CODE = "en"
