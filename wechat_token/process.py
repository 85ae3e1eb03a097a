"""What a process remembers, and the one place that forgets it.

A module that keeps something between calls names it here, with what makes a fresh one::

    _table: dict[str, Row]
    process.keep(globals(), _table=dict)

A forked child starts with fresh values: it must not talk on its parent's connections, nor wait for a lock that a
thread of the parent holds for ever. Tests start as new processes do, and one test process can play many, each
with values of its own. So: reach such a name through its module, never by ``from module import _table``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

# By module and name, so that a module loaded twice is kept once; in the order in which they were named.
_kept: dict[tuple[str, str], tuple[dict[str, Any], Callable[[], Any]]] = {}


def keep(namespace: dict[str, Any], **factories: Callable[[], Any]) -> None:
    """Give the module whose ``globals()`` these are a fresh value of each name, now and in every new process."""
    for name, factory in factories.items():
        _kept[namespace["__name__"], name] = namespace, factory
        namespace[name] = factory()


def forget() -> None:
    """Remember nothing, as a new process."""
    restore(())


def fresh() -> list[Any]:
    """What a new process has, for :func:`restore`."""
    return [factory() for _namespace, factory in _kept.values()]


def snapshot() -> list[Any]:
    """What this process remembers: the very objects, no copies."""
    return [namespace[name] for (_module, name), (namespace, _factory) in _kept.items()]


def restore(values: Sequence[Any]) -> None:
    """Be the process that had ``values``; of modules loaded since then it knows nothing yet."""
    for number, ((_module, name), (namespace, factory)) in enumerate(_kept.items()):
        namespace[name] = values[number] if number < len(values) else factory()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)
