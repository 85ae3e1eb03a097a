from __future__ import annotations

from pathlib import Path

import pytest

from .sdks.__main__ import NPM, SDKS
from .sdks.drive import DRIVERS

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path for path in (ROOT / "tests/sdks/recipes").glob("[!_]*") if path.suffix in (".py", ".js"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_docs__show_the_very_file_that_runs(recipe: Path) -> None:
    assert recipe.read_text() in (ROOT / "docs/sdks.md").read_text()


def test_drivers__cover_every_sdk_of_the_table() -> None:
    npm = {spec.partition("@")[0] for spec in NPM}
    assert {sdk.name for sdk in SDKS if sdk.module} == set(DRIVERS)
    assert {sdk.name for sdk in SDKS if not sdk.module} <= npm
