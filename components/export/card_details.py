"""What a model card says of the model itself: its making, its files, its configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from components.download.plan import is_release
from components.export.card_facts import CardFacts
from trainer.config import Config
from trainer.manifest import Manifest
from trainer.progress import duration
from trainer.reporting.document import Cell, Code, Heading, Literal, Part, Section, Table, Text
from trainer.source_digest import code_version

_GATE = ("evaluation", "min_gap")
"""Told to the gate alone; the export step has no value of it to state."""


def details(facts: CardFacts) -> Section:
    """What it is, the code and data it was made with, and what was checked of the export."""
    export, training = facts.export, facts.training
    last = training["history"][-1]
    seconds = training["timings"][-1]["training_seconds"]
    rows: list[tuple[str, Cell]] = [
        ("model", Literal(facts.model.name)),
        ("records", f"{facts.manifest.level} level"),
        ("code", Literal(code_version())),
        ("TensorFlow, Keras", f"{tf.__version__}, {keras.__version__}"),
        ("data fingerprint", Literal(facts.manifest.fingerprint)),
        ("trained", f"{last['epoch']:,} epochs, {last['step']:,} steps, {last['examples']:,} "
                    f"examples in {duration(seconds)} of training time"),
        ("weights trained", f"{training['parameters']:,}"),
        ("weights served", f"{facts.model.count_params():,}, stored as {export['weights']}"),
        ("size", f"{export['bytes']:,} bytes"),
        ("reload check", f"a fresh process without the project's code scored "
                         f"{export['reloaded_records']:,} records within "
                         f"{export['largest_difference']:.1g} of the scores of "
                         f"{export['compared_with']}"),
        *_optional(export),
        ("licence", _licence(facts.manifest)),
    ]  # fmt: skip
    layers = [
        (Literal(layer.name), type(layer).__name__, f"{layer.count_params():,}", _settings(layer))
        for layer in facts.model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]
    return Section(
        "Model details",
        "What it is, and what it was made with.",
        [
            Table(("", ""), rows),
            Heading("Architecture, as served"),
            Table(("layer", "kind", "weights", "settings"), layers),
        ],
    )


def _optional(export: dict[str, Any]) -> list[tuple[str, Cell]]:
    rows: list[tuple[str, Cell]] = []
    if half := export.get("float16"):
        rows.append(
            ("cost of float16", f"GAP@20 {half['gap_float16']:.5f} against "
             f"{half['gap_float32']:.5f} with float32 weights on the same {half['videos']:,} "
             f"videos: a loss of {half['gap_loss']:.1g}; scores differ by up to "
             f"{half['largest_change']:.1g}")
        )  # fmt: skip
    if onnx := export.get("onnx"):
        rows.append(
            ("ONNX", f"{onnx['file']}, {onnx['bytes']:,} bytes, opset {onnx['opset']}: onnxruntime "
             f"{onnx['onnxruntime']} scored {onnx['records']:,} records within "
             f"{onnx['largest_difference']:.1g} of the SavedModel")
        )  # fmt: skip
    return rows


def _settings(layer: keras.Layer) -> str:
    """The plain values of a layer's configuration: sizes and the names of choices."""
    config = layer.get_config()
    plain = {
        name: value
        for name, value in config.items()
        if isinstance(value, str | int | float)
        and not isinstance(value, bool)
        and name not in ("name", "dtype")
    }
    return ", ".join(f"{name} {value}" for name, value in plain.items())


def _licence(manifest: Manifest) -> str:
    if manifest.oracle:
        return "of the data: none, it is generated; no record of YouTube-8M is in it"
    of_google = "YouTube-8M is by Google, under CC BY 4.0: name it where the model is used"
    prefix = "" if is_release(manifest.source) else "if the data are YouTube-8M's: "
    return f"{prefix}{of_google}"


def loading(export: dict[str, Any]) -> Section:
    """Lines of Python that work as they stand, and the signatures of `export.json`."""
    rows = [
        (Literal(name), _tensors(one["inputs"]), _tensors(one["outputs"]))
        for name, one in export["signatures"].items()
    ]
    snippet = """\
import tensorflow as tf

model = tf.saved_model.load("saved_model")
serve = model.signatures["serving_default"]
records = tf.data.TFRecordDataset("/path/to/shard.tfrecord").batch(8)
answer = serve(examples=next(iter(records)))
best = zip(answer["names"][0, :3].numpy(), answer["scores"][0, :3].numpy())
print(*best)  # the best classes of the first video"""
    return Section(
        "How to load it",
        "The SavedModel beside this card needs TensorFlow alone; parsing, normalisation and the "
        "names of the classes are inside.",
        [
            Code(snippet, "python"),
            Table(("signature", "takes", "returns"), rows),
            Code("saved_model_cli show --dir saved_model --all", "sh"),
        ],
    )


def _tensors(tensors: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in tensors.items())


def configuration(facts: CardFacts) -> Section:
    """What is not the default first; all of it below."""
    values = facts.config.as_dict()
    for section in values:
        # As it was trained: the pipeline's own parameters are known to that step alone.
        values[section] |= facts.trained.get(section, {})
    changed, every = [], []
    for section, defaults in Config().as_dict().items():
        fields = {f.name: f for f in dataclasses.fields(getattr(facts.config, section))}
        for name, default in defaults.items():
            if (section, name) == _GATE:
                continue
            value = values[section][name]
            row = (Literal(f"{section}.{name}"), Literal(_shown(value)))
            every.append((*row, fields[name].metadata["description"]))
            if value != default:
                changed.append((*row, Literal(_shown(default))))
    parts: list[Part] = [Table(("parameter", "value", "default"), changed)]
    if not changed:
        parts = [Text("All parameters have their defaults.")]
    return Section(
        "Configuration",
        "What differs from the defaults; with the data and the code above it makes this model "
        "again.",
        [*parts, Table(("parameter", "value", "what it is"), every, folded="All parameters")],
    )


def _shown(value: Any) -> str:
    if value == "":
        return "(empty)"
    return str(value).lower() if isinstance(value, bool) else str(value)
