"""What an error gives away: all that an error page, an error tracker or a log could show of it (S2)."""

from __future__ import annotations

from pathlib import Path
from pprint import pformat

TESTS = str(Path(__file__).parent)


def visible(error: BaseException | None) -> str:
    """Texts, attributes, and the locals of every frame of an error and its causes.

    Frames of the tests themselves are left out, because tests name what they plant.
    """
    seen = []
    while error is not None:
        seen += [repr(error), str(error), repr(error.args), pformat(vars(error))]
        traceback = error.__traceback__
        while traceback is not None:
            if not traceback.tb_frame.f_code.co_filename.startswith(TESTS):
                for value in traceback.tb_frame.f_locals.values():
                    seen += [repr(value), pformat(value)]
            traceback = traceback.tb_next
        error = error.__cause__ or error.__context__
    return "\n".join(seen)
