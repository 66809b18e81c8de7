"""What a network is to the registry, and the pieces that several share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from trainer.architectures.head import Head
from trainer.config import ModelConfig
from trainer.layers import BatchNormalization, ContextGating, MaskedMean

Builder = Callable[[ModelConfig, Any, Any, Head], Any]
"""(config, features [B,T,1152] or [B,1152], mask [B,T] or None, head) → the head's outputs."""


def accept(config: ModelConfig) -> None:
    """For networks that work with every configuration."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network by its builder.

    Attributes:
        build: makes the graph.
        frame_level_only: whether it needs frames.
        check: raises `InputError` for a configuration that it can not be built with.
    """

    build: Builder
    frame_level_only: bool = False
    check: Callable[[ModelConfig], None] = accept


def gated_hidden(config: ModelConfig, aggregated: Any, prefix: str = "") -> Any:
    """Dropout, hidden layer with batch norm, SE context gating: [B,N] → [B,H]."""
    hidden = keras.layers.Dropout(config.dropout)(aggregated)
    if config.hidden_size:
        hidden = keras.layers.Dense(config.hidden_size, use_bias=False, name=f"{prefix}hidden")(
            hidden
        )
        hidden = batch_norm(config, f"{prefix}hidden_norm")(hidden)
    return ContextGating(
        config.gating_reduction, config.batch_norm_momentum, name=f"{prefix}context_gating"
    )(hidden)


def dropped_mean(config: ModelConfig, features: Any, mask: Any) -> Any:
    """Mean over the frames, where there are any, and dropout: [B,1152]."""
    if mask is not None:
        features = MaskedMean()(features, mask=mask)
    return keras.layers.Dropout(config.input_dropout)(features)


def batch_norm(config: ModelConfig, name: str | None = None) -> BatchNormalization:
    return BatchNormalization(config.batch_norm_momentum, name=name)
