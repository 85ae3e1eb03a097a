"""``ground``: one site a database, made when first needed, for the whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from .site import Ground, ground_on, in_journal_mode


@pytest.fixture(scope="session")
def grounds() -> Iterator[Callable[[str], Ground]]:
    made: dict[str, Ground] = {}
    with ExitStack() as stack:

        def get(name: str) -> Ground:
            if name not in made:
                if name == "sqlite-journal":
                    made[name] = in_journal_mode(get("sqlite"))
                else:
                    made[name] = stack.enter_context(ground_on(name))
            return made[name]

        yield get


@pytest.fixture
def ground(request: pytest.FixtureRequest, grounds: Callable[[str], Ground]) -> Iterator[Ground]:
    ground = grounds(request.param)
    yield ground
    ground.end()
