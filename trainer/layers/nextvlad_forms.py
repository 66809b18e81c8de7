"""Which form of the NeXtVLAD layer is the fastest: counted products, and what they cost here.

The three forms trade products of different shapes (see `trainer.layers.nextvlad`). A form's cost is
that of the nearest case in `nextvlad_measurements.csv`, times the ratio of what a model says of the
two:

    milliseconds = c₁ · multiply-adds + c₂ · values that element-wise operations touch + c₃

with c ≥ 0 fitted to the measurements, one fit for each device and precision. So a case that was
measured costs what was measured. `python -m benchmarks.layer_forms --record` measures anew.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from pathlib import Path
from typing import Literal

import keras
import numpy as np
from numpy.typing import NDArray

Form = Literal["direct", "folded", "fast"]
FORMS: tuple[Form, ...] = ("direct", "folded", "fast")
MEASUREMENTS = Path(__file__).with_name("nextvlad_measurements.csv")
UNKNOWN_BATCH, UNKNOWN_FRAMES = 32, 300
"""What is assumed of a dimension that a graph leaves open."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the cost of a call depends on.

    Attributes:
        batch, frames, dimensions: B, T, D of the inputs.
        groups, clusters, expansion: G, K, λ of the layer.
        training: whether gradients of the weights (not of the inputs) follow.
    """

    batch: int
    frames: int
    dimensions: int
    groups: int
    clusters: int
    expansion: int
    training: bool


def multiply_adds(shape: Shape, form: Form) -> int:
    """Multiply-adds of a call's products; with `training`, of its backward pass too.

    A product costs as much again for each factor that needs a gradient; x needs none.
    """
    rows = shape.batch * shape.frames
    columns = shape.groups * shape.clusters
    expanded = shape.expansion * shape.dimensions
    of_x, of_two = (2, 3) if shape.training else (1, 1)
    logits = rows * shape.dimensions * (columns + shape.groups)
    expansion = rows * shape.dimensions * expanded
    aggregation = rows * shape.clusters * expanded
    if form == "direct":
        wide_logits = rows * expanded * (columns + shape.groups)
        return of_x * expansion + of_two * (wide_logits + aggregation)
    if form == "folded":
        return of_x * (logits + expansion) + of_two * (aggregation + folding(shape))
    sums = rows * shape.dimensions * columns
    expanded_sums = shape.batch * shape.clusters * shape.dimensions * expanded
    return of_x * (logits + sums) + of_two * (expanded_sums + folding(shape))


def folding(shape: Shape) -> int:
    """Multiply-adds of the product of the two matrices, which no frame has part in."""
    columns = shape.groups * (shape.clusters + 1)
    return shape.dimensions * shape.expansion * shape.dimensions * columns


def values_touched(shape: Shape, form: Form) -> int:
    """Values that element-wise operations read or write in a call."""
    rows = shape.batch * shape.frames
    columns = shape.groups * shape.clusters
    made = rows * columns
    if form == "fast":
        made += shape.batch * columns * shape.dimensions
    else:
        made += rows * shape.expansion * shape.dimensions
    return made * (3 if shape.training else 1)


@functools.cache
def fastest(shape: Shape, device: str, precision: str) -> Form:
    """The form with the least cost; on a device without measurements, with the fewest products.

    Args:
        shape: of the call.
        device: "cpu", "gpu" or another kind.
        precision: compute dtype.
    """
    return min(FORMS, key=lambda form: cost(shape, form, device, precision))


def cost(shape: Shape, form: Form, device: str, precision: str) -> float:
    """Milliseconds of a call; on a device without measurements 10⁹ multiply-adds.

    A precision that was not measured on a device goes by the nearest that was: float64 by
    float32, the two half precisions by each other.
    """
    near = {"float64": "float32", "float16": "bfloat16", "bfloat16": "float16"}
    for wanted in (precision, near.get(precision, "")):
        rate = coefficients(device, wanted)
        if rate is not None:
            case, milliseconds = min(
                ((row[2], row[4]) for row in measurements() if row[:2] == (device, wanted)
                 and row[3] == form),
                key=lambda row: _distance(shape, row[0]),
            )  # fmt: skip
            modelled = _counts(shape, form) @ rate / (_counts(case, form) @ rate)
            return float(milliseconds * modelled)
    return multiply_adds(shape, form) / 1e9


def _distance(one: Shape, other: Shape) -> float:
    """How far two shapes are apart: their ratios, training and inference further than any."""
    sizes = [
        (
            shape.batch,
            shape.frames,
            shape.dimensions,
            shape.groups * shape.clusters,
            shape.expansion,
        )
        for shape in (one, other)
    ]
    apart = float(np.abs(np.log(sizes[0]) - np.log(sizes[1])).sum())
    return apart + 1e3 * (one.training != other.training)


def _counts(shape: Shape, form: Form) -> NDArray[np.float64]:
    """[3], in the units that the coefficients are for: 10⁹ products, 10⁶ values, 1."""
    return np.array([multiply_adds(shape, form) / 1e9, values_touched(shape, form) / 1e6, 1.0])


@functools.cache
def coefficients(device: str, precision: str) -> NDArray[np.float64] | None:
    """[3]: milliseconds for 10⁹ products, 10⁶ values and a call; None: nothing was measured."""
    rows = [row[2:] for row in measurements() if row[:2] == (device, precision)]
    if not rows:
        return None
    counts = np.stack([_counts(shape, form) for shape, form, _ in rows])
    return _nonnegative_fit(counts, np.array([milliseconds for *_, milliseconds in rows]))


@functools.cache
def measurements() -> tuple[tuple[str, str, Shape, Form, float], ...]:
    """Rows of the repository's measurements: device, precision, shape, form, milliseconds."""
    fields = [field.name for field in dataclasses.fields(Shape)]
    if not MEASUREMENTS.is_file():
        return ()
    with MEASUREMENTS.open(newline="", encoding="utf-8") as file:
        return tuple(
            (
                row["device"],
                row["precision"],
                Shape(**{f: int(row[f]) for f in fields[:-1]}, training=row["training"] == "1"),
                next(form for form in FORMS if form == row["form"]),
                float(row["milliseconds"]),
            )
            for row in csv.DictReader(line for line in file if not line.startswith("#"))
        )


def _nonnegative_fit(
    counts: NDArray[np.float64], milliseconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Least squares of the relative errors with coefficients ≥ 0: the best subset of columns."""
    scaled = counts / milliseconds[:, None]
    best, least = np.zeros(3), np.inf
    for subset in ([0], [0, 1], [0, 2], [0, 1, 2]):
        found = np.linalg.lstsq(scaled[:, subset], np.ones(len(counts)), rcond=None)[0]
        error = float(np.sum((scaled[:, subset] @ found - 1) ** 2))
        if (found >= 0).all() and error < least:
            best, least = np.zeros(3), error
            best[subset] = found
    return best


@functools.cache
def device() -> str:
    """Kind of the first device of Keras's backend: "cpu", "gpu" or another."""
    # Asked for a kind that there is none of, JAX raises; asked for any, it names the CPU last.
    return str(keras.distribution.list_devices()[0]).partition(":")[0]
