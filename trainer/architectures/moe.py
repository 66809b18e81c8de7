"""google/youtube-8m's MoeModel on the (mean) features."""

from __future__ import annotations

from typing import Any

from trainer.architectures.architecture import Architecture, dropped_mean
from trainer.architectures.head import Head
from trainer.config import ModelConfig


def _build(config: ModelConfig, features: Any, mask: Any, head: Head) -> Any:
    return head(dropped_mean(config, features, mask), "moe")


ARCHITECTURE = Architecture(_build)
