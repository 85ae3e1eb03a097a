"""What must not be seen (S2): a wrapper that shows itself only on demand, a cleaner for WeChat's texts, and the one way
of any foreign text to a log line or a terminal."""

from __future__ import annotations

import hmac
import json
import re
import string
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn
from urllib.parse import quote, quote_plus

MASK: Final = "********"


class Secret:
    """A secret string whose repr, str, format, pickle and comparison give nothing away.

    Unwrap with :meth:`reveal` in the last frame that needs the text, and do not bind the result to a name
    that outlives the call: tracebacks show the locals of every frame.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        """Constant-time comparison with another secret; never equal to a plain string."""
        if not isinstance(other, Secret):
            return NotImplemented
        # "surrogatepass": an UnicodeEncodeError would carry the text in its ``object``.
        return hmac.compare_digest(
            self.reveal().encode(errors="surrogatepass"), other.reveal().encode(errors="surrogatepass")
        )

    __hash__ = None  # type: ignore[assignment]  # a hash table would compare in variable time

    def __repr__(self) -> str:
        return f"<Secret {MASK}>" if self else "<Secret empty>"

    def __str__(self) -> str:
        return MASK if self else ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: pass the account's id, read the secret where it is used")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret has no state to hand out")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self


_RID = re.compile(r"\brid:\s*([0-9A-Za-z-]{1,64})")
_TRAILER = re.compile(r" ?(?:\bhints?: ?\[[^\]]*\]|\brid: ?[0-9A-Za-z-]*) ?")
# Anything that could be a credential: WeChat's AppSecrets are 32 hex digits, its tokens run to 100 and more.
_CREDENTIAL_CHARACTERS: Final = string.ascii_letters + string.digits + "_=+/-"
_CREDENTIAL_LIKE = re.compile(rf"[{_CREDENTIAL_CHARACTERS}]{{30,}}")
# What takes no room, turns the direction of writing, or (half of a surrogate pair) cannot be stored.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_LONGEST_ERRMSG: Final = 2_000  # of a text to clean; WeChat's own are below 300


def find_rid(text: str) -> str:
    """The request id WeChat puts at the end of ``errmsg`` since about 2020, or ''."""
    found = _RID.search(text)
    return found.group(1) if found else ""


def without(text: str, secret: Secret) -> str:
    """The text with ``secret`` masked, however URLs and JSON write it: what refuses a request may quote it.

    A secret of less than 8 characters is none, and masking it would make the text unreadable.
    """
    for write in _SPELLINGS if len(secret.reveal()) >= _SHORTEST_SECRET else ():
        text = text.replace(write(secret.reveal()), MASK)
    return text


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]


_SHORTEST_SECRET: Final = 8
_SPELLINGS: Final[tuple[Callable[[str], str], ...]] = (
    str,
    _in_json,
    # "surrogatepass": see Secret.__eq__
    partial(quote, safe="", errors="surrogatepass"),
    partial(quote_plus, errors="surrogatepass"),
    partial(quote, errors="surrogatepass"),
)


def clean_errmsg(text: object, *, limit: int = 200) -> str:
    """WeChat's ``errmsg`` fit for a log line or a page: one line, no rid or hint, nothing that looks secret.

    Codes decide, never this text (docs/design.md W11); it is for people only. A hostile text costs no
    more time than a long one (R11).
    """
    flat = str(text)
    if len(flat) > _LONGEST_ERRMSG:
        # What the cut leaves of a credential would be too short to be recognised as one.
        flat = flat[:_LONGEST_ERRMSG].rstrip(_CREDENTIAL_CHARACTERS)
    flat = " ".join(_CONTROL.sub(" ", _INVISIBLE.sub("", flat)).split())
    flat = _CREDENTIAL_LIKE.sub(MASK, _TRAILER.sub(" ", flat))
    return flat.strip()[:limit]


# Categories of characters that end a line, drive a terminal, hide, or turn the direction of writing.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS: Final = "\u200c\u200d"  # parts of emoji and of Persian words

_LONGEST_LINE: Final = 4_000


def one_line(text: object) -> str:
    """A foreign text fit for a log line or a terminal: what would end the line, move the cursor, hide or turn the
    direction of writing stands there as Python writes it (``\\n``, ``\\x1b``, ``\\u202e``). Text that is none of that
    comes back as it is, cut after 4,000 characters.
    """
    line = str(text)
    if len(line) > _LONGEST_LINE:
        line = f"{line[:_LONGEST_LINE]}… ({len(line)} characters)"
    if line.isprintable():
        return line
    return "".join(_escaped(char) if is_unseen(char) else char for char in line)


def is_unseen(char: str) -> bool:
    """Whether this character does something other than to be seen."""
    return unicodedata.category(char) in _UNSEEN and char not in _JOINERS


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
