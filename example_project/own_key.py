"""The site's own SECRET_KEY where none is given: made at the first start and kept in a file, for all processes."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

SHORTEST = 32  # characters
LONGEST = 4096  # bytes: what is longer is some other file


def kept_in(file: Path) -> str:
    """The key in ``file``, which is made if it is missing. Raises ``ImproperlyConfigured``; no error holds a key.

    Any number of processes may start at once: one of them makes the file, whole, and all read it.
    """
    key = why = ""
    try:
        if not file.exists():
            _make(file)
        key = file.read_bytes()[:LONGEST].decode("ascii", "replace").strip()
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            why = f"others may read {file}; chmod 600"
        elif len(key) < SHORTEST or "\ufffd" in key:
            why = f"{file} holds no key"
    except OSError as error:
        why = f"{file}: {error.strerror}"
    if not why:
        return key
    del key  # error pages show the locals of a frame
    raise ImproperlyConfigured(f"No SECRET_KEY. Set DJANGO_SECRET_KEY (and keep it: it encrypts), or mend this: {why}.")


def _make(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as output:
        output.write(secrets.token_urlsafe(48) + "\n")
        output.flush()
        os.fsync(output.fileno())
    try:
        os.link(draft, file)  # fails if another process was faster; what is there is then the key
    except FileExistsError:
        pass
    finally:
        draft.unlink()
