"""Every parameter once: name, type, default, range, unit and source.

The sections are frozen dataclasses. A run is described by a `Config`; what a person changes comes
in as overrides (`{"training": {"epochs": 3}}`), checked here: an unknown name, a wrong type or a
number out of range is an `InputError` that names the parameter.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from trainer.errors import InputError


def _parameter(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A field with its description and its range: `minimum` ≤, `above` <, ≤ `maximum`."""
    limits = {"minimum": minimum, "maximum": maximum, "above": above, "choices": choices}
    return dataclasses.field(default=default, metadata={"description": description, **limits})


MODEL_NAMES = (
    "nextvlad",
    "nextvlad_mixture",
    "netvlad",
    "dbof",
    "mean_pooling",
    "logistic",
    "moe",
    "mlp",
)
"""Each is the module of its name in `trainer/architectures/`."""

FLAT = {
    "model": ("model", "name"),
    "epochs": ("training", "epochs"),
    "batch_size": ("training", "batch_size"),
    "learning_rate": ("training", "learning_rate"),
    "seed": ("training", "seed"),
    "min_gap": ("evaluation", "min_gap"),
}
"""Parameters that the pipeline has by a name of their own: name → (section, field)."""


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """The built-in sample (`components.download.sample`)."""

    num_classes: int = _parameter(100, "classes", minimum=2, maximum=3862)
    train_videos: int = _parameter(2400, "videos to train on", minimum=1)
    validate_videos: int = _parameter(800, "videos to evaluate on", minimum=1)
    shard_videos: int = _parameter(200, "videos a shard", minimum=1)
    min_frames: int = _parameter(20, "fewest frames a video", minimum=1, maximum=300)
    max_frames: int = _parameter(60, "most frames a video", minimum=1, maximum=300)
    seed: int = _parameter(8, "everything follows from it", minimum=0)

    def __post_init__(self) -> None:
        if self.min_frames > self.max_frames:
            raise InputError(
                f"sample.min_frames is {self.min_frames}, expected at most sample.max_frames, "
                f"{self.max_frames}"
            )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is read of the records, and how."""

    num_classes: int = _parameter(
        0,
        "classes; 0: as many as the vocabulary has, 3,862 without one",
        minimum=0,
        maximum=1_000_000,
    )
    max_frames: int = _parameter(
        300, "frames used of a video, the first ones (one a second)", minimum=1, maximum=1000
    )
    shuffle_buffer: int = _parameter(
        2048, "records held to draw the next one from (a 300-frame record is 350 kB)", minimum=1
    )
    holdout_shards: int = _parameter(
        0, "last shards of the train split kept out of training to draw its GAP curve", minimum=0
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network. Names and defaults of NeXtVLAD are its author's (arXiv 1811.05014)."""

    name: str = _parameter("nextvlad", "of trainer.models.MODELS", choices=MODEL_NAMES)
    normalization: str = _parameter(
        "youtube8m_l2",
        "of the dequantised features: each frame (or video) to unit L2 norm over its 1,152 "
        "values as google/youtube-8m; the same times √1152; rgb without the whitening of its PCA "
        "as the NeXtVLAD author; or none",
        choices=("youtube8m_l2", "scaled_l2", "reverse_whitening", "none"),
    )
    padding: str = _parameter(
        "zero", "frames beyond the last one: 0 after normalisation, or as the author 0 before it",
        choices=("zero", "author"),
    )  # fmt: skip
    cluster_size: int = _parameter(128, "K, clusters of rgb; audio has half, at least 2", minimum=2)
    groups: int = _parameter(8, "G, groups of rgb; audio has half", minimum=2)
    expansion: int = _parameter(2, "λ, input dimensions are expanded by it", minimum=1)
    form: str = _parameter(
        "auto", "of the NeXtVLAD layer: the same values at other costs",
        choices=("auto", "direct", "folded", "fast"),
    )  # fmt: skip
    batch_norm_rows: str = _parameter(
        "valid", "rows of the cluster batch norm: valid frames, or all as the author",
        choices=("valid", "all"),
    )  # fmt: skip
    batch_norm_momentum: float = _parameter(
        0.99, "of the moving statistics (author: 0.999)", minimum=0, maximum=1
    )
    hidden_size: int = _parameter(
        2048, "H, width of the hidden layer; 0: none (not in mlp)", minimum=0
    )
    gating_reduction: int = _parameter(8, "of the SE context gating", minimum=1)
    input_dropout: float = _parameter(
        0.0, "share of the features dropped before logistic, moe and mlp", minimum=0, maximum=0.95
    )
    dropout: float = _parameter(
        0.5, "share dropped before the hidden layer or, in mlp, after it", minimum=0, maximum=0.95
    )
    branches: int = _parameter(
        1, "networks in mlp whose probabilities are averaged (arXiv 1612.01474)", minimum=1
    )
    mixture_branches: int = _parameter(
        3, "NeXtVLAD networks in nextvlad_mixture (author: 3)", minimum=2
    )
    distillation_weight: float = _parameter(
        1.0, "λ of the mixture's divergence from its branches (author: 1)", minimum=0
    )
    distillation_temperature: float = _parameter(
        2.0, "τ that softens both sides of it (author: 2)", above=0
    )
    dbof_size: int = _parameter(8192, "units that dbof pools over the frames", minimum=1)
    dbof_pooling: str = _parameter("max", "of dbof", choices=("max", "average"))
    classifier: str = _parameter(
        "logistic",
        "head of all but logistic and moe; vertical_attention predicts the verticals first and "
        "needs a vocabulary that has them",
        choices=("logistic", "moe", "vertical_attention"),
    )
    vertical_embedding_size: int = _parameter(
        128, "values of a vertical's embedding in vertical_attention", minimum=1
    )
    vertical_attention_size: int = _parameter(
        512, "units that compare the video with each vertical", minimum=1
    )
    num_mixtures: int = _parameter(2, "experts a class in moe", minimum=1)
    classifier_l2: float = _parameter(
        1e-5,
        "L2 penalty on the classifier's weights, times the sum of their squares (author's "
        "scripts: 1e-5 times half of it)",
        minimum=0,
    )
    prior_bias: bool = _parameter(
        True, "start the classifier at the log-odds of the class frequencies"
    )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The optimiser and the loop."""

    epochs: int = _parameter(5, "passes over the train split (author: about 5)", minimum=1)
    batch_size: int = _parameter(160, "videos a step (author: 160)", minimum=1, maximum=65536)
    learning_rate: float = _parameter(2e-4, "of Adam (author: 2e-4)", above=0, maximum=10)
    schedule: str = _parameter(
        "staircase",
        "constant; staircase: × decay every decay_examples (author); or cosine to 0 with warm-up",
        choices=("constant", "staircase", "cosine"),
    )
    decay: float = _parameter(0.8, "factor of the staircase (author: 0.8)", above=0, maximum=1)
    decay_examples: int = _parameter(
        2_000_000, "videos between two stairs (author: 2 M)", minimum=1
    )
    warmup: float = _parameter(
        0.05, "share of the steps that warm up before a cosine", minimum=0, maximum=0.9
    )
    clip_norm: float = _parameter(
        1.0, "global norm that gradients are clipped to (author: 1.0)", above=0
    )
    loss: str = _parameter(
        "cross_entropy",
        "of a class: cross-entropy, focal (arXiv 1708.02002) or asymmetric (arXiv 2009.14119); "
        "summed over classes, averaged over videos",
        choices=("cross_entropy", "focal", "asymmetric"),
    )
    label_smoothing: float = _parameter(
        0.0, "ε: labels become y (1 − ε) + ε/2", minimum=0, maximum=1
    )
    focal_gamma: float = _parameter(2.0, "γ of the focal loss", minimum=0)
    focal_alpha: float = _parameter(
        0.25, "weight of positives in the focal loss", minimum=0, maximum=1
    )
    asymmetric_gamma_positive: float = _parameter(0.0, "γ₊ of the asymmetric loss", minimum=0)
    asymmetric_gamma_negative: float = _parameter(4.0, "γ₋ of the asymmetric loss", minimum=0)
    asymmetric_margin: float = _parameter(
        0.05, "negatives up to this probability cost nothing", minimum=0, maximum=1
    )
    weight_decay: float = _parameter(0.0, "of AdamW, on all matrices; 0: Adam", minimum=0)
    mixup: float = _parameter(
        0.0, "α of the Beta distribution that pairs of videos are mixed by (arXiv 1710.09412), "
        "video level only; 0: off", minimum=0,
    )  # fmt: skip
    baseline: str = _parameter(
        "", "model trained beside, to compare with; empty: none", choices=("", *MODEL_NAMES)
    )
    baseline_learning_rate: float = _parameter(
        0.0, "of the baseline; 0: the same", minimum=0, maximum=10
    )
    seed: int = _parameter(
        0, "of initial weights, order of the data and dropout", minimum=0, maximum=2**32 - 1
    )
    checkpoint_minutes: float = _parameter(
        10.0, "at most this much work is lost to a kill", above=0
    )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How a trained model is scored."""

    batch_size: int = _parameter(256, "videos a step", minimum=1)
    min_gap: float = _parameter(
        0.0, "GAP@20 below which a model is not exported", minimum=0, maximum=1
    )


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """The SavedModel."""

    top_k: int = _parameter(20, "classes that serving_default returns a video", minimum=1)


