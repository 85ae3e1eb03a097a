"""The package as a house: its rooms, and the arrows between them.

::

    python -m tests.architecture [FOLDER OF A PACKAGE]

A **room** is a module at the top of the package or a sub-package with all that is in it. An **arrow** leads from one
room to another that it imports, at module level or inside a function. A **circle** is a set of rooms of which each
leads to each. Imports for type checkers alone are counted apart; names that the package loads by ``import_module``
when somebody asks for them are not seen. The last figure counts every file by itself.

Before the engine had a room of its own there were 41 rooms, 205 arrows and 2 circles. "44 rooms, 221 arrows" is that
tree with the arrows for type checkers (211), and with ``example_project``, ``benchmarks`` and ``.ci`` as a room each.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "wechat_token"

Arrow = tuple[str, str]


@dataclass(frozen=True)
class Import:
    """``importer`` takes ``name`` from ``source``, or ``source`` itself where ``name`` is ''. Dotted, absolute."""

    importer: str
    source: str
    name: str
    line: int

    @property
    def target(self) -> str:
        return f"{self.source}.{self.name}" if self.name else self.source


@dataclass(frozen=True)
class House:
    """What ``ast`` sees of a package; nothing of it is run. ``typed``: also what type checkers alone import."""

    name: str
    typed: bool
    modules: Mapping[str, ast.Module]  # by dotted name
    packages: frozenset[str]  # those of them that have modules inside

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(found for module, tree in self.modules.items() for found in _imports(self, module, tree))

    @cached_property
    def arrows_of_modules(self) -> frozenset[Arrow]:
        arrows = ((found.importer, self._module(found)) for found in self.imports)
        return frozenset((start, end) for start, end in arrows if end and start != end)

    @cached_property
    def rooms(self) -> frozenset[str]:
        return frozenset(map(self.room, self.modules))

    @cached_property
    def arrows(self) -> frozenset[Arrow]:
        arrows = ((self.room(start), self.room(end)) for start, end in self.arrows_of_modules)
        return frozenset((start, end) for start, end in arrows if start != end)

    @cached_property
    def circles(self) -> list[list[str]]:
        reached = {room: self._reached_from(room) for room in self.rooms}
        circles = {frozenset(b for b in reached[a] if a in reached[b]) for a in self.rooms}
        return sorted(sorted(circle) for circle in circles if circle)

    def room(self, module: str) -> str:
        return module.removeprefix(f"{self.name}.").partition(".")[0]

    def ties(self, start: str, end: str) -> list[Import]:
        """The imports that make up the arrow between two rooms."""
        return [
            found for found in self.imports
            if self.room(found.importer) == start and self.room(self._module(found) or found.importer) == end
        ]  # fmt: skip

    def _module(self, found: Import) -> str:
        """The module of this package that an import leads to; '' if it leads elsewhere."""
        return next((module for module in (found.target, found.source) if module in self.modules), "")

    def _reached_from(self, room: str) -> set[str]:
        reached: set[str] = set()
        new = {room}
        while new:
            new = {end for start, end in self.arrows if start in new} - reached
            reached |= new
        return reached


def read(package: Path, *, typed: bool = False) -> House:
    files = {".".join(file.relative_to(package.parent).with_suffix("").parts): file for file in package.rglob("*.py")}
    packages = frozenset(name.removesuffix(".__init__") for name in files if name.endswith(".__init__"))
    modules = {name.removesuffix(".__init__"): ast.parse(file.read_text()) for name, file in sorted(files.items())}
    return House(package.name, typed, modules, packages)


def _imports(house: House, module: str, tree: ast.Module) -> Iterator[Import]:
    package = module if module in house.packages else module.rpartition(".")[0]
    for node in ast.walk(tree) if house.typed else _run(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(module, alias.name, "", node.lineno)
            case ast.ImportFrom(names=names, level=level):
                source = _absolute(package, level, node.module or "")
                for alias in names:
                    yield Import(module, source, alias.name, node.lineno)


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, without what is for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for statement in child.orelse:
                yield statement
                yield from _run(statement)
        else:
            yield child
            yield from _run(child)


def _absolute(package: str, level: int, module: str) -> str:
    if level == 0:
        return module
    base = package.split(".")
    return ".".join([*base[: len(base) - level + 1], *([module] if module else [])])


def main() -> None:
    package = Path(sys.argv[1]).resolve() if sys.argv[1:] else PACKAGE
    house, typed = read(package), read(package, typed=True)
    ends = defaultdict(set)
    for start, end in house.arrows:
        ends[start].add(end)
    for room in sorted(house.rooms, key=lambda room: (-len(ends[room]), room)):
        print(f"{room:<14} -> {', '.join(sorted(ends[room])) or '-'}")
    for circle in house.circles:
        print(f"\ncircle: {', '.join(circle)}")
        for start in circle:
            for found in (tie for end in circle if end != start for tie in house.ties(start, end)):
                print(f"  {found.importer}:{found.line} imports {found.target}")
    print(f"\nrooms {len(house.rooms)}, arrows {len(house.arrows)}, circles {len(house.circles)}")
    print(f"with imports for type checkers: arrows {len(typed.arrows)}")
    print(f"modules {len(house.modules)}, imports between modules {len(house.arrows_of_modules)}")


if __name__ == "__main__":
    main()
