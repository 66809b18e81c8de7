"""What weights in float16 cost: the same videos scored with them and without."""

from __future__ import annotations

from typing import Any

import keras

from components.export.reload_check import largest_change
from trainer.evaluation import Scored, predictor, score_shards
from trainer.half_weights import HalfWeights
from trainer.manifest import Manifest, Shard
from trainer.progress import Progress

VIDEOS = 10_000
"""As many of validate, or all if there are fewer: the difference is between the same videos, and
whole shards are scored."""


def rounded(
    model: keras.Model, manifest: Manifest, max_frames: int, batch_size: int
) -> tuple[HalfWeights, dict[str, Any]]:
    """Round a model's weights to float16, in place, and measure what it changes.

    Args:
        model: as it is served.
        manifest: of the data; validate is scored.
        max_frames: frames used of a video.
        batch_size: videos a step.

    Returns:
        The weights to store, and `videos`, `gap_float32`, `gap_float16`, `gap_loss` (GAP@20 of
        whole videos) and `largest_change` (of a score among a video's 20 best).

    Raises:
        InputError: a weight that float16 has no number for.
    """
    shards = _first_shards(manifest.split("validate"))
    total = 2 * sum(shard.records for shard in shards)
    progress = Progress("export", total, "videos")
    predict = predictor(model)

    def scored() -> Scored:
        return score_shards(model, manifest, shards, max_frames, batch_size, progress, predict)

    before = scored()
    weights = HalfWeights(model)
    after = scored()
    gaps = [float(one.metrics.result().gap) for one in (before, after)]
    return weights, {
        "videos": before.metrics.videos,
        "gap_float32": gaps[0],
        "gap_float16": gaps[1],
        "gap_loss": gaps[0] - gaps[1],
        "largest_change": largest_change(before.top(), after.top()),
    }


def _first_shards(shards: tuple[Shard, ...]) -> list[Shard]:
    chosen: list[Shard] = []
    for shard in shards:
        if sum(one.records for one in chosen) >= VIDEOS:
            break
        chosen.append(shard)
    return chosen
