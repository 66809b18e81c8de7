"""The classifier on top of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from trainer.config import ModelConfig
from trainer.layers import MixtureOfExperts, VerticalAttention

Verticals = tuple[Sequence[str], Sequence[Sequence[int]]]
"""Names [V] of the verticals, and for each of the C classes the indices of its own."""


@dataclasses.dataclass(frozen=True)
class Head:
    """Makes the classifier that the configuration names.

    Attributes:
        config: of the model.
        num_classes: C.
        bias: float [C], log-odds that the classifier starts at.
        verticals: of the classes; what `vertical_attention` needs.
    """

    config: ModelConfig
    num_classes: int
    bias: NDArray[np.floating]
    verticals: Verticals | None

    def __call__(self, hidden: Any, kind: str | None = None, prefix: str = "") -> Any:
        """Probabilities [B,C] of hidden [B,H]; with verticals a dict that has those too [B,V].

        Args:
            hidden: of the network.
            kind: of `model.classifier`; None: the configuration's.
            prefix: of the layer's name, which is the same in every model of a configuration: its
                weights are known by it.
        """
        kind = kind or self.config.classifier
        name = f"{prefix}classifier"
        penalty = self.config.classifier_l2
        if kind == "moe":
            return MixtureOfExperts(
                self.num_classes, self.config.num_mixtures, penalty, self.bias.tolist(), name=name
            )(hidden)
        if kind == "vertical_attention":
            assert self.verticals, "check_model has seen to it"
            names, of_classes = self.verticals
            return VerticalAttention(
                self.num_classes,
                of_classes,
                len(names),
                self.config.vertical_embedding_size,
                self.config.vertical_attention_size,
                penalty,
                self.bias.tolist(),
                name=name,
            )(hidden)
        return keras.layers.Activation("sigmoid", dtype="float32")(self.logits(hidden, name))

    def logits(self, hidden: Any, name: str) -> Any:
        """Logits [B,C] of the logistic classifier."""
        penalty = self.config.classifier_l2
        layer = keras.layers.Dense(
            self.num_classes,
            kernel_regularizer=keras.regularizers.L2(penalty) if penalty else None,
            dtype="float32",
            name=name,
        )
        outputs = layer(hidden)
        layer.bias.assign(self.bias)
        return outputs
