"""NeXtVLAD of rgb and audio, the author's network (arXiv 1811.05014, figure 2)."""

from __future__ import annotations

from typing import Any

import keras

from trainer import record_format
from trainer.architectures.architecture import Architecture, gated_hidden
from trainer.architectures.head import Head
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.layers import NeXtVLAD


def nextvlad_hidden(config: ModelConfig, features: Any, mask: Any, prefix: str = "") -> Any:
    """Both aggregations, the hidden layer and its gating: [B,T,1152] → [B,H].

    Args:
        config: of the model.
        features: normalised.
        mask: bool [B,T].
        prefix: of the layers' names.
    """
    common: dict[str, Any] = {
        "expansion": config.expansion,
        "form": config.form,
        "batch_norm_rows": config.batch_norm_rows,
        "batch_norm_momentum": config.batch_norm_momentum,
    }
    clusters, groups = audio_sizes(config)
    video = NeXtVLAD(config.cluster_size, config.groups, name=f"{prefix}video_vlad", **common)(
        features[..., : record_format.RGB_SIZE], mask=mask
    )
    audio = NeXtVLAD(clusters, groups, name=f"{prefix}audio_vlad", **common)(
        features[..., record_format.RGB_SIZE :], mask=mask
    )
    aggregated = keras.layers.Concatenate(name=f"{prefix}aggregated")([video, audio])
    return gated_hidden(config, aggregated, prefix)


def audio_sizes(config: ModelConfig) -> tuple[int, int]:
    """Clusters and groups of audio: half of rgb's."""
    return max(2, config.cluster_size // 2), max(1, config.groups // 2)


def check(config: ModelConfig) -> None:
    """Whether the groups divide the expanded features.

    Raises:
        InputError: they do not.
    """
    for feature, size, groups in (
        ("rgb", record_format.RGB_SIZE, config.groups),
        ("audio", record_format.AUDIO_SIZE, audio_sizes(config)[1]),
    ):
        if config.expansion * size % groups:
            raise InputError(
                f"model.groups is {config.groups}: the {groups} groups of {feature} do not "
                f"divide its {config.expansion} · {size} expanded features"
            )


def _build(config: ModelConfig, features: Any, mask: Any, head: Head) -> Any:
    return head(nextvlad_hidden(config, features, mask))


ARCHITECTURE = Architecture(_build, frame_level_only=True, check=check)
