"""Names that Vertex AI's Model Registry takes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainer.errors import InputError

CHAMPION = "champion"
"""Alias of the version that the next model has to beat."""
DEFAULT = "default"
"""Alias of the version that is meant where none is named; it moves by itself, and is never off."""
_ID = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")


def check_names(model: str, aliases: Sequence[str]) -> None:
    """Raise `InputError` unless the registry takes these names."""
    if not _ID.fullmatch(model):
        raise InputError(
            f"registered model {model!r}: expected up to 63 of a-z, 0-9, - and _ as its "
            "id, no digit and no - first"
        )
    for alias in aliases:
        if not _ALIAS.fullmatch(alias):
            raise InputError(
                f"alias {alias!r} of model {model}: expected 2 to 128 of a-z, 0-9 and -, a letter "
                "first"
            )
