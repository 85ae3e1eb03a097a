"""Where things can be seen. Each sink collects texts, and can be given a text on purpose, to prove that it sees."""

from __future__ import annotations

from . import answers, errors, objects, printed, process, stores
from .base import SINKS, Sink

__all__ = ["SINKS", "Sink", "answers", "errors", "objects", "printed", "process", "stores"]
