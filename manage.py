#!/usr/bin/env python
"""Django's command line for the example project."""

import os
import secrets
import sys
from pathlib import Path

NEEDED = {"celery", "cryptography", "django", "django_celery_beat", "kombu", "requests", "urllib3"}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
    if sys.argv[1:2] == ["demo"]:
        os.environ.setdefault("DJANGO_SECRET_KEY", secrets.token_urlsafe(48))  # it leaves nothing behind, nor a key
    try:
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        here = Path(__file__).resolve().parent
        sys.exit(f"The package {error.name} is missing. Install it: {sys.executable} -m pip install {here}")


if __name__ == "__main__":
    main()
