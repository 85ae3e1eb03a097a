"""What the documentation names exists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.live.faults import CALAMITIES
from tests.simulation import swarm
from wechat_token import conf

ROOT = Path(__file__).resolve().parent.parent
RELIABILITY = (ROOT / "docs/reliability.md").read_text()


def named(pattern: str) -> set[str]:
    found = set(re.findall(pattern, RELIABILITY))
    assert found, "the document no longer names any"
    return found


def test_reliability__names_tests_that_exist() -> None:
    sources = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert named(r"`(test_\w+__\w+)`") <= set(re.findall(r"def (test_\w+)\(", sources))


def test_reliability__names_live_faults_that_exist() -> None:
    assert named(r"`chaos: ([a-z0-9][^`]+)`") <= {calamity.name for calamity in CALAMITIES}


def test_reliability__names_simulated_faults_that_exist() -> None:
    assert named(r"`swarm: (\w+)`") <= {*swarm.NAMES, *swarm.FIXED}


def test_reliability__names_files_that_exist() -> None:
    assert not [path for path in named(r"`(tests/[\w/]+\.py)`") if not (ROOT / path).exists()]


def test_reliability__numbers_its_faults_without_a_gap() -> None:
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", RELIABILITY, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 40


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_readme__lists_every_setting_in_both_languages(readme: str) -> None:
    rows = re.findall(r"^\| (`[A-Z_]+`(?:[,、] ?`[A-Z_]+`)*) \|", (ROOT / readme).read_text(), re.MULTILINE)
    listed = re.findall(r"`([A-Z_]+)`", " ".join(rows))
    assert sorted(listed) == sorted(conf.known_keys())


# -- docs/security.md

ASVS = 253  # requirements of levels 1 and 2 in version 5.0.0
STATES = ("met", "partly", "not met", "host", "n/a")
SECURITY = (ROOT / "docs/security.md").read_text()
JUDGED = re.findall(r"^\| (\d+)\.(\d+)\.(\d+) \| [^|]+ \| ([^|]+) \|", SECURITY, re.MULTILINE)


def test_security__has_every_requirement_once_in_order_with_a_verdict() -> None:
    numbers = [tuple(map(int, row[:3])) for row in JUDGED]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == ASVS
    assert {row[3] for row in JUDGED} == set(STATES)


def test_security__sums_up_what_it_says() -> None:
    counts = Counter(row[3] for row in JUDGED)
    assert f"| {' | '.join(str(counts[state]) for state in STATES)} | {ASVS} |" in SECURITY


def test_security__every_gap_says_why() -> None:
    rows = re.findall(r"^\| ([\d.]+) \| [^|]+ \| (?:partly|not met) \|([^|]*)\|$", SECURITY, re.MULTILINE)
    assert rows
    assert not [number for number, why in rows if not why.strip()]
