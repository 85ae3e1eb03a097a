"""A slice of the simulation for every test run. Each test is one command anybody can repeat; see ``__main__``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("greenlet")

ROOT = Path(__file__).resolve().parent.parent.parent


def simulate(*arguments: str) -> list[dict[str, str]]:
    """The figures of each run; fails with the history if an invariant was violated.

    In a process of its own: it brings its own settings and database, and takes over the package's clocks.
    """
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    lines = [line for line in done.stdout.splitlines() if line.startswith("passed")]
    return [dict(pair.split("=", 1) for pair in line.split()[1:]) for line in lines]


def test_simulation__healthy_site_calls_as_often_as_the_lives_demand():
    [run] = simulate("--seed=1", "--days=5", "--accounts=10", "--reads=1")
    assert float(run["pace"]) == pytest.approx(float(run["ideal"]), rel=0.001)
    assert (run["dead"], run["unavailable"], run["waits"]) == ("0", "0", "0")


def test_simulation__two_beats_are_no_stampede():
    [run] = simulate("--seed=2", "--days=1", "--accounts=10", "--beats=2")
    assert run["stampede"] == "1.000"


def test_simulation__readers_renew_without_celery():
    [run] = simulate("--seed=3", "--days=1", "--accounts=3", "--beats=0", "--reads=120", "--endpoint=stable")
    assert float(run["calls_per_account_day"]) <= 14
    assert (run["dead"], run["unavailable"], run["waits"]) == ("0", "0", "0")


def test_simulation__hammered_with_complaints():
    """Two hours of a broken client; the allowance has a day's figure, the invariants watch it."""
    [run] = simulate("--seed=4", "--days=0.083", "--accounts=1", "--hammer=0.5", "--reads=0")
    assert int(run["complaints"]) > 3000
    assert int(run["probes"]) <= 10 + 6 + 1


@pytest.mark.parametrize("seed", [11, 21, 31])
def test_simulation__usual_faults(seed):
    runs = simulate(f"--seed={seed}", "--runs=2", "--days=1", "--accounts=8", "--faults=1")
    assert sum(float(run["dead_seconds"]) for run in runs) == 0


@pytest.mark.parametrize("seed", [41, 51, 61])
def test_simulation__five_times_the_usual_faults(seed):
    runs = simulate(f"--seed={seed}", "--runs=2", "--days=1", "--accounts=8", "--faults=5")
    assert sum(float(run["dead_seconds"]) for run in runs) == 0


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_simulation__a_clock_an_hour_wrong_is_survived(seconds):
    """Complaints heal what a wrong clock lets live too long; no loop, no silent stop."""
    [run] = simulate("--seed=1", "--days=1", "--accounts=2", f"--jump={seconds}")
    assert float(run["calls_per_account_day"]) < 20


def test_simulation__tickets_of_a_healthy_site():
    [run] = simulate("--seed=5", "--days=0.3", "--accounts=2", "--tickets=A", "--reads=2", "--endpoint=stable")
    assert float(run["jsapi_ticket_dead_seconds"]) < 2
    assert (run["dead_tickets_served"], run["unavailable"]) == ("0", "0")


@pytest.mark.proof
@pytest.mark.parametrize("world", ["A", "B"])
def test_simulation__tickets_in_use_and_not_asked_for(world):
    """The first two hours, in which no birth is known, cost 240 calls; then one ticket costs 27 a day, or none."""
    [run] = simulate("--seed=6", "--days=3", "--accounts=3", f"--tickets={world}", "--rivals=0.5")
    assert float(run["jsapi_ticket_calls_per_account_day"]) < 240 / 3 + 40
    assert float(run["wx_card_ticket_calls_per_account_day"]) < (240 / 3 + 40) / 3
    dead = float(run["jsapi_ticket_dead_seconds"]) + float(run["wx_card_ticket_dead_seconds"])
    assert dead <= (30 * 9 if world == "A" else 0)


@pytest.mark.proof
@pytest.mark.parametrize(("world", "faults"), [("A", 1), ("A", 5), ("B", 5)])
def test_simulation__tickets_among_faults(world, faults):
    runs = simulate("--seed=71", "--runs=3", "--days=1.2", "--accounts=4", f"--tickets={world}", f"--faults={faults}")
    assert sum(float(run["dead_seconds"]) for run in runs) == 0


def test_simulation__one_seed_is_one_run():
    first, second = (simulate("--seed=7", "--days=0.5", "--accounts=4", "--faults=5")[0] for _ in range(2))
    assert first["digest"] == second["digest"]


def test_simulation__other_seeds_are_other_runs():
    runs = simulate("--seed=8", "--runs=2", "--days=0.1", "--accounts=2", "--faults=5")
    assert runs[0]["digest"] != runs[1]["digest"]
