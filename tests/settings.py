"""The example project's settings, made quick and quiet for tests; services by DATABASE_URL and REDIS_URL."""

from example_project.settings import *  # noqa: F403  the point of this file

SECRET_KEY = "tests-only-secret-key-0123456789"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CELERY_TASK_ALWAYS_EAGER = False
LANGUAGE_CODE = "en"
