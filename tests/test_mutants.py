"""The catalogue of mutants fits the code: each still breaks something that is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import wechat_token
from tests.mutants.catalogue import MUTANTS, Mutant

PACKAGE = Path(wechat_token.__file__).parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant__fits_the_code(mutant: Mutant) -> None:
    texts: dict[str, str] = {}
    for change in mutant.changes:
        text = texts.get(change.file) or (PACKAGE / change.file).read_text()
        assert text.count(change.old) == 1, change.old
        texts[change.file] = text.replace(change.old, change.new)
    for text in texts.values():
        ast.parse(text)


def test_mutants__have_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("proof", sorted({mutant.proof for mutant in MUTANTS}))
def test_mutants__are_noticed_by_tests_that_exist(proof: str) -> None:
    file, _, test = proof.partition("::")
    assert f"def {test}" in (Path(__file__).parent / file).read_text()
