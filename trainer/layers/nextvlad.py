"""NeXtVLAD: aggregation of frame features into one vector a video.

Shape legend: B videos, T frames, D features, G groups, K clusters, λ expansion, F = λD/G group
features.
"""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from trainer.layers import nextvlad_forms
from trainer.layers.author_weights import load_author_weights
from trainer.layers.batch_normalization import (
    at_least_float32,
    replica_mean,
    row_mean,
    square_sum,
)
from trainer.layers.frame_aggregation import FrameAggregation
from trainer.layers.frame_mask import check_mask

__all__ = ["NeXtVLAD", "load_author_weights"]

Form = Literal["auto", "direct", "folded", "fast"]
FORMS: tuple[Form, ...] = ("auto", *nextvlad_forms.FORMS)


@keras.saving.register_keras_serializable("nextvlad")
class NeXtVLAD(FrameAggregation, keras.layers.Layer):
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
      once; x̃ is made for the aggregation alone, one group after the other;
    * fast: x̃ is never made: the assigned sums of x, [B,K,D] a group, are expanded after the sum
      over T.

    The last two subtract the mean frame first: the batch norm's mean is then 0 by itself, and half
    precision keeps the digits that the mean would take. Of the half precisions take bfloat16: in
    float16 the assignments to a cluster that a short video hardly uses underflow, and the
    intra-normalisation makes what is left as long as any other.

    Args:
        cluster_size: K.
        groups: G; must divide λD.
        expansion: λ.
        form: "auto" takes the fastest for the shape, precision and device by the measurements of
            `trainer.layers.nextvlad_forms`.
        batch_norm_rows: "valid" keeps padded frames out of the statistics of the assignment's
            batch norm; "all" is the author's behaviour. Statistics are those of all replicas.
        batch_norm_momentum: of both batch norms (author: 0.999).

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
        ValueError: G does not divide λD, a parameter out of range, or a mask of another shape.
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
        super().__init__(batch_norm_rows, batch_norm_momentum, **kwargs)
        if cluster_size < 2 or groups < 1 or expansion < 1:
            raise ValueError(
                "expected cluster_size of at least 2, groups and expansion of at least 1, "
                f"received {cluster_size}, {groups} and {expansion}"
            )
        if form not in FORMS:
            raise ValueError(f"expected form of {', '.join(FORMS)}, received {form!r}")
        self.cluster_size = cluster_size
        self.groups = groups
        self.expansion = expansion
        self.form = form

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        dimensions = self._dimensions(input_shape)
        expanded = self.expansion * dimensions
        if expanded % self.groups:
            raise ValueError(
                f"groups must divide expansion · D = {expanded}, received groups={self.groups}"
            )
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={2: dimensions})
        columns = self.groups * self.cluster_size
        self.group_features = expanded // self.groups
        # Cast where they are used: sums over a weight's axis stay in float32.
        self.expansion_kernel = self._weight("expansion_kernel", (dimensions, expanded))
        self.expansion_bias = self._weight("expansion_bias", (expanded,), "zeros")
        self.attention_kernel = self._weight("attention_kernel", (expanded, self.groups))
        self.attention_bias = self._weight("attention_bias", (self.groups,), "zeros")
        self.cluster_kernel = self._weight("cluster_kernel", (expanded, columns))
        self.centers = self._weight("centers", (self.group_features, self.cluster_size))
        self.cluster_norm = self._batch_norm("cluster_norm", columns)
        self.output_norm = self._batch_norm("output_norm", self.group_features * self.cluster_size)

    def _weight(
        self, name: str, shape: tuple[int, ...], initializer: str = "glorot_uniform"
    ) -> Any:
        return self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        check_mask(inputs, mask)
        form = self.form
        if form == "auto":
            form = self.fastest_form(inputs.shape, bool(training))
        if form == "direct":
            residuals = self._direct(inputs, mask, training)
        else:
            residuals = self._centred(inputs, mask, training, form)
        square = ops.sum(ops.square(residuals), axis=-1, keepdims=True)
        # What is 0 has no gradient: one over its length would overflow float16.
        residuals = residuals * ops.where(square > 0, ops.rsqrt(ops.maximum(square, 1e-12)), 0.0)
        # The author's order of the output: F outside, K inside.
        flat = ops.reshape(
            ops.transpose(residuals, (0, 2, 1)), (-1, self.group_features * self.cluster_size)
        )
        return self.output_norm(flat, training=training)

    def fastest_form(
        self, input_shape: tuple[int | None, ...], training: bool
    ) -> nextvlad_forms.Form:
        """What "auto" takes for inputs of a shape [B,T,D]."""
        batch, frames, dimensions = input_shape
        shape = nextvlad_forms.Shape(
            batch or nextvlad_forms.UNKNOWN_BATCH,
            frames or nextvlad_forms.UNKNOWN_FRAMES,
            int(dimensions or 0),
            self.groups,
            self.cluster_size,
            self.expansion,
            training,
        )
        return nextvlad_forms.fastest(shape, nextvlad_forms.device(), self.compute_dtype)

    def soft_assignment(
        self, inputs: Any, mask: Any = None, training: bool | None = None
    ) -> tuple[Any, Any]:
        """α [B,T,G] and a [B,T,G,K] of frames [B,T,D], by the equations as they stand."""
        attention, assignment, _ = self._assigned(inputs, mask, training)
        shape = (-1, _frames(inputs), self.groups, self.cluster_size)
        return attention, ops.reshape(assignment, shape)

    def _assigned(self, inputs: Any, mask: Any, training: bool | None) -> tuple[Any, Any, Any]:
        """α [B,T,G], 0 where no frame is; a [B,T·G,K]; x̃ [B,T,λD]."""
        expanded = ops.matmul(inputs, self._compute(self.expansion_kernel))
        expanded = expanded + self._compute(self.expansion_bias)
        attention = ops.matmul(expanded, self._compute(self.attention_kernel))
        attention = ops.sigmoid(at_least_float32(attention) + self.attention_bias)
        if mask is not None:
            attention = attention * ops.cast(mask, attention.dtype)[..., None]
        logits = ops.matmul(expanded, self._compute(self.cluster_kernel))
        logits = self.cluster_norm(logits, mask=self._counted(mask), training=training)
        rows = _frames(inputs) * self.groups
        logits = ops.reshape(at_least_float32(logits), (-1, rows, self.cluster_size))
        return attention, ops.softmax(logits, axis=-1), expanded

    def _direct(self, inputs: Any, mask: Any, training: bool | None) -> Any:
        """Σ_t Σ_g α a (x̃ − c) [B,K,F], the equations as they stand."""
        attention, assignment, expanded = self._assigned(inputs, mask, training)
        rows = _frames(inputs) * self.groups
        assignment = assignment * ops.reshape(attention, (-1, rows, 1))
        descriptors = ops.reshape(expanded, (-1, rows, self.group_features))
        by_cluster = ops.transpose(self._compute(assignment), (0, 2, 1))
        mass = ops.sum(assignment, axis=1)[..., None]
        sums = at_least_float32(ops.matmul(by_cluster, descriptors))
        return sums - mass * ops.transpose(self.centers)

    def _centred(self, inputs: Any, mask: Any, training: bool | None, form: Form) -> Any:
        """The same [B,K,F] without x̃ [B,T,λD], of frames around their mean."""
        frames, dimensions = _frames(inputs), inputs.shape[2]
        rows, bias, count = self._rows_around_their_mean(inputs, mask, training)
        kernel = self._compute(self.expansion_kernel)
        attention = ops.matmul(rows, ops.matmul(kernel, self._compute(self.attention_kernel)))
        attention_bias = self.attention_bias + _row_times(bias, self.attention_kernel)
        attention = ops.sigmoid(at_least_float32(attention) + attention_bias)
        if mask is not None:
            attention = attention * ops.reshape(ops.cast(mask, attention.dtype), (-1, 1))
        folded = ops.matmul(kernel, self._compute(self.cluster_kernel))
        logits = [ops.matmul(rows, part) for part in ops.split(folded, self.groups, axis=1)]
        scale, shift = self._normalisation(logits, bias, count)
        per_group = zip(
            logits,
            ops.split(scale, self.groups),
            ops.split(shift, self.groups),
            ops.split(attention, self.groups, axis=1),
            ops.split(kernel, self.groups, axis=1),
            ops.split(bias, self.groups),
            strict=True,
        )
        aggregated: Any = 0.0
        total_mass: Any = 0.0
        videos = ops.reshape(rows, (-1, frames, dimensions))
        # A group at a time: what lies between two products then fits into a processor's cache.
        for group_logits, group_scale, group_shift, weight, group_kernel, group_bias in per_group:
            assignment = ops.softmax(at_least_float32(group_logits) * group_scale + group_shift)
            assignment = ops.reshape(assignment * weight, (-1, frames, self.cluster_size))
            mass = ops.sum(assignment, axis=1)[..., None]  # [B,K,1]
            by_cluster = ops.transpose(self._compute(assignment), (0, 2, 1))
            if form == "fast":
                sums = ops.reshape(ops.matmul(by_cluster, videos), (-1, dimensions))
                sums = ops.matmul(sums, group_kernel)
                sums = ops.reshape(sums, (-1, self.cluster_size, self.group_features))
            else:
                expanded = ops.matmul(rows, group_kernel)
                expanded = ops.reshape(expanded, (-1, frames, self.group_features))
                sums = ops.matmul(by_cluster, expanded)
            aggregated = aggregated + at_least_float32(sums) + mass * group_bias
            total_mass = total_mass + mass
        return aggregated - total_mass * ops.transpose(self.centers)

    def _rows_around_their_mean(
        self, inputs: Any, mask: Any, training: bool | None
    ) -> tuple[Any, Any, Any]:
        """Frames [B·T,D], the bias [λD] that makes x̃ of them, and how many count (None: moving).

        By the moving statistics nothing is to be gained, and the frames stay as they are.
        """
        rows = ops.reshape(inputs, (-1, inputs.shape[2]))
        bias = ops.convert_to_tensor(self.expansion_bias)
        if not self.cluster_norm.uses_batch(training):
            return rows, bias, None
        counted = self._counted(mask)
        wide = at_least_float32(rows)
        if counted is None:
            centre, count = row_mean(wide)
            rows = wide - centre
        else:
            weights = ops.reshape(ops.cast(counted, wide.dtype), (-1, 1))
            centre, count = row_mean(wide, weights)
            # A row that does not count becomes 0: it adds nothing to any sum from here on.
            rows = (wide - centre) * weights
        bias = bias + _row_times(centre, self.expansion_kernel)
        return ops.cast(rows, self.compute_dtype), bias, count

    def _normalisation(self, logits: list[Any], bias: Any, count: Any) -> tuple[Any, Any]:
        """Scale and shift [G·K] that are the batch norm of logits, one [B·T,K] a group."""
        norm = self.cluster_norm
        # The bias cancels in the batch's statistics but stands in the moving mean.
        mean = _row_times(bias, self.cluster_kernel)
        if count is None:
            scale = norm.scale(norm.moving_variance)
            return scale, norm.beta + (mean - norm.moving_mean) * scale
        squares = [square_sum(at_least_float32(part)) for part in logits]
        variance = replica_mean(ops.concatenate(squares)) / count
        norm.update(mean, variance)
        return norm.scale(variance), ops.convert_to_tensor(norm.beta)

    def _compute(self, value: Any) -> Any:
        """As the products take it."""
        return ops.cast(value, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        features = self.expansion * int(input_shape[2] or 0) // self.groups
        return (input_shape[0], features * self.cluster_size)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "cluster_size": self.cluster_size,
            "groups": self.groups,
            "expansion": self.expansion,
            "form": self.form,
        }


def _frames(inputs: Any) -> Any:
    return inputs.shape[1] or ops.shape(inputs)[1]


def _row_times(row: Any, matrix: Any) -> Any:
    """[N] times [N,M], a sum that keeps the precision of the weights."""
    return ops.matmul(row[None], ops.convert_to_tensor(matrix))[0]
