"""The network of `nextvlad` with the mean for its aggregation, and nothing else changed."""

from __future__ import annotations

from typing import Any

from trainer.architectures.architecture import Architecture, gated_hidden
from trainer.architectures.head import Head
from trainer.config import ModelConfig
from trainer.layers import MaskedMean


def _build(config: ModelConfig, features: Any, mask: Any, head: Head) -> Any:
    pooled = MaskedMean(name="aggregated")(features, mask=mask)
    return head(gated_hidden(config, pooled))


ARCHITECTURE = Architecture(_build, frame_level_only=True)
