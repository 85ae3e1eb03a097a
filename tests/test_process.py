"""What a process remembers: named once, fresh after a fork, exchangeable as a whole."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wechat_token
from wechat_token import process

PACKAGE = Path(wechat_token.__file__).parent


@pytest.fixture
def module() -> Iterator[dict[str, Any]]:
    """The globals of a module that keeps a table, a number and a lock."""
    namespace: dict[str, Any] = {"__name__": "tests.kept"}
    process.keep(namespace, _table=dict, _number=float, _lock=threading.Lock)
    yield namespace
    for name in ("_table", "_number", "_lock"):
        del process._kept["tests.kept", name]


def test_keep__gives_a_fresh_value_at_once(module: dict[str, Any]) -> None:
    assert module["_table"] == {}
    assert module["_number"] == 0.0
    assert not module["_lock"].locked()


def test_keep__of_a_module_loaded_twice_keeps_the_second(module: dict[str, Any]) -> None:
    again: dict[str, Any] = {"__name__": "tests.kept"}
    process.keep(again, _table=dict)
    again["_table"]["a"] = 1
    module["_table"]["a"] = 1
    process.forget()
    assert again["_table"] == {}
    assert module["_table"] == {"a": 1}


def test_forget__replaces_what_is_there(module: dict[str, Any]) -> None:
    table = module["_table"]
    table["a"], module["_number"] = 1, 2.0
    module["_lock"].acquire()
    process.forget()
    assert (module["_table"], module["_number"]) == ({}, 0.0)
    assert not module["_lock"].locked()
    assert table == {"a": 1}  # whoever still holds it is undisturbed


def test_restore__plays_two_processes_in_one(module: dict[str, Any]) -> None:
    module["_table"]["who"] = "first"
    first = process.snapshot()
    process.restore(process.fresh())
    assert module["_table"] == {}
    module["_table"]["who"] = "second"
    second = process.snapshot()
    process.restore(first)
    assert module["_table"] == {"who": "first"}
    process.restore(second)
    assert module["_table"] == {"who": "second"}


def test_restore__knows_nothing_of_modules_loaded_since(module: dict[str, Any]) -> None:
    before = process.snapshot()
    late: dict[str, Any] = {"__name__": "tests.kept_late"}
    process.keep(late, _table=dict)
    try:
        late["_table"]["a"] = 1
        process.restore(before)
        assert late["_table"] == {}
    finally:
        del process._kept["tests.kept_late", "_table"]


def test_fork__gives_the_child_fresh_values_and_leaves_the_parents() -> None:
    # In a process of its own, because forking one with threads is deprecated.
    script = """if True:
        import os, threading
        from wechat_token import process
        process.keep(globals(), _table=dict, _lock=threading.Lock)
        _table["a"] = 1
        _lock.acquire()  # as a thread might hold it at the moment of the fork
        child = os.fork()
        if child == 0:
            os._exit(42 if _table == {} and _lock.acquire(timeout=1) else 1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(status if _table == {"a": 1} and _lock.locked() else 2)
    """
    assert subprocess.run([sys.executable, "-c", script], timeout=20).returncode == 42


def test_package__imports_nothing_that_is_kept() -> None:
    """A name imported from its module would show the old value after a fork."""
    kept = {name for _module, name in process._kept}
    taken = [
        f"{path.relative_to(PACKAGE)}: {alias.name}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in kept
    ]
    assert taken == []
