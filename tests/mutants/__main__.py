"""``python -m tests.mutants [--jobs 2] [--by tests|simulation] [NAME…]``

Applies each mutant to a copy of the repository and runs a quick selection until something fails. Prints which
command killed it. Exit status 1 if a mutant survives, or if one no longer fits the code.
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

from .catalogue import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("wechat_token", "tests", "example_project", "pyproject.toml", "manage.py")
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly")
SIMULATION = ("-m", "tests.simulation", "--days=1", "--accounts=8")

CHECKS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "tests": (
        ("test_schedule", (*PYTEST, "tests/test_schedule.py", "tests/test_schedule_answers.py")),
        ("test_refresh, test_serving", (*PYTEST, "tests/test_refresh.py", "tests/test_serving.py")),
    ),
    "simulation": (
        ("simulation, two beats", (*SIMULATION, "--seed=1", "--beats=2")),
        ("simulation, no Celery", (*SIMULATION, "--seed=2", "--days=0.3", "--beats=0", "--reads=60")),
        ("simulation, hammered", (*SIMULATION, "--seed=3", "--days=0.05", "--accounts=1", "--hammer=1", "--reads=60")),
        ("simulation, usual faults", (*SIMULATION, "--seed=11", "--runs=3", "--faults=1")),
        ("simulation, five times", (*SIMULATION, "--seed=41", "--runs=12", "--faults=5")),
    ),
}
LONGEST_CHECK = 240.0  # seconds; a mutant that makes everything hang is noticed too


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; left out: all")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--by", choices=list(CHECKS), help="only the tests, or only the simulation")
    arguments = parser.parse_args()
    chosen = [m for m in MUTANTS if not arguments.names or any(name in m.name for name in arguments.names)]
    checks = [check for kind, some in CHECKS.items() if arguments.by in (None, kind) for check in some]
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(arguments.jobs):
            copies.put(_copy(Path(folder) / str(number)))

        def judge(mutant: Mutant) -> str:
            copy = copies.get()
            try:
                return _judge(mutant, copy, checks)
            finally:
                copies.put(copy)

        begun = time.monotonic()
        with ThreadPoolExecutor(arguments.jobs) as pool:
            for mutant, verdict in zip(chosen, pool.map(judge, chosen), strict=True):
                killed = verdict.startswith("killed")
                survivors += not killed
                _say(f"{mutant.name:52} {verdict}")
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


def _judge(mutant: Mutant, copy: Path, checks: list[tuple[str, tuple[str, ...]]]) -> str:
    originals: dict[Path, str] = {}
    try:
        for change in mutant.changes:
            path = copy / "wechat_token" / change.file
            text = path.read_text()
            originals.setdefault(path, text)
            if text.count(change.old) != 1:
                return f"DOES NOT FIT: {text.count(change.old)} matches in {change.file}"
            path.write_text(text.replace(change.old, change.new))
        for name, command in checks:
            if _fails(command, copy):
                return f"killed by {name}"
        return "SURVIVED"
    finally:
        for path, text in originals.items():
            path.write_text(text)


def _fails(command: tuple[str, ...], copy: Path) -> bool:
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    # Two mutants within one second would otherwise share their compiled files.
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / ".hypothesis")}
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
