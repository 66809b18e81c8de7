"""All that a training depends on from one step to the next: its tensors, and where it stands."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray

from trainer.checkpoints import Checkpoint
from trainer.errors import InputError
from trainer.train_step import TrainStep

_SEED_STEP = 1_000_003
"""Between the seeds of two replicas."""


@dataclasses.dataclass
class Position:
    """Where a training stands, but for its tensors.

    Attributes:
        epoch, step: the next step is this one of this epoch, both from 0.
        loss_sum, loss_steps: since the last validation.
        history: a row for each validation.
        timings: a row for each validation, of what no two runs have alike.
        best_gap: on the held-out shards; `best_step` updates had been made then.
        seconds, waited: of training so far, validation not counted; of these, for input.
        ended: whether nothing is left to do.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    timings: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best_gap: float | None = None
    best_step: int = -1
    seconds: float = 0.0
    waited: float = 0.0
    ended: bool = False


class TrainingState:
    """The variables of a training by name.

    Args:
        model: its weights, moving statistics and random states.
        optimizer: its own.
        train_step: averages and loss scale.
        strategy: that they were made under.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        train_step: TrainStep,
        strategy: Any,
    ) -> None:
        self._strategy = strategy
        weights = {id(variable) for variable in model.weights}
        self._random_states = [v for v in model.variables if id(v) not in weights]
        # Keras numbers the names of generators and optimisers through the whole process.
        variables = {
            **{f"model/{weight.path}": weight for weight in model.weights},
            **{f"random/{i:03}": state for i, state in enumerate(self._random_states)},
            **{f"optimizer/{i:03}/{v.name}": v for i, v in enumerate(optimizer.variables)},
        }
        self._variables = {name: variable.value for name, variable in variables.items()}
        self._variables |= {f"step/{name}": value for name, value in train_step.state.items()}

    def tensors(self) -> dict[str, NDArray[Any]]:
        """A copy of them all."""
        return {name: value.numpy() for name, value in self._variables.items()}

    def assign(self, found: Checkpoint) -> None:
        """Set them to those of a checkpoint.

        Raises:
            InputError: it has others, or of another shape.
        """
        missing = self._variables.keys() ^ found.tensors.keys()
        if missing:
            raise InputError(
                f"{found.path}: does not fit this model: {min(missing)} is in one only"
            )
        for name, variable in self._variables.items():
            if variable.shape != found.tensors[name].shape:
                raise InputError(
                    f"{found.path}: does not fit this model: {name} has shape "
                    f"{found.tensors[name].shape} there, {tuple(variable.shape)} here"
                )
            variable.assign(found.tensors[name])

    def spread_random_states(self) -> None:
        """Give each replica random numbers of its own; the first one's are in the checkpoint."""
        if self._strategy.num_replicas_in_sync == 1:
            return

        def spread() -> None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            for state in self._random_states:
                seed = tf.constant([_SEED_STEP, 0], state.value.dtype)
                state.assign(state + seed * tf.cast(replica, seed.dtype))

        self._strategy.run(spread)