@dataclasses.dataclass(frozen=True)
class Config:
    """All sections."""

    sample: SampleConfig = SampleConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()

    def updated(self, overrides: Mapping[str, Any]) -> Config:
        """This configuration with `{section: {parameter: value}}` put in.

        Raises:
            InputError: an unknown section or parameter (the nearest is named), a wrong type or a
                value out of range.
        """
        sections = {}
        for section, values in overrides.items():
            known = [field.name for field in dataclasses.fields(self)]
            if section not in known:
                raise InputError(
                    f"unknown section {section!r}, expected one of {', '.join(known)}"
                    f"{nearest(section, known)}"
                )
            if not isinstance(values, Mapping):
                raise InputError(f"{section} is {values!r}, expected parameters and their values")
            sections[section] = _updated_section(section, getattr(self, section), values)
        return dataclasses.replace(self, **sections)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        return dataclasses.asdict(self)


def parse_overrides(text: str) -> dict[str, Any]:
    """Overrides of their JSON form; an empty string has none.

    Raises:
        InputError: no JSON object.
    """
    try:
        overrides = json.loads(text or "{}")
    except ValueError as error:
        raise InputError(f"overrides: expected JSON, found {text!r} ({error})") from None
    if not isinstance(overrides, dict):
        raise InputError(f"overrides: expected a JSON object of sections, found {text!r}")
    return overrides


