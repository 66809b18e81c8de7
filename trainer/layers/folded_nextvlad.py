"""NeXtVLAD for inference: what does not depend on the frames is computed once, at export."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

from trainer.layers import nextvlad_forms
from trainer.layers.batch_normalization import at_least_float32
from trainer.layers.frame_mask import check_mask
from trainer.layers.nextvlad import NeXtVLAD

FAST_SHARE = 0.9
"""The fast form is taken below this share of the folded one's products: its own are smaller ones,
and run at about 0.85 of the rate (2 cores with AVX-512, TensorFlow 2.21)."""


@keras.saving.register_keras_serializable("nextvlad")
class FoldedNeXtVLAD(keras.layers.Layer):
    """The same function as a trained `NeXtVLAD` by its moving statistics, with fewer operations.

    By moving statistics batch norm is affine, so that with scale s and shift z of the cluster norm

        logits = x (Wₑ W_c · s) + (bₑ W_c · s + z)      α = sigmoid(x (Wₑ Wₐ) + (bₑ Wₐ + bₐ))

    are one product each with constants (`trainer.layers.nextvlad` names the rest). The aggregation
    Σ_t Σ_g α a (x̃ − c) is one product too, over all frames and groups at once:

    * folded: [B,K,T·G] · [B,T·G,F], of x̃ = x Wₑ + bₑ;
    * fast: [B,G·K,T] · [B,T,D], expanded after the sum over T.

    Args:
        cluster_size: K.
        groups: G; must divide λD.
        expansion: λ.
        form: "folded" or "fast"; "auto" counts products.
        most_frames: T to count with where a graph leaves it open.

    Call arguments:
        inputs: float [B,T,D].
        mask: bool [B,T], true for the frames that exist; None: all.

    Returns:
        float [B, F·K].
    """

    def __init__(
        self,
        cluster_size: int,
        groups: int,
        expansion: int,
        form: Literal["auto", "folded", "fast"] = "auto",
        most_frames: int = nextvlad_forms.UNKNOWN_FRAMES,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainable=False, **kwargs)
        self.supports_masking = True
        self.cluster_size = cluster_size
        self.groups = groups
        self.expansion = expansion
        self.form = form
        self.most_frames = most_frames

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        dimensions = int(input_shape[2] or 0)
        expanded, columns = self.expansion * dimensions, self.groups * self.cluster_size
        self.group_features = expanded // self.groups
        for name, shape in {
            "logit_kernel": (dimensions, columns),
            "logit_bias": (columns,),
            "attention_kernel": (dimensions, self.groups),
            "attention_bias": (self.groups,),
            "expansion_kernel": (dimensions, expanded),
            "expansion_bias": (expanded,),
            "centers": (self.cluster_size, self.group_features),
            "output_scale": (self.group_features * self.cluster_size,),
            "output_shift": (self.group_features * self.cluster_size,),
        }.items():
            # As in training, only the products are in half precision.
            weight = self.add_weight(
                shape, "zeros", name=name, trainable=False, autocast=name.endswith("kernel")
            )
            setattr(self, name, weight)

    def fold(self, trained: NeXtVLAD) -> None:
        """Take the weights and moving statistics of a trained layer of the same sizes."""
        norm, output_norm = trained.cluster_norm, trained.output_norm
        # In float64, so that what is folded is as exact as what it was folded from.
        kernel, bias, clusters, attention = (
            ops.cast(weight, "float64")
            for weight in (
                trained.expansion_kernel,
                trained.expansion_bias,
                trained.cluster_kernel,
                trained.attention_kernel,
            )
        )
        scale, shift = _affine(norm)
        output_scale, output_shift = _affine(output_norm)
        self.logit_kernel.assign(ops.matmul(kernel, clusters) * scale)
        self.logit_bias.assign(ops.matmul(bias, clusters) * scale + shift)
        self.attention_kernel.assign(ops.matmul(kernel, attention))
        self.attention_bias.assign(
            ops.matmul(bias, attention) + ops.cast(trained.attention_bias, "float64")
        )
        self.expansion_kernel.assign(trained.expansion_kernel)
        self.expansion_bias.assign(trained.expansion_bias)
        self.centers.assign(ops.transpose(trained.centers))
        self.output_scale.assign(output_scale)
        self.output_shift.assign(output_shift)

    def call(self, inputs: Any, mask: Any = None) -> Any:
        check_mask(inputs, mask)
        rows = ops.reshape(inputs, (-1, inputs.shape[2]))
        attention = at_least_float32(ops.matmul(rows, self.attention_kernel))
        attention = ops.sigmoid(attention + self.attention_bias)
        if mask is not None:
            attention = attention * ops.reshape(ops.cast(mask, attention.dtype), (-1, 1))
        logits = at_least_float32(ops.matmul(rows, self.logit_kernel)) + self.logit_bias
        logits = ops.reshape(logits, (-1, self.cluster_size))
        assignment = ops.softmax(logits) * ops.reshape(attention, (-1, 1))
        frames = inputs.shape[1] or ops.shape(inputs)[1]
        if self.takes(inputs.shape) == "folded":
            assignment = ops.reshape(assignment, (-1, frames * self.groups, self.cluster_size))
            residuals = self._folded(rows, assignment)
        else:
            columns = self.groups * self.cluster_size
            assignment = ops.reshape(assignment, (-1, frames, columns))
            residuals = self._fast(inputs, assignment)
        square = ops.sum(ops.square(residuals), axis=-1, keepdims=True)
        residuals = residuals * ops.rsqrt(ops.maximum(square, 1e-12))
        size = self.group_features * self.cluster_size
        flat = ops.reshape(ops.transpose(residuals, (0, 2, 1)), (-1, size))
        return ops.cast(flat * self.output_scale + self.output_shift, self.compute_dtype)

    def takes(self, input_shape: tuple[int | None, ...]) -> str:
        """The form for inputs of a shape [B,T,D]."""
        if self.form != "auto":
            return self.form
        shape = nextvlad_forms.Shape(
            1,
            input_shape[1] or self.most_frames,
            int(input_shape[2] or 0),
            self.groups,
            self.cluster_size,
            self.expansion,
            training=False,
        )
        products = {
            form: nextvlad_forms.multiply_adds(shape, form) - nextvlad_forms.folding(shape)
            for form in ("folded", "fast")
        }
        return "fast" if products["fast"] < FAST_SHARE * products["folded"] else "folded"

    def _folded(self, rows: Any, assignment: Any) -> Any:
        """Σ_t Σ_g α a (x̃ − c) [B,K,F] of α a [B,T·G,K], through x̃."""
        expanded = ops.matmul(rows, self.expansion_kernel)
        expanded = expanded + ops.cast(self.expansion_bias, expanded.dtype)
        descriptors = ops.reshape(expanded, (-1, assignment.shape[1] or ops.shape(assignment)[1],
                                             self.group_features))  # fmt: skip
        by_cluster = ops.transpose(ops.cast(assignment, expanded.dtype), (0, 2, 1))
        sums = at_least_float32(ops.matmul(by_cluster, descriptors))
        mass = ops.sum(assignment, axis=1)[..., None]
        return sums - mass * self.centers

    def _fast(self, inputs: Any, assignment: Any) -> Any:
        """The same of α a [B,T,G·K], by sums of x."""
        dimensions = inputs.shape[2]
        by_cluster = ops.transpose(ops.cast(assignment, inputs.dtype), (0, 2, 1))
        sums = ops.reshape(
            ops.matmul(by_cluster, inputs), (-1, self.groups, self.cluster_size, dimensions)
        )
        kernel = ops.reshape(self.expansion_kernel, (dimensions, self.groups, self.group_features))
        sums = ops.sum(ops.matmul(sums, ops.transpose(kernel, (1, 0, 2))), axis=1)
        mass = ops.reshape(ops.sum(assignment, axis=1), (-1, self.groups, self.cluster_size))
        bias = ops.reshape(self.expansion_bias, (self.groups, self.group_features))
        offset = ops.matmul(ops.transpose(mass, (0, 2, 1)), bias)
        return at_least_float32(sums) + offset - ops.sum(mass, axis=1)[..., None] * self.centers

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """The output has no frames, so it has no mask."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        features = self.expansion * int(input_shape[2] or 0) // self.groups
        return (input_shape[0], features * self.cluster_size)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        config.pop("trainable", None)
        return config | {
            "cluster_size": self.cluster_size,
            "groups": self.groups,
            "expansion": self.expansion,
            "form": self.form,
            "most_frames": self.most_frames,
        }


def _affine(norm: Any) -> tuple[Any, Any]:
    """Scale and shift, float64 [N], that a batch norm is by its moving statistics."""
    gamma, beta, mean, variance = (
        ops.cast(weight, "float64")
        for weight in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    scale = gamma * ops.rsqrt(variance + norm.epsilon)
    return scale, beta - mean * scale
