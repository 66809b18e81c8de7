"""Several NeXtVLAD networks, gated by the mean frame and distilled on the fly.

Lin, Xiao, Fan, arXiv 1811.05014, section 3.4; the author's `MixNeXtVladModel`.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.architectures import nextvlad
from trainer.architectures.architecture import Architecture, batch_norm
from trainer.architectures.head import Head
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.layers import DistilledMixture, MaskedMean


def check(config: ModelConfig) -> None:
    """Whether a branch can be built, and has the logits that a mixture adds.

    Raises:
        InputError: it can not.
    """
    nextvlad.check(config)
    if config.classifier != "logistic":
        raise InputError(
            f"model.classifier is {config.classifier!r}, expected 'logistic' for "
            "nextvlad_mixture: it mixes logits"
        )


def _build(config: ModelConfig, features: Any, mask: Any, head: Head) -> Any:
    mean = batch_norm(config, "mixture_norm")(MaskedMean()(features, mask=mask))
    gates = keras.layers.Dense(
        config.mixture_branches, activation="softmax", dtype="float32", name="mixture_gates"
    )(mean)
    logits = []
    for branch in range(config.mixture_branches):
        prefix = f"branch_{branch}_"
        hidden = nextvlad.nextvlad_hidden(config, features, mask, prefix)
        logits.append(head.logits(hidden, f"{prefix}logits"))
    mixture = DistilledMixture(
        config.distillation_weight, config.distillation_temperature, name="mixture"
    )
    return mixture((keras.ops.stack(logits, axis=1), gates))


ARCHITECTURE = Architecture(_build, frame_level_only=True, check=check)
