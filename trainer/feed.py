"""What a step is fed with: a batch, mixed where that is wanted, on the local replicas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.batches import Batch, as_tensor
from trainer.config import TrainingConfig
from trainer.distribution import Distribution


class Feed:
    """Makes a step's arguments of its batch; what they are depends on batch and place alone.

    Args:
        training: `mixup` and `seed` count.
        distribution: over devices and workers.
    """

    def __init__(self, training: TrainingConfig, distribution: Distribution) -> None:
        self.training, self.distribution = training, distribution

    def arguments(self, batch: Batch, epoch: int, step: int) -> tuple[Any, Any, Any]:
        """Features, labels and weights of a batch, on the local replicas.

        Args:
            batch: this worker's share, which stays as it is.
            epoch, step: its place in the training, which seeds mixup.

        Returns:
            Tensors of the batch's shapes and, without mixup, types; weights None as in the batch.
            On several local replicas distributed values of these, equal shares of consecutive rows.
        """
        features, labels = batch.features, batch.labels
        if self.training.mixup:
            features, labels = self._mixed(features, labels, epoch, step)
        parts = {"features": features, "labels": labels, "weights": batch.weights}
        place = _tensor_or_none if self.distribution.local_replicas == 1 else self._split
        tensors = tf.nest.map_structure(place, parts)
        return tensors["features"], tensors["labels"], tensors["weights"]

    def _split(self, array: NDArray[Any] | None) -> Any:
        if array is None:
            return None
        shares: Iterator[Any] = iter(np.split(array, self.distribution.local_replicas))
        return self.distribution.strategy.experimental_distribute_values_from_function(
            lambda _: as_tensor(next(shares))
        )

    def _mixed(
        self,
        features: dict[str, NDArray[Any]],
        labels: NDArray[np.float32],
        epoch: int,
        step: int,
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.float32]]:
        """Mixup of a batch with itself in another order: seeded by the place in the training."""
        rng = np.random.default_rng([self.training.seed, epoch, step, self.distribution.worker])
        alpha, size = self.training.mixup, len(labels)
        share = rng.beta(alpha, alpha, (size, 1)).astype(np.float32)
        share = np.maximum(share, 1 - share)
        other = rng.permutation(size)
        mixed = {k: share * v + (1 - share) * v[other] for k, v in features.items()}
        return mixed, share * labels + (1 - share) * labels[other]


def _tensor_or_none(array: NDArray[Any] | None) -> Any:
    return None if array is None else as_tensor(array)
