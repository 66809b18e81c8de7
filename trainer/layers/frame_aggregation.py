"""What the layers that aggregate frames share."""

from __future__ import annotations

from typing import Any

from trainer.layers.batch_normalization import BatchNormalization


class FrameAggregation:
    """Mixin of a Keras layer [B,T,D] → [B,N]: its batch norms, and the rows that feed them.

    Args:
        batch_norm_rows: "valid" keeps padded frames out of the statistics; "all" counts them.
        batch_norm_momentum: of the batch norms.

    Raises:
        ValueError: batch_norm_rows is neither.
    """

    dtype_policy: Any

    def __init__(self, batch_norm_rows: str, batch_norm_momentum: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if batch_norm_rows not in ("valid", "all"):
            raise ValueError(
                f"expected batch_norm_rows of valid, all, received {batch_norm_rows!r}"
            )
        self.batch_norm_rows = batch_norm_rows
        self.batch_norm_momentum = batch_norm_momentum
        self.supports_masking = True

    def _dimensions(self, input_shape: tuple[int | None, ...]) -> int:
        """D of the inputs.

        Raises:
            ValueError: the inputs are not [B,T,D], or D is open.
        """
        if len(input_shape) != 3 or input_shape[-1] is None:
            raise ValueError(f"expected inputs of shape [B, T, D], received {input_shape}")
        return input_shape[-1]

    def _batch_norm(self, name: str, width: int) -> BatchNormalization:
        layer = BatchNormalization(self.batch_norm_momentum, dtype=self.dtype_policy, name=name)
        layer.build((None, width))
        return layer

    def _counted(self, mask: Any) -> Any:
        """The rows that feed the batch norms' statistics; None: all."""
        return mask if self.batch_norm_rows == "valid" else None

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """The output has no frames, so it has no mask."""

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        return config | {
            "batch_norm_rows": self.batch_norm_rows,
            "batch_norm_momentum": self.batch_norm_momentum,
        }
