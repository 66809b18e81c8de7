"""What the layers of an image weigh, each by the line of the Dockerfile that made it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from pipeline.docker_engine import docker_engine
from pipeline.image_names import dockerfile


@dataclasses.dataclass(frozen=True)
class Layer:
    """What a line of a Dockerfile adds: `bytes`, and the line in words."""

    bytes: int
    line: str


def layers(kind: str, name: str) -> list[Layer]:
    """The layers of an image that weigh something, the lowest first."""
    with docker_engine() as client:
        history = client.api.history(name)
    found = [Layer(entry["Size"], _line(entry["CreatedBy"])) for entry in reversed(history)]
    # The classic builder names what it copied by digest: the Dockerfile says it better.
    own = [
        line
        for one in (["cpu", kind] if kind == "dataflow" else [kind])
        for line in _lines_that_weigh(dockerfile(one).read_text(encoding="utf-8"))
    ]
    places = [n for n, layer in enumerate(found) if layer.line.startswith(("COPY", "RUN", "ADD"))]
    for place, line in zip(places[-len(own) :], own, strict=False):
        found[place] = dataclasses.replace(found[place], line=line)
    return [layer for layer in found if layer.bytes]


def _lines_that_weigh(text: str) -> list[str]:
    """The instructions of a Dockerfile's last stage that make layers."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
    return [line for line in lines[last:] if re.match(r"(COPY|RUN|ADD) ", line)]


def size_table(found: Sequence[Layer]) -> str:
    """Layers and their sum, for people."""
    lines = [f"  {layer.bytes / 1e6:>9,.1f} MB  {layer.line[:80]}" for layer in found]
    return "\n".join([*lines, f"  {sum(one.bytes for one in found) / 1e6:>9,.1f} MB  in all"])


def _line(created_by: str) -> str:
    """What made a layer, from either builder's words."""
    text = re.sub(r"^/bin/sh -c #\(nop\)\s*", "", created_by or "the base image")
    text = re.sub(r"\s*# buildkit$", "", text)
    text = re.sub(r"^(RUN )?(\|\d+ .*?)?\s*/bin/sh -c ", "RUN ", text)
    return re.sub(r"\s+", " ", text).strip()
