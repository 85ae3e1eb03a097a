"""The embedded broker: Celery's messages as files in one folder. For one machine, with no server to install.

It is kombu's filesystem transport with three faults taken out. That one creates the file of a message first
and fills it later; a reader that comes in between finds no JSON in it, and the worker ends with an error. The
tables of its exchanges have the same gap. And a queue that nobody reads grows without end.
"""

from __future__ import annotations

# mypy: disable-error-code="no-untyped-call"
# (kombu is not typed)
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem

SCHEME = "embedded"
URL = f"{SCHEME}://localhost/"
MOST_WAITING = 1000  # messages in a queue; ticks and first fetches are worthless a minute later anyway


def register() -> None:
    """Let ``embedded://`` stand for this transport. kombu takes no import path from a URL."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"


def options(folder: Path) -> dict[str, Any]:
    """Celery's ``broker_transport_options`` for messages in ``folder``, which is made when first needed."""
    return {
        "data_folder_in": str(folder),
        "data_folder_out": str(folder),
        "control_folder": str(folder / "control"),
        "polling_interval": 0.25,  # seconds between looks into the folder
    }


class Channel(filesystem.Channel):
    """Every step that writes or reads a file holds one lock, which all processes share."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for folder in (Path(self.data_folder_in), self.control_folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.control_folder / "lock").open("ab") as file:  # closing it gives the lock back
            filesystem.lock(file, filesystem.LOCK_EX)
            yield

    def get_table(self, exchange: str) -> Any:
        with self._alone():
            return super().get_table(exchange)

    def _queue_bind(self, *args: Any) -> None:
        with self._alone():
            super()._queue_bind(*args)

    def _put(self, queue: str, *args: Any, **kwargs: Any) -> None:
        with self._alone():
            super()._put(queue, *args, **kwargs)
            self._drop_oldest(queue)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        with self._alone():
            return super()._get(queue)

    def _drop_oldest(self, queue: str) -> None:
        folder = Path(self.data_folder_in)
        waiting = sorted(name for name in os.listdir(folder) if name.partition(".")[2] == f"{queue}.msg")
        for name in waiting[:-MOST_WAITING]:
            (folder / name).unlink(missing_ok=True)


class Transport(filesystem.Transport):
    Channel = Channel
