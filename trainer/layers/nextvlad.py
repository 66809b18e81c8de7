"""NeXtVLAD: aggregation of frame features into one vector a video.

Shape legend: B videos, T frames, D features, G groups, K clusters, λ expansion, F = λD/G group
features.
"""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

Form = Literal["auto", "direct", "folded", "fast"]
FORMS = ("auto", "direct", "folded", "fast")
# The author's batch norm: tf.contrib.slim's epsilon.
BATCH_NORM_EPSILON = 1e-3


@keras.saving.register_keras_serializable("nextvlad")
class NeXtVLAD(keras.layers.Layer):
    """NeXtVLAD aggregation with attention over groups.

    Lin, Xiao, Fan, "NeXtVLAD: An Efficient Neural Network to Aggregate Frame-level Features for
    Large-scale Video Classification", arXiv 1811.05014, section 3.2:

        x̃ = x Wₑ + bₑ                      [B,T,λD]   expansion
        α_g = sigmoid(x̃ Wₐ + bₐ)           [B,T,G]    attention over groups (eq. 4)
        a_gk = softmax_k(BN(x̃ W_c))        [B,T,G,K]  soft assignment (eq. 5)
        y_fk = Σ_t Σ_g α_g a_gk (x̃_gf − c_fk)         (eq. 6)

    then each cluster is L2-normalised over F, and batch norm follows.

    x̃ is linear in x and enters linearly only, which allows three forms of equal value:

    * direct: as written;
    * folded: the logits come from x through the product of the two matrices, which a step computes
      once; x̃ is made for the aggregation alone;
    * fast: x̃ is never made: the assigned sums of x, [B,GK,D], are expanded after the sum over T.

    Args:
        cluster_size: K.
        groups: G; must divide λD.
        expansion: λ.
        form: "auto" takes the form with the fewest multiply-adds of a training step.
        batch_norm_rows: "valid" keeps padded frames out of the statistics of the assignment's
            batch norm; "all" is the author's behaviour.
        batch_norm_momentum: of both batch norms.

    Call arguments:
        inputs: float [B,T,D].
        mask: bool [B,T], true for the frames that exist; None: all.
        training: whether batch norm uses the batch's statistics.

    Returns:
        float [B, F·K].

    Example:
        >>> NeXtVLAD(cluster_size=4, groups=2)(keras.ops.ones((3, 5, 16))).shape
        (3, 64)

    Raises:
        ValueError: G does not divide λD, or a parameter out of range.
    """

    def __init__(
        self,
        cluster_size: int = 128,
        groups: int = 8,
        expansion: int = 2,
        form: Form = "auto",
        batch_norm_rows: Literal["valid", "all"] = "valid",
        batch_norm_momentum: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if cluster_size < 2 or groups < 1 or expansion < 1:
            raise ValueError(
                "expected cluster_size of at least 2, groups and expansion of at least 1, "
                f"received {cluster_size}, {groups} and {expansion}"
            )
        if form not in FORMS or batch_norm_rows not in ("valid", "all"):
            raise ValueError(
                f"expected form of {', '.join(FORMS)} and batch_norm_rows of valid, all, "
                f"received {form!r} and {batch_norm_rows!r}"
            )
        self.cluster_size = cluster_size
        self.groups = groups
        self.expansion = expansion
        self.form = form
        self.batch_norm_rows = batch_norm_rows
        self.batch_norm_momentum = batch_norm_momentum
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        dimensions = input_shape[-1]
        if len(input_shape) != 3 or dimensions is None:
            raise ValueError(f"expected inputs of shape [B, T, D], received {input_shape}")
        expanded = self.expansion * dimensions
        if expanded % self.groups:
            raise ValueError(
                f"groups must divide expansion · D = {expanded}, received groups={self.groups}"
            )
        columns = self.groups * self.cluster_size
        self.group_features = expanded // self.groups
        self.expansion_kernel = self.add_weight(
            name="expansion_kernel", shape=(dimensions, expanded), initializer="glorot_uniform"
        )
        self.expansion_bias = self.add_weight(
            name="expansion_bias", shape=(expanded,), initializer="zeros"
        )
        self.attention_kernel = self.add_weight(
            name="attention_kernel", shape=(expanded, self.groups), initializer="glorot_uniform"
        )
        self.attention_bias = self.add_weight(
            name="attention_bias", shape=(self.groups,), initializer="zeros"
        )
        self.cluster_kernel = self.add_weight(
            name="cluster_kernel", shape=(expanded, columns), initializer="glorot_uniform"
        )
        self.centers = self.add_weight(
            name="centers",
            shape=(self.group_features, self.cluster_size),
            initializer="glorot_uniform",
        )
        self.cluster_norm = self._batch_norm("cluster_norm", (*input_shape[:2], columns))
        self.output_norm = self._batch_norm(
            "output_norm", (input_shape[0], self.group_features * self.cluster_size)
        )

    def _batch_norm(
        self, name: str, shape: tuple[int | None, ...]
    ) -> keras.layers.BatchNormalization:
        layer = keras.layers.BatchNormalization(
            momentum=self.batch_norm_momentum,
            epsilon=BATCH_NORM_EPSILON,
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build(shape)
        return layer

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        form = self._form(inputs.shape[1], inputs.shape[2])
        expanded = None if form == "fast" else self._expand(inputs)
        assignment = self._assign(inputs, expanded if form == "direct" else None, mask, training)
        if expanded is None:
            residuals = self._aggregate_then_expand(inputs, assignment)
        else:
            residuals = self._aggregate(expanded, assignment)
        mass = ops.sum(assignment, axis=(1, 2))  # [B,K]
        residuals = residuals - mass[:, :, None] * ops.transpose(self.centers)
        # Intra-normalisation in at least float32: squares of half-precision sums overflow.
        if self.compute_dtype in ("float16", "bfloat16"):
            residuals = ops.cast(residuals, "float32")
        norm = ops.sum(ops.square(residuals), axis=-1, keepdims=True)
        residuals = residuals * ops.rsqrt(ops.maximum(norm, 1e-12))
        # The author's order of the output: F outside, K inside.
        flat = ops.reshape(
            ops.transpose(residuals, (0, 2, 1)), (-1, self.group_features * self.cluster_size)
        )
        return self.output_norm(ops.cast(flat, self.compute_dtype), training=training)

    def _form(self, frames: int | None, dimensions: int) -> str:
        if self.form != "auto":
            return self.form
        if frames is None:
            return "fast"
        folded, fast = training_multiply_adds(
            frames, dimensions, self.groups, self.cluster_size, self.expansion
        )
        return "fast" if fast < folded else "folded"

    def _expand(self, inputs: Any) -> Any:
        """x̃ [B,T,λD]."""
        return ops.matmul(inputs, self.expansion_kernel) + self.expansion_bias

    def _assign(self, inputs: Any, expanded: Any, mask: Any, training: bool | None) -> Any:
        """α·a [B,T,G,K]: attention times soft assignment; 0 for frames that do not exist."""
        kernel = ops.concatenate([self.cluster_kernel, self.attention_kernel], axis=1)
        if expanded is None:
            logits = ops.matmul(inputs, ops.matmul(self.expansion_kernel, kernel))
            # The bias cancels in the batch's statistics but stands in the moving mean.
            logits = logits + ops.matmul(self.expansion_bias[None], kernel)
        else:
            logits = ops.matmul(expanded, kernel)
        columns = self.groups * self.cluster_size
        attention = ops.sigmoid(logits[..., columns:] + self.attention_bias)
        if mask is not None:
            attention = attention * ops.cast(mask, attention.dtype)[..., None]
        rows = mask if self.batch_norm_rows == "valid" else None
        logits = self.cluster_norm(logits[..., :columns], training=training, mask=rows)
        shape = (-1, inputs.shape[1] or ops.shape(inputs)[1], self.groups, self.cluster_size)
        assignment = ops.softmax(ops.reshape(logits, shape), axis=-1)
        return assignment * attention[..., None]

    def _aggregate(self, expanded: Any, assignment: Any) -> Any:
        """Σ_t Σ_g α a x̃ [B,K,F], of x̃."""
        rows = (expanded.shape[1] or ops.shape(expanded)[1]) * self.groups
        groups = ops.reshape(expanded, (-1, rows, self.group_features))
        weights = ops.reshape(assignment, (-1, rows, self.cluster_size))
        return ops.matmul(ops.transpose(weights, (0, 2, 1)), groups)

    def _aggregate_then_expand(self, inputs: Any, assignment: Any) -> Any:
        """The same [B,K,F] without x̃: sum x over T first, expand the sums."""
        frames = inputs.shape[1] or ops.shape(inputs)[1]
        dimensions = inputs.shape[2]
        columns = self.groups * self.cluster_size
        weights = ops.reshape(assignment, (-1, frames, columns))
        sums = ops.matmul(ops.transpose(weights, (0, 2, 1)), inputs)  # [B,GK,D]
        sums = ops.reshape(sums, (-1, self.groups, self.cluster_size, dimensions))
        sums = ops.reshape(
            ops.transpose(sums, (0, 2, 1, 3)), (-1, self.cluster_size, self.groups * dimensions)
        )
        kernel = ops.reshape(self.expansion_kernel, (dimensions, self.groups, self.group_features))
        kernel = ops.reshape(ops.transpose(kernel, (1, 0, 2)), (-1, self.group_features))
        mass = ops.transpose(ops.sum(assignment, axis=1), (0, 2, 1))  # [B,K,G]
        bias = ops.reshape(self.expansion_bias, (self.groups, self.group_features))
        return ops.matmul(sums, kernel) + ops.matmul(mass, bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        features = self.expansion * int(input_shape[2] or 0) // self.groups
        return (input_shape[0], features * self.cluster_size)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """The output has no frames, so it has no mask."""

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {
            "cluster_size": self.cluster_size,
            "groups": self.groups,
            "expansion": self.expansion,
            "form": self.form,
            "batch_norm_rows": self.batch_norm_rows,
            "batch_norm_momentum": self.batch_norm_momentum,
        }


def training_multiply_adds(
    frames: int, dimensions: int, groups: int, cluster_size: int, expansion: int
) -> tuple[int, int]:
    """Multiply-adds a video of a training step (no gradient to x): folded form, fast form.

    A product costs its forward twice more in the backward pass, once where one factor is x itself.
    What both forms share, the logits, is left out.
    """
    columns, expanded = groups * cluster_size, expansion * dimensions
    folded = 2 * frames * dimensions * expanded + 3 * frames * cluster_size * expanded
    fast = 2 * frames * dimensions * columns + 3 * cluster_size * dimensions * expanded
    return folded, fast