def run_config(overrides: str, **flat: Any) -> Config:
    """The configuration of a step: overrides in JSON, and the pipeline's parameters by name.

    Raises:
        InputError: no JSON object of sections, a parameter that can not be, or one in the overrides
            that the pipeline has by a name of its own.
    """
    content = parse_overrides(overrides)
    config = Config().updated(content)
    for name, (section, field) in FLAT.items():
        if field in content.get(section, {}):
            raise InputError(
                f"overrides.{section}.{field}: is the pipeline parameter {name}; set that"
            )
    for name, value in flat.items():
        section, field = FLAT[name]
        config = config.updated({section: {field: value}})
    return config


def check_value(name: str, field: dataclasses.Field[Any], kind: type[Any], value: Any) -> Any:
    """`value` as the field's type (an int is a float too), if it is in range.

    Raises:
        InputError: it is not; the message names the parameter, the value and what is expected.
    """
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise InputError(f"{name} is a number of {len(str(value))} digits") from None
    if type(value) is not kind:
        found = f"{value!r} ({type(value).__name__})"
        raise InputError(f"{name} is {found}, expected {_article(kind.__name__)}")
    limits = field.metadata
    choices = limits.get("choices")
    if choices and value not in choices:
        raise InputError(
            f"{name} is {value!r}, expected one of {', '.join(filter(None, choices))}"
            f"{nearest(value, choices)}"
        )
    for limit, fails, words in (
        ("minimum", lambda bound: value < bound, "at least"),
        ("maximum", lambda bound: value > bound, "at most"),
        ("above", lambda bound: value <= bound, "more than"),
    ):
        bound = limits.get(limit)
        if bound is not None and (fails(bound) or not math.isfinite(float(value))):
            raise InputError(f"{name} is {value!r}, expected {words} {bound}")
    return value


def _updated_section(section: str, current: Any, values: Mapping[str, Any]) -> Any:
    fields = {field.name: field for field in dataclasses.fields(current)}
    kinds = typing.get_type_hints(type(current))
    checked = {}
    for name, value in values.items():
        if name not in fields:
            raise InputError(
                f"unknown parameter {section}.{name}, trainer/config.py has all"
                f"{nearest(f'{section}.{name}', [f'{section}.{known}' for known in fields])}"
            )
        checked[name] = check_value(f"{section}.{name}", fields[name], kinds[name], value)
    return dataclasses.replace(current, **checked)


def nearest(name: object, known: Iterable[str]) -> str:
    """`; did you mean …?`, or nothing if no known name is near."""
    names = list(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=3)
    # A name may also be part of a longer one.
    near += [one for one in names if str(name).lower() in one and one not in near and name]
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""


def _article(noun: str) -> str:
    words = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
    return words[noun]
