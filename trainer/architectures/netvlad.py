"""NetVLAD of rgb and audio with the hidden layer, gating and classifier of `nextvlad`.

Miech, Laptev, Sivic, arXiv 1706.06905: audio has half of the clusters.
"""

from __future__ import annotations

from typing import Any

import keras

from trainer import record_format
from trainer.architectures.architecture import Architecture, gated_hidden
from trainer.architectures.head import Head
from trainer.architectures.nextvlad import audio_sizes
from trainer.config import ModelConfig
from trainer.layers import NetVLAD


def _build(config: ModelConfig, features: Any, mask: Any, head: Head) -> Any:
    common: dict[str, Any] = {
        "batch_norm_rows": config.batch_norm_rows,
        "batch_norm_momentum": config.batch_norm_momentum,
    }
    video = NetVLAD(config.cluster_size, name="video_vlad", **common)(
        features[..., : record_format.RGB_SIZE], mask=mask
    )
    audio = NetVLAD(audio_sizes(config)[0], name="audio_vlad", **common)(
        features[..., record_format.RGB_SIZE :], mask=mask
    )
    aggregated = keras.layers.Concatenate(name="aggregated")([video, audio])
    return head(gated_hidden(config, aggregated))


ARCHITECTURE = Architecture(_build, frame_level_only=True)
