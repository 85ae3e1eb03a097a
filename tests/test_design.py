"""docs/design.md states what the code cites: rules by R and S, facts about WeChat by W."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from wechat_token.platforms import errcodes
from wechat_token.platforms.official_account import OfficialAccountAccessToken

ROOT = Path(__file__).resolve().parent.parent
DESIGN = (ROOT / "docs/design.md").read_text()
STATED = set(re.findall(r"^(?:- \*\*|### )([RSW]\d+)\b", DESIGN, re.MULTILINE))
CITATION = re.compile(r"\b[RSW]\d{1,2}\b")  # three digits are a system check's or a linter's


def texts(*patterns: str) -> Iterator[tuple[Path, str]]:
    for pattern in patterns:
        for file in sorted(ROOT.glob(pattern)):
            if file != Path(__file__).resolve():
                yield file.relative_to(ROOT), file.read_text()


def test_design__states_whatever_is_cited() -> None:
    cited = {
        number: path
        for path, text in texts("wechat_token/**/*.py", "tests/**/*.py", "docs/*.md", "*.md")
        for number in CITATION.findall(text)
    }
    assert {"R1", "S2", "W5"} <= cited.keys()
    assert {number: str(path) for number, path in cited.items() if number not in STATED} == {}


@pytest.mark.parametrize(("letter", "last"), [("R", 36), ("S", 9), ("W", 22)])
def test_design__numbers_without_a_gap(letter: str, last: int) -> None:
    assert {name for name in STATED if name[0] == letter} == {f"{letter}{number}" for number in range(1, last + 1)}


def test_citations__lead_to_this_document_only() -> None:
    elsewhere = re.compile(r"(?<!co-)wechat-api\b(?! #| PR)|\bsections? \d|\bDESIGN\b|\bGROUND\b|\bCREDENTIALS\.md")
    found = [
        f"{path}: {match.group()}"
        for path, text in texts("wechat_token/**/*.py", "tests/**/*.py", "docs/*.md", "*.md")
        for match in elsewhere.finditer(text)
    ]
    assert found == []


def test_facts__classify_errcodes_as_the_code_does() -> None:
    rows = re.findall(r"^\| (transient|quota|human)[^|]*\| (.+) \|$", DESIGN, re.MULTILINE)
    stated = {}
    for error_class, codes in rows:
        for first, last in re.findall(r"(-1|\b\d{5})(?: to (\d{5}))?", codes):
            stated |= dict.fromkeys(range(int(first), int(last or first) + 1), error_class)
    assert len(stated) > 25
    assert stated == {code: OfficialAccountAccessToken().lookup(code).error_class.value for code in stated}
    dead = re.search(r"^### W10.*?Anything else", DESIGN, re.MULTILINE | re.DOTALL)
    assert dead is not None
    assert {int(code) for code in re.findall(r"\*\*(\d+)\*\*", dead.group())} == errcodes.DEAD_TOKEN_CODES


def test_words__another_system_is_called_nothing_else() -> None:
    """What people read; identifiers that are stored or public keep their old spelling (see the words)."""
    catalogue = (ROOT / "wechat_token/locale/zh_Hans/LC_MESSAGES/django.po").read_text()
    service = json.dumps(json.loads((ROOT / "wechat_token/api/openapi.json").read_text()))
    pages = {str(path): text for path, text in texts("docs/*.md", "*.md") if path.name != "design.md"}
    pages |= {"django.po": catalogue, "openapi.json": service}
    bare = {name: re.sub(r"`[^`]*`|```.*?```", "", text, flags=re.DOTALL) for name, text in pages.items()}
    assert [name for name, text in bare.items() if re.search(r"\b(?:rival|foreign)", text, re.IGNORECASE)] == []
