"""The house stays simple: few rooms, few arrows, no circle, and one door to the engine."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.architecture import PACKAGE, Import, read

HOUSE = read(PACKAGE)
ENGINE = "wechat_token.engine"


def exported(module: str) -> set[str]:
    """The names in ``__all__``."""
    for node in HOUSE.modules[module].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError(f"{module} has no __all__")


def shown(imports: list[Import]) -> list[str]:
    return sorted({f"{found.importer}:{found.line} {found.target}" for found in imports})


# -- the package ---------------------------------------------------------------------------------------------


def test_package__has_few_rooms_and_arrows() -> None:
    assert len(HOUSE.rooms) < 34
    assert len(HOUSE.arrows) < 150
    assert len(read(PACKAGE, typed=True).arrows) < 150


def test_package__has_no_circle() -> None:
    assert HOUSE.circles == []


def test_package__forgets_what_a_process_keeps_in_one_place() -> None:
    places = {module for module, tree in HOUSE.modules.items() if "register_at_fork" in ast.unparse(tree)}
    assert places == {"wechat_token.process"}


def test_engine__is_entered_by_what_it_exports() -> None:
    """Also by what type checkers alone import: whoever needs a type of the engine's needs it exported."""
    names = exported(ENGINE)
    houses = [read(PACKAGE.parent / name, typed=True) for name in ("wechat_token", "example_project", "benchmarks")]
    past_the_door = [
        found
        for house in houses
        for found in house.imports
        if not f"{found.importer}.".startswith(f"{ENGINE}.")
        and f"{found.target}.".startswith(f"{ENGINE}.")
        and not (found.source == ENGINE and found.name in names)
    ]
    assert shown(past_the_door) == []


def test_schedule__is_pure() -> None:
    """R19: no Django, no clock, neither ours nor Python's."""
    schedule = f"{ENGINE}.schedule"
    imported = [found for found in HOUSE.imports if found.importer == schedule]
    assert imported
    impure = re.compile(r"(django|time|random|requests|wechat_token\.(clock|conf|models|querysets))(\.|$)")
    assert shown([found for found in imported if impure.match(found.target)]) == []
    text = ast.unparse(HOUSE.modules[schedule])
    assert re.findall(r"\.(?:now|today|utcnow)\(", text) == []


# -- what counts ---------------------------------------------------------------------------------------------


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        file = folder / "house" / f"{name.replace('__in__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "house"


def test_read__a_sub_package_is_one_room(tmp_path: Path) -> None:
    house = read(
        write(
            tmp_path, __init__="", hall="from .attic import box\nfrom .attic.box import lid",
            attic__in____init__="from .box import lid", attic__in__box="from . import trunk\nlid = 1",
            attic__in__trunk="from .. import hall",
        )
    )  # fmt: skip
    assert house.rooms == {"house", "hall", "attic"}
    assert house.arrows == {("hall", "attic"), ("attic", "hall")}
    assert len(house.modules) == 5
    assert house.arrows_of_modules == {
        ("house.hall", "house.attic.box"), ("house.attic", "house.attic.box"),
        ("house.attic.box", "house.attic.trunk"), ("house.attic.trunk", "house.hall"),
    }  # fmt: skip
    assert house.circles == [["attic", "hall"]]
    assert shown(house.ties("attic", "hall")) == ["house.attic.trunk:1 house.hall"]


def test_read__imports_inside_functions_count_and_those_of_type_checkers_do_not(tmp_path: Path) -> None:
    hall = """
import json
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from .attic import box
else:
    from .cellar import barrel
def walk():
    import house.garden
"""
    package = write(tmp_path, __init__="", hall=hall, attic="", cellar="", garden="")
    assert read(package).arrows == {("hall", "cellar"), ("hall", "garden")}
    assert read(package, typed=True).arrows == {("hall", "cellar"), ("hall", "garden"), ("hall", "attic")}


def test_read__names_that_the_package_defines_itself_lead_to_it(tmp_path: Path) -> None:
    package = write(tmp_path, __init__="__version__ = '1'", hall="from . import __version__")
    assert read(package).arrows == {("hall", "house")}
