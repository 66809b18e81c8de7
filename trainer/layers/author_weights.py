"""Weights of the NeXtVLAD author's TensorFlow 1 code (linrongc/youtube-8m), by its names.

An author's checkpoint becomes a dict with

    reader = tf.train.load_checkpoint("model.ckpt-1000")
    variables = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Variables = dict[str, NDArray[Any]]

_BATCH_NORM = ("beta", "gamma", "moving_mean", "moving_variance")
# What a training checkpoint holds beside weights.
_NOT_A_WEIGHT = re.compile(
    r"(^|/)(global_step|beta[12]_power|Adam(_\d+)?|ExponentialMovingAverage|Momentum)$"
)


def load_author_weights(layer: Any, variables: Mapping[str, Any]) -> None:
    """Set a NeXtVLAD layer's weights from the variables of the author's layer.

    Args:
        layer: a `NeXtVLAD`; built for the variables' dimensions if it is not built yet.
        variables: arrays by the author's names: `fully_connected/{weights,biases}` (expansion),
            `fully_connected_1/{weights,biases}` (attention), `cluster_weights`,
            `cluster_bn/{beta,gamma,moving_mean,moving_variance}`, `cluster_weights2` (centres,
            [1,F,K] or [F,K]) and `vlad_bn/…`. One scope before all of them is taken off.

    Raises:
        ValueError: a variable is missing, unknown or of another shape; nothing is set then.
    """
    found = without_scope(variables, "cluster_weights2")
    if not layer.built:
        kernel = found.get("fully_connected/weights", np.zeros(0))
        if kernel.ndim != 2:
            raise ValueError(
                "expected a variable fully_connected/weights of shape [D, λD], received "
                f"{kernel.shape if kernel.size else 'none'}"
            )
        # On another layer first, so that a refusal leaves this one as it was.
        trial = type(layer).from_config(layer.get_config())
        trial.build((None, None, kernel.shape[0]))
        check(nextvlad_variables(trial), found)
        layer.build((None, None, kernel.shape[0]))
    assign(nextvlad_variables(layer), found)


def nextvlad_variables(layer: Any) -> dict[str, Any]:
    """The variables of a built NeXtVLAD layer by the author's names."""
    return {
        "fully_connected/weights": layer.expansion_kernel,
        "fully_connected/biases": layer.expansion_bias,
        "fully_connected_1/weights": layer.attention_kernel,
        "fully_connected_1/biases": layer.attention_bias,
        "cluster_weights": layer.cluster_kernel,
        "cluster_weights2": layer.centers,
        **batch_norm_variables("cluster_bn", layer.cluster_norm),
        **batch_norm_variables("vlad_bn", layer.output_norm),
    }


def batch_norm_variables(scope: str, norm: Any) -> dict[str, Any]:
    """The variables of a batch norm by slim's names."""
    return {f"{scope}/{name}": getattr(norm, name) for name in _BATCH_NORM}


def without_scope(variables: Mapping[str, Any], known: str) -> Variables:
    """Arrays of weights by name, without `:0` and without the scope that stands before `known`.

    The author's trainer puts all of a model into a scope `tower`.
    """
    arrays = {
        name.removesuffix(":0"): np.asarray(value)
        for name, value in variables.items()
        if not _NOT_A_WEIGHT.search(name.removesuffix(":0"))
    }
    scope = next((n.removesuffix(known) for n in arrays if n.split("/")[-1] == known), "")
    return {name.removeprefix(scope): value for name, value in arrays.items()}


def assign(targets: Mapping[str, Any], variables: Variables) -> None:
    """Set each target from the array of its name.

    Raises:
        ValueError: see `check`; nothing is set then.
    """
    check(targets, variables)
    for name, target in targets.items():
        target.assign(variables[name].reshape(tuple(target.shape)))


def check(targets: Mapping[str, Any], variables: Variables) -> None:
    """Whether there is an array for each target and nothing else.

    Raises:
        ValueError: a name is missing or unknown, a shape differs, or a value is no finite number.
    """
    missing = sorted(set(targets) - set(variables))
    unknown = sorted(set(variables) - set(targets))
    if missing or unknown:
        raise ValueError(
            f"weights of another configuration: expected {len(targets)} variables, received "
            f"{len(variables)}; missing: {_some(missing)}; unknown: {_some(unknown)}"
        )
    for name, target in targets.items():
        found, expected = variables[name].shape, tuple(target.shape)
        if found not in (expected, (1, *expected)):
            raise ValueError(
                f"weights of another configuration: expected {name} of shape {expected}, "
                f"received {found}"
            )
        if variables[name].dtype.kind not in "fiu" or not np.isfinite(variables[name]).all():
            raise ValueError(f"expected finite numbers in {name}, received others")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more if names else "none"
