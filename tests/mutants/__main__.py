"""``python -m tests.mutants [--jobs 2] [--by tests|simulation] [--slice K/N] [NAME…]``

Applies each mutant to a copy of the repository and runs its own proof, then a quick selection, until something fails.
Prints which command killed it; a command that fails on the code as it is kills nothing. Exit status 1 if a mutant
survives, or if one no longer fits the code.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

from .catalogue import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("wechat_token", "tests", "example_project", "pyproject.toml", "manage.py")
PLUGINS = ("-p", "pytest_django.plugin", "-p", "xdist.plugin")  # loading all that are installed takes as long again
PYTEST = ("-m", "pytest", *PLUGINS, "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--no-migrations")
SIMULATION = ("-m", "tests.simulation", "--days=1", "--accounts=8")

Check = tuple[str, tuple[str, ...]]  # what to call it; arguments of Python


def tested_by(*files: str) -> Check:
    return ", ".join(file.removesuffix(".py") for file in files), (*PYTEST, *(f"tests/{file}" for file in files))


CHECKS: dict[str, tuple[Check, ...]] = {
    "tests": (
        tested_by("test_rows.py", "test_ground.py", "test_served.py", "test_flights.py", "test_complaints.py",
                  "test_connections.py", "test_drain.py"),
        tested_by("test_schedule.py", "test_schedule_answers.py", "test_official_account.py"),
        tested_by("test_refresh.py", "test_serving.py", "test_tickets.py", "test_birth.py"),
    ),
    "simulation": (
        ("simulation, two beats", (*SIMULATION, "--seed=1", "--beats=2")),
        ("simulation, no Celery", (*SIMULATION, "--seed=2", "--days=0.3", "--beats=0", "--reads=60")),
        ("simulation, hammered", (*SIMULATION, "--seed=3", "--days=0.05", "--accounts=1", "--hammer=1", "--reads=60")),
        ("simulation, usual faults", (*SIMULATION, "--seed=11", "--runs=3", "--faults=1")),
        ("simulation, tickets", (*SIMULATION, "--seed=71", "--accounts=4", "--tickets=A", "--days=1.3", "--faults=1")),
        ("simulation, five times", (*SIMULATION, "--seed=41", "--runs=12", "--faults=5")),
    ),
}  # fmt: skip
LONGEST_CHECK = 240.0  # seconds; a mutant that makes everything hang is noticed too


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; left out: all")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--by", choices=list(CHECKS), help="only the tests, or only the simulation")
    parser.add_argument("--slice", metavar="K/N", help="every N-th mutant, from the K-th on: 1/10 to 10/10 are all")
    arguments = parser.parse_args()
    first, step = map(int, (arguments.slice or "1/1").split("/"))
    chosen = [m for m in MUTANTS if not arguments.names or any(name in m.name for name in arguments.names)]
    chosen = chosen[first - 1 :: step]
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(arguments.jobs):
            copies.put(_copy(Path(folder) / str(number)))
        proofs = {mutant.proof for mutant in chosen} if arguments.by != "simulation" else set()
        untouched = Untouched(_copy(Path(folder) / "untouched"), proofs)

        def judge(mutant: Mutant) -> str:
            copy = copies.get()
            try:
                return _judge(mutant, copy, _checks(mutant, arguments.by), untouched)
            finally:
                copies.put(copy)

        begun = time.monotonic()
        with ThreadPoolExecutor(arguments.jobs) as pool:
            for mutant, verdict in zip(chosen, pool.map(judge, chosen), strict=True):
                killed = verdict.startswith("killed")
                survivors += not killed
                _say(f"{mutant.name:62} {verdict}")
    _say(f"{len(chosen) - survivors} of {len(chosen)} mutants killed in {time.monotonic() - begun:.0f} s")
    return 1 if survivors else 0


def _copy(folder: Path) -> Path:
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)
    return folder


class Untouched:
    """The code as it is, on which every check passes that is to say something about a mutant."""

    def __init__(self, copy: Path, proofs: set[str]) -> None:
        self._copy = copy
        self._lock = Lock()
        # All at once takes a tenth of the time; where one fails, each is asked by itself when it matters.
        together = bool(proofs) and not _fails(tested_by(*sorted(proofs))[1], copy)
        self._passes: dict[str, bool] = {tested_by(proof)[0]: True for proof in proofs} if together else {}

    def passes(self, check: Check) -> bool:
        name, command = check
        with self._lock:
            if name not in self._passes:
                self._passes[name] = not _fails(command, self._copy)
                if not self._passes[name]:
                    _say(f"{name} fails on the code as it is, and shows nothing")
            return self._passes[name]


def _checks(mutant: Mutant, by: str | None) -> list[Check]:
    """The mutant's own proof, then all the others."""
    checks = [check for kind, some in CHECKS.items() if by in (None, kind) for check in some]
    return checks if by == "simulation" else [tested_by(mutant.proof), *checks]


def _judge(mutant: Mutant, copy: Path, checks: list[Check], untouched: Untouched) -> str:
    originals: dict[Path, str] = {}
    try:
        for change in mutant.changes:
            path = copy / "wechat_token" / change.file
            text = path.read_text()
            originals.setdefault(path, text)
            if text.count(change.old) != 1:
                return f"DOES NOT FIT: {text.count(change.old)} matches in {change.file}"
            path.write_text(text.replace(change.old, change.new))
        for check in checks:
            if _fails(check[1], copy) and untouched.passes(check):
                return f"killed by {check[0]}"
        return "SURVIVED"
    finally:
        for path, text in originals.items():
            path.write_text(text)


def _fails(command: tuple[str, ...], copy: Path) -> bool:
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    # Two mutants within one second would otherwise share their compiled files.
    environment |= {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / ".hypothesis"),
    }
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=copy,
            env=environment,
            capture_output=True,
            timeout=LONGEST_CHECK,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
