"""Vertical attention: a classifier that looks at the verticals before it names the classes.

Shape legend: B videos, H hidden, C classes, V verticals, E embedding, A attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from trainer.layers.batch_normalization import at_least_float32


@keras.saving.register_keras_serializable("nextvlad")
class VerticalAttention(keras.layers.Layer):
    """Class probabilities from the input and what attention takes from the verticals.

    A vertical is one of YouTube-8M's coarse topics; each class belongs to one at least. The first
    head names the verticals; additive attention (Bahdanau, Cho, Bengio, "Neural Machine
    Translation by Jointly Learning to Align and Translate", arXiv 1409.0473, section A.1.2) of the
    input over one trained embedding e_j a vertical gives the second head its context:

        v = sigmoid(h W_v + b_v)                                     [B,V]
        s_j = tanh(e_j W_e + h W_h + b_h) · w + b                    [B,V]
        g = Σ_j softmax_j(s)_j e_j                                   [B,E]
        p = sigmoid([h, g] W_c + b_c)                                [B,C]

    Args:
        num_classes: C.
        class_verticals: for each class the indices of its verticals, one at least. The layer only
            keeps them, as the weight `class_verticals` (0/1 [C,V]): the loss and a saved model's
            reader have them from there.
        num_verticals: V.
        embedding_size: E.
        attention_size: A.
        l2: penalty on the kernels of both heads.
        bias: initial bias of the classes, one number a class; None: 0.

    Call arguments:
        inputs: float [B,H].

    Returns:
        {"probabilities": float32 [B,C], "verticals": float32 [B,V]}.

    Raises:
        ValueError: a parameter out of range, class_verticals or bias of another length, a class
            without a vertical, with one twice or with one that does not exist.
    """

    def __init__(
        self,
        num_classes: int,
        class_verticals: Sequence[Sequence[int]],
        num_verticals: int,
        embedding_size: int = 128,
        attention_size: int = 512,
        l2: float = 0.0,
        bias: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        sizes = (num_classes, num_verticals, embedding_size, attention_size)
        if min(sizes) < 1:
            raise ValueError(
                "expected num_classes, num_verticals, embedding_size and attention_size of at "
                f"least 1, received {', '.join(map(str, sizes))}"
            )
        if len(class_verticals) != num_classes:
            raise ValueError(
                f"expected class_verticals of {num_classes} classes, "
                f"received {len(class_verticals)}"
            )
        for index, verticals in enumerate(class_verticals):
            known = set(range(num_verticals)).intersection(verticals)
            # No repetition either: a row of a 0/1 matrix has one.
            if not known or len(known) != len(verticals):
                raise ValueError(
                    f"expected one or more verticals from 0 to {num_verticals - 1}, each once, for "
                    f"class {index}, received {list(verticals)}"
                )
        if bias is not None and len(bias) != num_classes:
            raise ValueError(f"expected {num_classes} initial biases, received {len(bias)}")
        self.num_classes = num_classes
        # Tuples: Keras wraps lists. The name class_verticals is the weight's.
        self.vertical_indices = tuple(tuple(int(one) for one in row) for row in class_verticals)
        self.num_verticals = num_verticals
        self.embedding_size = embedding_size
        self.attention_size = attention_size
        self.l2 = l2
        self.bias = bias

    def build(self, input_shape: tuple[int | None, int]) -> None:
        width, attention = input_shape[-1], self.attention_size
        # The heads' weights are never rounded to half precision: their logits are float32.
        head = {"autocast": False}
        penalised = head | {
            "initializer": "glorot_uniform",
            "regularizer": keras.regularizers.L2(self.l2) if self.l2 else None,
        }
        self.vertical_kernel = self.add_weight(
            name="vertical_kernel", shape=(width, self.num_verticals), **penalised
        )
        self.vertical_bias = self.add_weight(
            name="vertical_bias", shape=(self.num_verticals,), initializer="zeros", **head
        )
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.num_verticals, self.embedding_size),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
        )
        self.embedding_kernel = self.add_weight(
            name="embedding_kernel",
            shape=(self.embedding_size, attention),
            initializer="glorot_uniform",
        )
        self.hidden_kernel = self.add_weight(
            name="hidden_kernel", shape=(width, attention), initializer="glorot_uniform"
        )
        self.attention_bias = self.add_weight(
            name="attention_bias", shape=(attention,), initializer="zeros"
        )
        self.score_kernel = self.add_weight(
            name="score_kernel", shape=(attention, 1), initializer="glorot_uniform"
        )
        # The softmax cancels it.
        self.score_bias = self.add_weight(name="score_bias", shape=(1,), initializer="zeros")
        self.class_kernel = self.add_weight(
            name="class_kernel", shape=(width + self.embedding_size, self.num_classes), **penalised
        )
        self.class_bias = self.add_weight(
            name="class_bias", shape=(self.num_classes,), initializer="zeros", **head
        )
        if self.bias is not None:
            self.class_bias.assign(ops.convert_to_tensor(self.bias, self.class_bias.dtype))
        self.class_verticals = self.add_weight(
            name="class_verticals",
            shape=(self.num_classes, self.num_verticals),
            initializer=self._class_verticals,
            dtype="float32",
            trainable=False,
            autocast=False,
        )

    def _class_verticals(self, shape: tuple[int, int], dtype: Any = None) -> Any:
        """0/1 [C,V]."""
        columns = range(shape[1])
        rows = [[float(column in row) for column in columns] for row in self.vertical_indices]
        return ops.convert_to_tensor(rows, dtype)

    def call(self, inputs: Any) -> dict[str, Any]:
        context = at_least_float32(self._context(inputs))
        inputs = at_least_float32(inputs)
        verticals = ops.matmul(inputs, self.vertical_kernel) + self.vertical_bias
        both = ops.concatenate([inputs, context], axis=-1)
        classes = ops.matmul(both, self.class_kernel) + self.class_bias
        return {
            "probabilities": ops.sigmoid(ops.cast(classes, "float32")),
            "verticals": ops.sigmoid(ops.cast(verticals, "float32")),
        }

    def _context(self, inputs: Any) -> Any:
        """The embeddings' mean under each video's attention [B,E]."""
        keys = ops.matmul(self.embeddings, self.embedding_kernel)  # [V,A]
        query = ops.matmul(inputs, self.hidden_kernel) + self.attention_bias  # [B,A]
        scores = ops.matmul(ops.tanh(keys + query[:, None]), self.score_kernel)[..., 0]  # [B,V]
        weights = ops.softmax(at_least_float32(scores + self.score_bias), axis=-1)
        return ops.matmul(ops.cast(weights, self.compute_dtype), self.embeddings)

    def compute_output_shape(
        self, input_shape: tuple[int | None, int]
    ) -> dict[str, tuple[int | None, int]]:
        return {
            "probabilities": (input_shape[0], self.num_classes),
            "verticals": (input_shape[0], self.num_verticals),
        }

    def compute_output_spec(self, inputs: Any) -> dict[str, Any]:
        # Keras would promise compute_dtype; the outputs are float32 under every policy.
        shapes = self.compute_output_shape(inputs.shape)
        return {name: keras.KerasTensor(shape, "float32") for name, shape in shapes.items()}

    def get_config(self) -> dict[str, Any]:
        # The initial bias is not part of it: a loaded layer has its weights.
        config: dict[str, Any] = super().get_config()
        return config | {
            "num_classes": self.num_classes,
            "class_verticals": [list(row) for row in self.vertical_indices],
            "num_verticals": self.num_verticals,
            "embedding_size": self.embedding_size,
            "attention_size": self.attention_size,
            "l2": self.l2,
        }
