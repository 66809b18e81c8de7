"""What can be said of a training before anything long is begun."""

from __future__ import annotations

from trainer import records
from trainer.config import Config
from trainer.errors import InputError
from trainer.feature_networks.feature_extractor import extractor_of
from trainer.feature_networks.projection import YOUTUBE8M
from trainer.manifest import Manifest
from trainer.optimizer import check_optimizer
from trainer.training_log import profiled


def check_training(config: Config, manifest: Manifest, examples: int) -> None:
    """Whether parameters fit the data, and each other.

    Args:
        config: all sections.
        manifest: of the data.
        examples: records to train on.

    Raises:
        InputError: parameters that do not fit the data, or each other.
    """
    training, data = config.training, config.data
    check_optimizer(training)
    if manifest.features_mark and not data.accept_random_features:
        raise InputError(
            f"{manifest.source}: its features say of themselves: {manifest.features_mark}; a model "
            "of them knows nothing of videos. To train it all the same, set "
            "data.accept_random_features to true"
        )
    if config.model.normalization == "reverse_whitening" and manifest.feature_extractor:
        made = extractor_of(manifest)
        if made and made.rgb.source != YOUTUBE8M:
            raise InputError(
                "model.normalization is 'reverse_whitening', which reverses the whitening of "
                f"YouTube-8M's PCA; that of these records is {made.rgb.source}, expected "
                "youtube8m_l2, scaled_l2 or none"
            )
    profiled(training.profile_steps)
    if examples < training.batch_size:
        raise InputError(
            f"training.batch_size is {training.batch_size}, expected at most the {examples} "
            "records of the train split"
        )
    if manifest.level != records.VIDEO and training.mixup:
        raise InputError(f"training.mixup is {training.mixup}, expected 0 for frame-level records")
    if manifest.level == records.VIDEO and (data.segments or data.train_frames):
        name = "segments" if data.segments else "train_frames"
        raise InputError(
            f"data.{name} is {getattr(data, name)}: video-level records have no frames, expected "
            f"{getattr(type(data)(), name)}"
        )
    if data.segments and data.train_frames:
        raise InputError(
            f"data.train_frames is {data.train_frames}, expected 0 with data.segments: all "
            f"{records.SEGMENT_FRAMES} frames of a segment are seen"
        )
    if not data.holdout_shards:
        for name, value in (("early_stopping", 0), ("deliver", "last")):
            if getattr(training, name) != value:
                raise InputError(
                    f"training.{name} is {getattr(training, name)!r}: it goes by the GAP on "
                    "held-out shards, expected data.holdout_shards of at least 1"
                )


def check_replicas(config: Config, replicas: int) -> None:
    """Whether a batch can be shared among the replicas.

    Raises:
        InputError: it can not.
    """
    training = config.training
    parts = replicas * training.accumulation_steps
    if training.batch_size % parts:
        raise InputError(
            f"training.batch_size is {training.batch_size}, expected a multiple of {parts}: "
            f"{replicas} replicas, training.accumulation_steps "
            f"{training.accumulation_steps}"
        )
