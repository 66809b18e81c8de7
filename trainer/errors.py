"""How bad input ends: one clear line on standard error and exit code 1, never a traceback."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


class InputError(ValueError):
    """What a user gave can not be used.

    The message is one line: the file, record, field or parameter, what was found and what was
    expected.
    """


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Turn what the user or the machine got wrong into `error: …` and exit code 1.

    `InputError` and `OSError` (a missing file, a full disk) are the user's to mend and get one
    line. Everything else is a bug of ours and keeps its traceback.

    Raises:
        SystemExit: with code 1, in place of an `InputError` or `OSError`.
    """
    try:
        yield
    except InputError as error:
        _end(" ".join(str(error).split()))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _end(f"{where}{error.strerror or error}")


def _end(message: str) -> None:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(1) from None
