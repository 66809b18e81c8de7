"""The classes that release 3 rates segments for, from its `segment_label_ids.csv`.

A heading, and the index of a class in each line:
https://research.google.com/youtube8m/download.html.
"""

from __future__ import annotations

from trainer.errors import InputError


def parse_segment_labels(content: bytes, name: str) -> tuple[int, ...]:
    """Indices of classes, ascending.

    Args:
        content: of the file.
        name: of the file, for messages.

    Raises:
        InputError: a line that is no index, an index that stands there twice, or none at all.
    """
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: expected text in UTF-8 ({error})") from None
    found: set[int] = set()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or (number == 1 and not text.isdecimal() and text.isidentifier()):
            continue  # the heading
        if not text.isdecimal() or len(text) > 9:
            raise InputError(
                f"{name}: line {number}: found {text[:60]!r}, expected the index of a class"
            )
        if int(text) in found:
            raise InputError(f"{name}: line {number}: class {int(text)} stands there twice")
        found.add(int(text))
    if not found:
        raise InputError(f"{name}: names no class")
    return tuple(sorted(found))
