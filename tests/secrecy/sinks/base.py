"""What a sink is, and how its texts are got out of errors, objects and files."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat
from typing import Any, Final

from django.forms import BaseForm

from tests.secrecy.scene import Scene
from wechat_token import clock
from wechat_token.models import Account, Token

Seen = Iterable[tuple[str, str]]  # where, and what could be read there


@dataclass(frozen=True, slots=True)
class Sink:
    name: str
    collect: Callable[[Scene], Seen]
    plant: Callable[[Scene, str], object]


SINKS: Final[list[Sink]] = []


def sink(name: str, plant: Callable[[Scene, str], object]) -> Callable[[Callable[[Scene], Seen]], Any]:
    def add(collect: Callable[[Scene], Seen]) -> Callable[[Scene], Seen]:
        SINKS.append(Sink(name, collect, plant))
        return collect

    return add


def name_account(scene: Scene, text: str) -> None:
    account = Account.objects.create(appid=text, secret="x")
    Token.objects.filter(account=account).update(failures=1, error_class="human", errcode=40013, failed_at=clock.now())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def errors_of(scene: Scene) -> Iterator[BaseException]:
    """With their causes; one of those that say the same and come from the same lines."""
    seen: set[object] = set()
    for error in scene.recorder.errors:
        origin = tuple((frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__))
        same = type(error), str(error), origin
        if same not in seen:
            seen.add(same)
            yield from _chain(error)


def shown(value: Any) -> str:
    """All that repr, str and pprint say; some objects of Django's fail at it when the configuration is wrong."""
    texts = []
    for show in (repr, str, lambda value: pformat(contents(value))):
        try:
            texts.append(show(value))
        except Exception as error:
            texts.append(repr(error))
    return "\n".join(texts)


def contents(value: Any) -> Any:
    """What is inside an object that this package or its HTTP client made.

    Nobody looks inside Django's requests and forms, which hold what was typed.
    """
    if isinstance(value, BaseForm):
        return value
    ours = type(value).__module__.partition(".")[0] in ("wechat_token", "requests", "urllib3", "http", "tests")
    return getattr(value, "__dict__", value) if ours else value


def pickled(thing: Any) -> str:
    try:
        return pickle.dumps(thing).decode("latin-1")
    except Exception as error:  # what cannot be pickled says so
        return f"{error!r}"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []
