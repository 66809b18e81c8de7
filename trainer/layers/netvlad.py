"""NetVLAD: aggregation of frame features into one vector a video.

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
class NetVLAD(FrameAggregation, keras.layers.Layer):
    """NetVLAD aggregation with soft assignment to trained clusters.

    Arandjelović, Gronat, Torii, Pajdla, Sivic, "NetVLAD: CNN architecture for weakly supervised
    place recognition", arXiv 1511.07247, eq. 4; batch norm in the place of the bias of the
    assignment: Miech, Laptev, Sivic, "Learnable pooling with Context Gating for video
    classification", arXiv 1706.06905:

        a_tk = softmax_k(BN(x_t W))          [B,T,K]  soft assignment, 0 where there is no frame
        y_fk = Σ_t a_tk (x_tf − c_fk)        [B,D,K]

    then each cluster is L2-normalised over D (intra-normalisation), and after it the whole vector.

    Args:
        cluster_size: K.
        batch_norm_rows: "valid" keeps padded frames out of the statistics of the batch norm; "all"
            counts them. Statistics are those of all replicas.
        batch_norm_momentum: of the batch norm.

    Call arguments:
        inputs: float [B,T,D].
        mask: bool [B,T], true for the frames that exist; None: all.
        training: whether batch norm uses the batch's statistics.

    Returns:
        float [B, D·K], each row of length 1 (0 for a video without frames).

    Example:
        >>> NetVLAD(cluster_size=4)(keras.ops.ones((3, 5, 16))).shape
        (3, 64)

    Raises:
        ValueError: a parameter out of range, inputs or mask of another shape.
    """

    def __init__(
        self,
        cluster_size: int = 64,
        batch_norm_rows: str = "valid",
        batch_norm_momentum: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_norm_rows, batch_norm_momentum, **kwargs)
        if cluster_size < 2:
            raise ValueError(f"expected cluster_size of at least 2, received {cluster_size}")
        self.cluster_size = cluster_size

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        dimensions = self._dimensions(input_shape)
        shape = (dimensions, self.cluster_size)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="glorot_uniform")
        # Multiplied by the mass, which is a sum: never in half precision.
        self.centers = self.add_weight(
            name="centers", shape=shape, initializer="glorot_uniform", autocast=False
        )
        self.cluster_norm = self._batch_norm("cluster_norm", self.cluster_size)

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        check_mask(inputs, mask)
        logits = ops.matmul(inputs, self.kernel)
        logits = self.cluster_norm(logits, mask=self._counted(mask), training=training)
        # Softmax, sums of assignments and norms in at least float32: in half precision the
        # assignments do not sum to 1, and squares overflow.
        assignment = ops.softmax(at_least_float32(logits), axis=-1)
        if mask is not None:
            assignment = assignment * ops.cast(mask, assignment.dtype)[..., None]
        # The mass is that of the rounded assignment, as the sums are.
        assignment = ops.cast(assignment, self.compute_dtype)
        sums = ops.matmul(ops.transpose(inputs, (0, 2, 1)), assignment)  # Σ_t a x [B,D,K]
        mass = ops.sum(at_least_float32(assignment), axis=1, keepdims=True)  # Σ_t a [B,1,K]
        residuals = at_least_float32(sums) - mass * self.centers
        # As NeXtVLAD's output: D outside, K inside.
        flat = ops.reshape(
            _unit_length(residuals, axis=1), (-1, inputs.shape[2] * self.cluster_size)
        )
        return ops.cast(_unit_length(flat, axis=1), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        return (input_shape[0], int(input_shape[2] or 0) * self.cluster_size)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "cluster_size": self.cluster_size,
        }


def _unit_length(x: Any, axis: int) -> Any:
    """x at length 1 along `axis`; 0 stays 0."""
    square = ops.sum(ops.square(x), axis=axis, keepdims=True)
    # What is 0 has no gradient: one over its length, twice, would overflow float16.
    return x * ops.where(square > 0, ops.rsqrt(ops.maximum(square, 1e-12)), 0.0)
