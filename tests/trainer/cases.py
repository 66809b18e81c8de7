"""Every model that can be built, tiny, with batches for it. Needs no TensorFlow."""

import dataclasses

import numpy as np

from tests.conftest import TINY_MODEL
from trainer import record_format
from trainer.config import MODEL_NAMES, ModelConfig
from trainer.errors import InputError
from trainer.models import build_model, check_model

B, T, C = 6, 4, 7
VERTICALS = (("Arts", "Games", "Sports"), ((0,), (1,), (1, 2), (2,), (0, 1), (2,), (0,)))
CLASSIFIERS = ("logistic", "moe", "vertical_attention")
LEVELS = (record_format.FRAME, record_format.VIDEO)
OWN_HEAD = ("logistic", "moe")
"""Models whose head is their own: `model.classifier` changes nothing."""

TINY = TINY_MODEL | {
    "branches": 2, "mixture_branches": 2, "dbof_size": 8, "vertical_embedding_size": 2,
    "vertical_attention_size": 5, "dropout": 0.0,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """A model by its configuration and level."""

    level: record_format.Level
    changes: tuple[tuple[str, object], ...]

    def config(self, **more):
        return ModelConfig(**TINY | dict(self.changes) | more)

    def build(self, **more):
        return build_model(self.config(**more), C, self.level, verticals=VERTICALS)

    def __str__(self):
        return "-".join([*(str(value) for _, value in self.changes), self.level])


def every_case():
    """(cases, what can not be built): each name on each level with each classifier."""
    found, refused = [], []
    for name in MODEL_NAMES:
        for level in LEVELS:
            for classifier in CLASSIFIERS[:1] if name in OWN_HEAD else CLASSIFIERS:
                case = Case(level, (("name", name), ("classifier", classifier)))
                try:
                    check_model(case.config(), level, VERTICALS)
                    found.append(case)
                except InputError:
                    refused.append(case)
    # What no name or classifier reaches: the author's input, and the other ways to pool.
    for changes in (
        {"name": "nextvlad", "normalization": "reverse_whitening", "padding": "author"},
        {"name": "nextvlad", "batch_norm_rows": "all"},
        {"name": "dbof", "dbof_pooling": "average"},
    ):
        found.append(Case(record_format.FRAME, tuple(changes.items())))
    return found, refused


def batch_of(level, seed=7):
    """Inputs and labels of B videos, some without frames or with one."""
    values = np.random.default_rng(seed)
    labels = (values.random((B, C)) < 0.3).astype("float32")
    if level == record_format.VIDEO:
        sizes = {"mean_rgb": record_format.RGB_SIZE, "mean_audio": record_format.AUDIO_SIZE}
        inputs = {
            name: values.standard_normal((B, size)).astype("float32")
            for name, size in sizes.items()
        }
        return inputs, labels
    sizes = {"rgb": record_format.RGB_SIZE, "audio": record_format.AUDIO_SIZE}
    inputs = {
        name: values.integers(0, 256, (B, T, size), dtype=np.uint8) for name, size in sizes.items()
    }
    return inputs | {"num_frames": np.array([T, 1, 2, 0, 3, T], np.int32)}, labels
