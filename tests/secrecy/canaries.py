"""What must not be seen, and the search for it in any of the shapes it may take."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

WINDOW = 12  # this many consecutive characters of a canary are a leak
_WORD = re.compile(rf"[0-9A-Za-z+/_=%.-]{{{WINDOW},}}")
_PLAIN = re.compile(r"[0-9A-Za-z+/_=%.-]+")


class Canaries:
    """Named secrets. ``repr`` shows the names only, as this object lies in frames of tests."""

    def __init__(self) -> None:
        self._windows: dict[str, str] = {}  # of what is made of the characters of words
        self._needles: dict[str, str] = {}  # of what is not, to be searched as it is
        self._clean: set[str] = set()  # words that were looked at; most come again and again

    def __repr__(self) -> str:
        return f"<Canaries: {len(self._windows) + len(self._needles)} pieces>"

    def plant(self, name: str, text: str) -> None:
        for shape in _shapes(text):
            is_word = _PLAIN.fullmatch(shape) and len(shape) >= WINDOW
            known, step = (self._windows, 1) if is_word else (self._needles, WINDOW // 2)
            starts = range(0, max(len(shape) - WINDOW, 0) + 1, step)
            self._clean.clear()
            known.update(dict.fromkeys((shape[i : i + WINDOW] for i in starts), name))

    def find(self, text: str) -> Iterator[tuple[str, str]]:
        """Name of the canary, and the text around it, once for each canary that shows."""
        found: dict[str, str] = {}
        for word in set(_WORD.findall(text)) - self._clean:
            pieces = {word[i : i + WINDOW] for i in range(len(word) - WINDOW + 1)} & self._windows.keys()
            found |= {self._windows[piece]: piece for piece in pieces}
            if not pieces:
                self._clean.add(word)
        for needle, name in self._needles.items():
            if name not in found and needle in text:
                found[name] = needle
        for name, piece in found.items():
            at = text.index(piece)
            yield name, text[max(at - 80, 0) : at + 80]


def _shapes(text: str) -> set[str]:
    """As it is, and as URLs, JSON, Python, HTML, base64 and hex would write it."""
    octets = text.encode()
    shapes = {
        text, quote(text), quote(text, safe=""), quote_plus(text), html.escape(text), octets.hex(),
        json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1], repr(octets)[2:-1],
    }  # fmt: skip
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for lead in range(3):
            # Inside a longer text base64 can begin at any third: its first and last characters then depend on others.
            shapes.add(encode(b"\0" * lead + octets).decode()[4 if lead else 0 :].rstrip("=")[:-1])
    return shapes
