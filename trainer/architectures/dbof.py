"""Deep bag of frames: google/youtube-8m's frame-level baseline (arXiv 1609.08675)."""

from __future__ import annotations

from typing import Any

import keras

from trainer.architectures.architecture import Architecture, batch_norm
from trainer.architectures.head import Head
from trainer.config import ModelConfig
from trainer.layers import DBoF


def _build(config: ModelConfig, features: Any, mask: Any, head: Head) -> Any:
    hidden = DBoF(
        config.dbof_size,
        config.dbof_pooling,
        batch_norm_rows=config.batch_norm_rows,
        batch_norm_momentum=config.batch_norm_momentum,
        name="aggregated",
    )(features, mask=mask)
    hidden = keras.layers.Dropout(config.dropout)(hidden)
    if config.hidden_size:
        hidden = keras.layers.Dense(config.hidden_size, use_bias=False, name="hidden")(hidden)
        hidden = keras.layers.ReLU(6.0)(batch_norm(config, "hidden_norm")(hidden))
    return head(hidden)


ARCHITECTURE = Architecture(_build, frame_level_only=True)
