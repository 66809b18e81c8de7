"""Hidden layer and classifier on the mean features, in branches that are averaged.

Averaging the probabilities of networks that differ by their random initial weights is a deep
ensemble (Lakshminarayanan, Pritzel, Blundell, arXiv 1612.01474), here in one model.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer.architectures.architecture import Architecture, batch_norm, dropped_mean
from trainer.architectures.head import Head
from trainer.config import ModelConfig
from trainer.errors import InputError


def check(config: ModelConfig) -> None:
    """Whether there is a hidden layer.

    Raises:
        InputError: there is none.
    """
    if not config.hidden_size:
        raise InputError("model.hidden_size is 0, expected at least 1 for mlp")


def _build(config: ModelConfig, features: Any, mask: Any, head: Head) -> Any:
    outputs = []
    for branch in range(config.branches):
        prefix = f"branch_{branch}_" if config.branches > 1 else ""
        hidden = dropped_mean(config, features, mask)
        hidden = keras.layers.Dense(config.hidden_size, use_bias=False, name=f"{prefix}hidden")(
            hidden
        )
        hidden = keras.layers.ReLU()(batch_norm(config, f"{prefix}hidden_norm")(hidden))
        hidden = keras.layers.Dropout(config.dropout)(hidden)
        outputs.append(head(hidden, prefix=prefix))
    return _average(outputs)


def _average(outputs: list[Any]) -> Any:
    if len(outputs) == 1:
        return outputs[0]
    if isinstance(outputs[0], dict):
        return {key: _average([output[key] for output in outputs]) for key in outputs[0]}
    return keras.layers.Average(dtype="float32")(outputs)


ARCHITECTURE = Architecture(_build, check=check)
