"""The runbook: an entry for every cause, and both languages alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wechat_token.diagnosis import problems

DOCS = Path(__file__).resolve().parents[2] / "docs"
ENGLISH, CHINESE = (DOCS / name for name in ("operations.md", "operations.zh-CN.md"))


def entries(path):
    return re.findall(r"^### ([a-z-]+)$", path.read_text(), re.MULTILINE)


def causes():
    """Every cause that the code can tell of: the literals in front of which a problem is made."""
    source = Path(problems.__file__).read_text()
    found = set(re.findall(r'(?:Problem|_of_hosts)\(\s*f?"([a-z-]+)', source))
    return found | set(re.findall(r'return f?"([a-z-]+)[/"]', source)) | {"appsecret", "refused"}


def test_runbook__has_an_entry_for_every_cause():
    assert len(causes()) > 20
    assert set(entries(ENGLISH)) == causes()


def test_runbook__is_the_same_in_both_languages():
    assert entries(ENGLISH) == entries(CHINESE)
    blocks = [re.findall(r"```(\w+)\n", path.read_text()) for path in (ENGLISH, CHINESE)]
    assert blocks[0] == blocks[1]
    commands = [set(re.findall(r"manage\.py wechat_token [a-z-]+", path.read_text())) for path in (ENGLISH, CHINESE)]
    assert commands[0] == commands[1]


@pytest.mark.parametrize("path", [ENGLISH, CHINESE])
def test_operations__links_lead_somewhere(path):
    text = path.read_text()
    anchors = {
        re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    anchors |= set(re.findall(r'<a id="([\w-]+)">', text))
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= anchors
    for target in re.findall(r"\]\(([\w./-]+\.md)", text):
        assert (path.parent / target).exists()
