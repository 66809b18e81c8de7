"""Deep bag of frames: frames pooled in a wide space.

Shape legend: B videos, T frames, D features, K clusters.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from trainer.layers.batch_normalization import at_least_float32
from trainer.layers.frame_aggregation import FrameAggregation
from trainer.layers.frame_mask import check_mask


@keras.saving.register_keras_serializable("nextvlad")
class DBoF(FrameAggregation, keras.layers.Layer):
    """`pool_t(relu6(BN(BN(x_t) W)))`, a deep bag of frames; the hidden layer is not part of it.

    Abu-El-Haija et al., "YouTube-8M: A Large-Scale Video Classification Benchmark", arXiv
    1609.08675, section 4.1.2, in google/youtube-8m's form (`DbofModel`), which takes ReLU6 and
    normalises the input too. Its random sample of frames is left to the reader: here every frame
    counts.

    Args:
        cluster_size: K.
        pooling: "max" or "average" over the frames that exist.
        batch_norm_rows: "valid" keeps padded frames out of the statistics of both batch norms;
            "all" counts them. Statistics are those of all replicas.
        batch_norm_momentum: of both batch norms.

    Call arguments:
        inputs: float [B,T,D].
        mask: bool [B,T], true for the frames that exist; None: all.
        training: whether batch norm uses the batch's statistics.

    Returns:
        float [B,K] from 0 to 6 (0 for a video without frames).

    Example:
        >>> DBoF(cluster_size=4)(keras.ops.ones((3, 5, 16))).shape
        (3, 4)

    Raises:
        ValueError: a parameter out of range, inputs or mask of another shape.
    """

    def __init__(
        self,
        cluster_size: int = 2048,
        pooling: str = "max",
        batch_norm_rows: str = "valid",
        batch_norm_momentum: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_norm_rows, batch_norm_momentum, **kwargs)
        if cluster_size < 1:
            raise ValueError(f"expected cluster_size of at least 1, received {cluster_size}")
        if pooling not in ("max", "average"):
            raise ValueError(f"expected pooling of max, average, received {pooling!r}")
        self.cluster_size = cluster_size
        self.pooling = pooling

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        dimensions = self._dimensions(input_shape)
        self.input_norm = self._batch_norm("input_norm", dimensions)
        self.kernel = self.add_weight(
            name="kernel", shape=(dimensions, self.cluster_size), initializer="glorot_uniform"
        )
        self.cluster_norm = self._batch_norm("cluster_norm", self.cluster_size)

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        check_mask(inputs, mask)
        rows = self._counted(mask)
        if mask is not None and rows is None:
            # In the place of None Keras would put the mask that the inputs carry.
            rows = ops.ones_like(mask, dtype="bool")
        frames = self.input_norm(inputs, mask=rows, training=training)
        frames = ops.matmul(frames, self.kernel)
        frames = ops.relu6(self.cluster_norm(frames, mask=rows, training=training))
        if mask is not None:
            # No activation is below 0: a 0 changes neither the maximum nor the sum.
            frames = frames * ops.cast(mask, frames.dtype)[..., None]
        if self.pooling == "max":
            return ops.max(frames, axis=1)
        # In half precision a sum of some hundred frames stops growing.
        frames = at_least_float32(frames)
        if mask is None:
            return ops.cast(ops.mean(frames, axis=1), self.compute_dtype)
        count = ops.sum(ops.cast(mask, frames.dtype), axis=1, keepdims=True)
        return ops.cast(ops.sum(frames, axis=1) / ops.maximum(count, 1), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        return (input_shape[0], self.cluster_size)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "cluster_size": self.cluster_size,
            "pooling": self.pooling,
        }
