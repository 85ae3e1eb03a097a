"""Security events, one line each, on the logger ``wechat_token.security``. No field holds a secret (S2)."""

from __future__ import annotations

import json
import logging

logger = logging.getLogger("wechat_token.security")


def event(name: str, **fields: object) -> None:
    """Log ``name`` with its fields, as ``key=value`` in JSON's spelling, which has no control characters."""
    logger.warning("%s", " ".join([name, *(f"{key}={json.dumps(str(value))}" for key, value in fields.items())]))
