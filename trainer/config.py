"""Every parameter once: name, type, default, range, unit and source.

The sections are frozen dataclasses. A run is described by a `Config`; what a person changes comes
in as overrides (`{"training": {"epochs": 3}}`), checked here: an unknown name, a wrong type or a
number out of range is an `InputError` that names the parameter.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from trainer.errors import InputError
from trainer.parameter import nearest, parameter, updated_section

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

OPTIMIZERS = (
    "adam",
    "adamw",
    "lion",
    "sgd",
    "rmsprop",
    "adagrad",
    "adadelta",
    "adafactor",
    "adamax",
    "nadam",
    "ftrl",
    "lamb",
)
"""Of `keras.optimizers`."""

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

    num_classes: int = parameter(100, "classes", minimum=2, maximum=3862)
    train_videos: int = parameter(2400, "videos to train on", minimum=1)
    validate_videos: int = parameter(800, "videos to evaluate on", minimum=1)
    shard_videos: int = parameter(200, "videos a shard", minimum=1)
    min_frames: int = parameter(20, "fewest frames a video", minimum=1, maximum=300)
    max_frames: int = parameter(60, "most frames a video", minimum=1, maximum=300)
    seed: int = parameter(8, "everything follows from it", minimum=0)

    def __post_init__(self) -> None:
        if self.min_frames > self.max_frames:
            raise InputError(
                f"sample.min_frames is {self.min_frames}, expected at most sample.max_frames, "
                f"{self.max_frames}"
            )


@dataclasses.dataclass(frozen=True)
class DownloadConfig:
    """What is fetched of the official servers or others, and how."""

    mirror: str = parameter(
        "us", "official mirror to prefer; the others are asked if it fails",
        choices=("us", "eu", "asia"),
    )  # fmt: skip
    mirrors: str = parameter("", "base URLs that hold the same shards, separated by commas")
    splits: str = parameter("train,validate", "splits to fetch: train, validate, test")
    shard: str = parameter(
        "", "X,Y: the X-th of Y parts of the shards, chosen as the official script does"
    )
    max_shards: int = parameter(0, "most shards of a split, the first by name; 0: all", minimum=0)
    names: str = parameter("", "names of the shards to fetch, separated by commas; empty: all")
    parallel: int = parameter(8, "transfers at once", minimum=1, maximum=64)
    attempts: int = parameter(
        8, "attempts in a row that may bring nothing of a file", minimum=1, maximum=100
    )
    connect_seconds: float = parameter(10.0, "seconds to reach a server", above=0, maximum=3600)
    stall_seconds: float = parameter(
        30.0, "seconds without a byte, or of less than a kilobyte each, before another attempt",
        above=0, maximum=3600,
    )  # fmt: skip
    rate_limit: float = parameter(
        0.0, "megabytes a second of all transfers; 0: no limit", minimum=0
    )
    copy: bool = parameter(
        False,
        "copy the shards of a folder to the destination; false: they stay where they are, and are "
        "read there",
    )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is read of the records, and how."""

    num_classes: int = parameter(
        0,
        "classes; 0: as many as the vocabulary has, 3,862 without one",
        minimum=0,
        maximum=1_000_000,
    )
    max_frames: int = parameter(
        300, "frames used of a video, the first ones (one a second)", minimum=1, maximum=1000
    )
    train_frames: int = parameter(
        0,
        "random frames that a training step sees of a video's first max_frames, another choice "
        "every epoch; 0: all of them. Evaluation always sees all",
        minimum=0, maximum=1000,
    )  # fmt: skip
    segments: bool = parameter(
        False,
        "train on the rated (segment, class) pairs of release 3 alone, in windows of five frames "
        "(one a second)",
    )
    segments_per_video: int = parameter(
        5, "rated segments of a video in a step; of more, others in turn", minimum=1, maximum=60
    )
    shuffle_shards: int = parameter(
        16, "shards whose records are shuffled together; none of them is held in memory", minimum=1
    )
    read_block: int = parameter(
        1,
        "consecutive records that are read and shuffled as one; more where each read costs a "
        "round trip, as on a bucket",
        minimum=1,
    )
    readers: int = parameter(
        0, "threads that read and parse; 0: one a core, at most 16", minimum=0, maximum=256
    )
    prefetch: int = parameter(
        2, "batches that are ready ahead (160 videos of 300 frames are 55 MB)", minimum=1
    )
    corrupt_records: int = parameter(
        0,
        "damaged records of the shards trained on that are passed over, each with a warning; one "
        "more stops the training (each worker counts its own, anew after each start)",
        minimum=0,
    )
    accept_random_features: bool = parameter(
        False,
        "train on features that networks with random weights made, which tests have; otherwise "
        "such records are refused",
    )
    holdout_shards: int = parameter(
        0, "last shards of the train split kept out of training to draw its GAP curve", minimum=0
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network. Names and defaults of NeXtVLAD are its author's (arXiv 1811.05014)."""

    name: str = parameter("nextvlad", "of trainer.models.MODELS", choices=MODEL_NAMES)
    normalization: str = parameter(
        "youtube8m_l2",
        "of the dequantised features: each frame (or video) to unit L2 norm over its 1,152 "
        "values as google/youtube-8m; the same times √1152; rgb without the whitening of its PCA "
        "as the NeXtVLAD author; or none",
        choices=("youtube8m_l2", "scaled_l2", "reverse_whitening", "none"),
    )
    padding: str = parameter(
        "zero", "frames beyond the last one: 0 after normalisation, or as the author 0 before it",
        choices=("zero", "author"),
    )  # fmt: skip
    cluster_size: int = parameter(128, "K, clusters of rgb; audio has half, at least 2", minimum=2)
    groups: int = parameter(8, "G, groups of rgb; audio has half", minimum=2)
    expansion: int = parameter(2, "λ, input dimensions are expanded by it", minimum=1)
    form: str = parameter(
        "auto", "of the NeXtVLAD layer: the same values at other costs",
        choices=("auto", "direct", "folded", "fast"),
    )  # fmt: skip
    batch_norm_rows: str = parameter(
        "valid", "rows of the cluster batch norm: valid frames, or all as the author",
        choices=("valid", "all"),
    )  # fmt: skip
    batch_norm_momentum: float = parameter(
        0.99, "of the moving statistics (author: 0.999)", minimum=0, maximum=1
    )
    hidden_size: int = parameter(
        2048, "H, width of the hidden layer; 0: none (not in mlp)", minimum=0
    )
    gating_reduction: int = parameter(8, "of the SE context gating", minimum=1)
    input_dropout: float = parameter(
        0.0, "share of the features dropped before logistic, moe and mlp", minimum=0, maximum=0.95
    )
    dropout: float = parameter(
        0.5, "share dropped before the hidden layer or, in mlp, after it", minimum=0, maximum=0.95
    )
    branches: int = parameter(
        1, "networks in mlp whose probabilities are averaged (arXiv 1612.01474)", minimum=1
    )
    mixture_branches: int = parameter(
        3, "NeXtVLAD networks in nextvlad_mixture (author: 3)", minimum=2
    )
    distillation_weight: float = parameter(
        1.0, "λ of the mixture's divergence from its branches (author: 1)", minimum=0
    )
    distillation_temperature: float = parameter(
        2.0, "τ that softens both sides of it (author: 2)", above=0
    )
    dbof_size: int = parameter(8192, "units that dbof pools over the frames", minimum=1)
    dbof_pooling: str = parameter("max", "of dbof", choices=("max", "average"))
    classifier: str = parameter(
        "logistic",
        "head of all but logistic and moe; vertical_attention predicts the verticals first and "
        "needs a vocabulary that has them",
        choices=("logistic", "moe", "vertical_attention"),
    )
    vertical_embedding_size: int = parameter(
        128, "values of a vertical's embedding in vertical_attention", minimum=1
    )
    vertical_attention_size: int = parameter(
        512, "units that compare the video with each vertical", minimum=1
    )
    num_mixtures: int = parameter(2, "experts a class in moe", minimum=1)
    classifier_l2: float = parameter(
        1e-5,
        "L2 penalty on the classifier's weights, times the sum of their squares (author's "
        "scripts: 1e-5 times half of it)",
        minimum=0,
    )
    prior_bias: bool = parameter(
        True, "start the classifier at the log-odds of the class frequencies"
    )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The optimiser and the loop."""

    epochs: int = parameter(5, "passes over the train split (author: about 5)", minimum=1)
    batch_size: int = parameter(160, "videos a step (author: 160)", minimum=1, maximum=65536)
    accumulation_steps: int = parameter(
        1,
        "parts that a replica's share of a batch is computed in, one after the other: their "
        "gradients add up to one update, in less memory (batch norms see a part at a time)",
        minimum=1,
    )
    optimizer: str = parameter("adam", "Keras's, by name (author: adam)", choices=OPTIMIZERS)
    optimizer_arguments: str = parameter(
        "{}", 'of Keras\'s optimiser, as a JSON object: {"beta_2": 0.98}'
    )
    learning_rate: float = parameter(2e-4, "of the optimiser (author: 2e-4)", above=0, maximum=10)
    schedule: str = parameter(
        "staircase",
        "constant; staircase: × decay every decay_examples (author); or cosine to 0 with warm-up",
        choices=("constant", "staircase", "cosine"),
    )
    decay: float = parameter(0.8, "factor of the staircase (author: 0.8)", above=0, maximum=1)
    decay_examples: int = parameter(2_000_000, "videos between two stairs (author: 2 M)", minimum=1)
    warmup: float = parameter(
        0.05, "share of the steps that warm up before a cosine", minimum=0, maximum=0.9
    )
    clip_norm: float = parameter(
        1.0, "global norm that gradients are clipped to (author: 1.0)", above=0
    )
    loss: str = parameter(
        "cross_entropy",
        "of a class: cross-entropy, focal (arXiv 1708.02002) or asymmetric (arXiv 2009.14119); "
        "summed over classes, averaged over videos",
        choices=("cross_entropy", "focal", "asymmetric"),
    )
    label_smoothing: float = parameter(
        0.0, "ε: labels become y (1 − ε) + ε/2", minimum=0, maximum=1
    )
    focal_gamma: float = parameter(2.0, "γ of the focal loss", minimum=0)
    focal_alpha: float = parameter(
        0.25, "weight of positives in the focal loss", minimum=0, maximum=1
    )
    asymmetric_gamma_positive: float = parameter(0.0, "γ₊ of the asymmetric loss", minimum=0)
    asymmetric_gamma_negative: float = parameter(4.0, "γ₋ of the asymmetric loss", minimum=0)
    asymmetric_margin: float = parameter(
        0.05, "negatives up to this probability cost nothing", minimum=0, maximum=1
    )
    weight_decay: float = parameter(
        0.0, "on all matrices, apart from the gradient as in AdamW; 0: none", minimum=0
    )
    ema_decay: float = parameter(
        0.0,
        "of the exponential moving average of the weights, which is what is evaluated and "
        "delivered; the first steps use (1 + step)/(10 + step) if that is less; 0: none",
        minimum=0, maximum=0.999999,
    )  # fmt: skip
    precision: str = parameter(
        "float32",
        "of the products in training; weights, statistics and losses are float32 in each, and so "
        "are evaluation and the model that is delivered",
        choices=("float32", "bfloat16", "float16"),
    )
    jit: str = parameter(
        "auto",
        "XLA for the whole step; auto: on one GPU the whole step, else the update of large models",
        choices=("auto", "on", "off"),
    )
    strategy: str = parameter(
        "auto",
        "auto: all GPUs of this machine, and all workers that TF_CONFIG names; mirrored: all "
        "devices of this machine; single: one device",
        choices=("auto", "mirrored", "single"),
    )
    peer_minutes: float = parameter(
        10.0, "minutes to wait for the other workers of TF_CONFIG", above=0
    )
    warm_start: str = parameter(
        "", "trained model (its folder or .keras file) whose weights to start at; empty: new ones"
    )
    mixup: float = parameter(
        0.0, "α of the Beta distribution that pairs of videos are mixed by (arXiv 1710.09412), "
        "video level only; 0: off", minimum=0,
    )  # fmt: skip
    baseline: str = parameter(
        "", "model trained beside, to compare with; empty: none", choices=("", *MODEL_NAMES)
    )
    baseline_learning_rate: float = parameter(
        0.0, "of the baseline; 0: the same", minimum=0, maximum=10
    )
    seed: int = parameter(
        0, "of initial weights, order of the data and dropout", minimum=0, maximum=2**32 - 1
    )
    validations: int = parameter(
        1, "times an epoch that the held-out shards are scored, evenly spread", minimum=1
    )
    early_stopping: int = parameter(
        0, "validations without a better GAP after which training ends; 0: never", minimum=0
    )
    deliver: str = parameter(
        "last",
        "weights that are delivered: the last, or those of the best GAP on the held-out shards",
        choices=("last", "best"),
    )
    checkpoint_minutes: float = parameter(
        10.0, "minutes between two checkpoints: the most work that a kill costs", above=0
    )
    keep_checkpoints: int = parameter(
        2, "newest checkpoints that are kept, beside the best one", minimum=1
    )
    profile_steps: str = parameter(
        "", "first and last step, as 100-110, of a profile for TensorBoard; empty: none"
    )


_DIMENSION = "Kolmogorov–Smirnov distance of a feature dimension"
_CLASS = "difference of the share of videos with a class"


def _distance(default: float, *words: str) -> Any:
    return parameter(default, ", ".join(words), minimum=0, maximum=1)


@dataclasses.dataclass(frozen=True)
class StatisticsConfig:
    """What the pass over the data computes, and what of it stops a run.

    Of a distance counts what chance does not explain (`trainer.statistics.drift`).
    """

    corrupt_share: float = parameter(
        0.0, "share of the records that may be bad, each is named and left out", minimum=0,
        maximum=1,
    )  # fmt: skip
    covariance: bool = parameter(
        False, "covariance and principal components of rgb and audio (milliseconds a video)"
    )
    schema: str = parameter(
        "", "file of what the data is expected to be, as an earlier run's schema.yaml; empty: "
        "what holds of YouTube-8M"
    )  # fmt: skip
    baseline: str = parameter("", "folder of an earlier run's statistics to compare with")
    split_drift_warning: float = _distance(0.1, _DIMENSION, "validate or test against train")
    split_drift_error: float = _distance(0.5, "the same, above which the run stops")
    split_label_drift_warning: float = _distance(0.05, _CLASS, "validate or test against train")
    split_label_drift_error: float = _distance(0.3, "the same, above which the run stops")
    run_drift_warning: float = _distance(0.1, _DIMENSION, "against the earlier run")
    run_drift_error: float = _distance(0.3, "the same, above which the run stops")
    run_label_drift_warning: float = _distance(0.05, _CLASS, "against the earlier run")
    run_label_drift_error: float = _distance(0.3, "the same, above which the run stops")


_FEWEST_OUTSIDE = 5
"""Resamples beyond an end of an interval: of fewer that end would be the extreme of a few draws."""


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How a trained model is scored."""

    batch_size: int = parameter(256, "videos a step", minimum=1)
    min_gap: float = parameter(
        0.0, "GAP@20 below which a model is not exported", minimum=0, maximum=1
    )
    champion_margin: float = parameter(
        0.0,
        "GAP by which a model has to be better than the champion, if one is given: the lower end "
        "of the difference's interval has to lie above it",
        minimum=0, maximum=1,
    )  # fmt: skip
    confidence: float = parameter(
        0.95, "of intervals of GAP, and of the difference to the champion",
        minimum=0.5, maximum=0.99,
    )  # fmt: skip
    resamples: int = parameter(
        1000, "of the videos, by the paired bootstrap", minimum=200, maximum=100_000
    )
    champion_videos: int = parameter(
        100,
        "videos with labels, of fewer no model is called better than the champion: their interval "
        "is too narrow",
        minimum=2,
    )

    def __post_init__(self) -> None:
        outside = self.resamples * (1 - self.confidence) / 2
        if outside < _FEWEST_OUTSIDE:
            least = math.ceil(2 * _FEWEST_OUTSIDE / (1 - self.confidence))
            raise InputError(
                f"evaluation.resamples is {self.resamples:,}, expected at least {least:,} with "
                f"evaluation.confidence {self.confidence:g}: {_FEWEST_OUTSIDE} outside either end "
                "of the interval"
            )


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """The SavedModel."""

    top_k: int = parameter(20, "classes that an answer has, of a video or a segment", minimum=1)
    segment_step: int = parameter(
        3, "seconds from one 5-second window of the segments' timeline to the next",
        minimum=1, maximum=5,
    )  # fmt: skip
    weights: str = parameter(
        "float32",
        "type that weights are stored in; float16: half the size, computed with in float32, and "
        "what it costs in GAP is measured",
        choices=("float32", "float16"),
    )
    onnx: bool = parameter(
        False, "write model.onnx too (features in, classes and scores out); needs ONNX's packages"
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """All sections."""

    sample: SampleConfig = SampleConfig()
    download: DownloadConfig = DownloadConfig()
    data: DataConfig = DataConfig()
    statistics: StatisticsConfig = StatisticsConfig()
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
            sections[section] = updated_section(section, getattr(self, section), values)
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


def section_overrides(overrides: str, section: str) -> str:
    """Those of one section, in JSON whose text is the same for the same values."""
    values = parse_overrides(overrides).get(section)
    return json.dumps({section: values} if values else {}, sort_keys=True)


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
