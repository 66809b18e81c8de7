"""One training step on any number of replicas: loss, gradients, all-reduce, clipping, update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainer.config import TrainingConfig
from trainer.errors import InputError
from trainer.losses import training_loss
from trainer.models import class_verticals

COMPILED_UPDATE = 10_000_000
"""Weights from which XLA compiles the update: one pass over them instead of fifteen takes a third
of the time, which in a small model the seconds of compiling would outweigh."""

LOSS, GRADIENT_NORM, SAVE, STOP = range(4)
"""What the entries of a step's result are."""

INITIAL_LOSS_SCALE = 2.0**15
LOSS_SCALE_STEPS = 2000
"""Finite steps after which the loss scale of float16 doubles (arXiv 1710.03740, section 3.2; the
two numbers are Keras's)."""


class TrainStep:
    """Trains a model on a batch; call it once a step, on every worker.

    The gradient is that of the mean loss of the whole batch, clipped by its global norm after it
    was summed over parts and replicas: so the same batch gives the same update on any number of
    replicas. Each replica has the same number of videos.

    Args:
        model: of `trainer.models`; its regularisers and the losses that its layers add count. With
            a strategy, made in its scope.
        optimizer: built for the model's trainable weights, without clipping of its own.
        class_loss: of labels, probabilities and weights [B,C], see `trainer.losses.make_loss`.
        training: clip_norm, accumulation_steps, ema_decay, precision and jit count.
        strategy: that the model and the optimiser were made under; None: no strategy.

    Attributes:
        averages: moving averages of the trainable weights, in their order; empty without ema_decay.

    Raises:
        InputError: `jit` on several replicas.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        class_loss: Callable[..., Any],
        training: TrainingConfig,
        strategy: Any = None,
    ) -> None:
        self.model, self.optimizer, self.class_loss = model, optimizer, class_loss
        self.training = training
        self.strategy = strategy or tf.distribute.get_strategy()
        self.replicas = self.strategy.num_replicas_in_sync
        self.verticals = class_verticals(model)
        if training.jit == "on" and self.replicas > 1:
            raise InputError(
                f"training.jit is 'on', expected 'auto' or 'off' on {self.replicas} replicas: XLA "
                "compiles no sums over them"
            )
        # The gradients that it gets are those of all replicas already.
        optimizer._all_reduce_sum_gradients = lambda pairs: pairs
        alone = self.strategy is tf.distribute.get_strategy()
        on_gpu = bool(tf.config.list_logical_devices("GPU"))
        compile_all = training.jit == "on" or (training.jit == "auto" and on_gpu and alone)
        compile_update = (
            training.jit == "auto"
            and not compile_all
            and alone
            and model.count_params() >= COMPILED_UPDATE
        )
        with self.strategy.scope():
            self.averages = [
                tf.Variable(weight.value, trainable=False, name=f"average_of_{weight.name}")
                for weight in (model.trainable_variables if training.ema_decay else ())
            ]
            self.loss_scale = tf.Variable(
                INITIAL_LOSS_SCALE if training.precision == "float16" else 1.0, trainable=False
            )
            self.finite_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._update = tf.function(self._apply, jit_compile=True) if compile_update else self._apply
        self._step = tf.function(self._run, jit_compile=compile_all)

    def __call__(self, features: Any, labels: Any, weights: Any, signals: Any) -> Any:
        """One step.

        Args:
            features, labels, weights: the model's inputs, float [B,C] and float [B,C] or None; on
                several local replicas distributed values of these.
            signals: float32 [n], what this worker has to tell the others.

        Returns:
            float32 [2 + n], the same on every worker: the mean loss on the labels, the global norm
            of the gradient before it was clipped, and the sums of the signals over all replicas.
        """
        return self._step(features, labels, weights, signals)

    @property
    def state(self) -> dict[str, Any]:
        """The variables of the step's own, by name."""
        averages = {f"average/{i:04}": value for i, value in enumerate(self.averages)}
        return averages | {"loss_scale": self.loss_scale, "finite_steps": self.finite_steps}

    def _run(self, features: Any, labels: Any, weights: Any, signals: Any) -> Any:
        # A strategy takes no None for a distributed value.
        arguments: tuple[Any, ...] = (features, labels, signals)
        run: Callable[..., Any] = self._replica_without_weights
        if weights is not None:
            arguments, run = (features, labels, weights, signals), self._replica
        if self.training.precision != "float16":
            return self._first(self.strategy.run(self._and_update(run), arguments))
        result, gradients = self.strategy.run(run, arguments)
        first = self._first(result)
        # In a cross-replica context: a replica must not update within a condition.
        finite = tf.math.is_finite(first[GRADIENT_NORM])
        tf.cond(
            finite,
            lambda: self.strategy.run(self._update, (gradients,)),
            lambda: self.strategy.run(lambda _: None, (gradients,)),
        )
        grows = finite & tf.equal(self.finite_steps, LOSS_SCALE_STEPS - 1)
        keeps = finite & ~grows
        self.finite_steps.assign(tf.where(keeps, self.finite_steps + 1, 0))
        factor = tf.where(finite, tf.where(grows, 2.0, 1.0), 0.5)
        self.loss_scale.assign(self.loss_scale * factor)
        return first

    def _first(self, result: Any) -> Any:
        return self.strategy.experimental_local_results(result)[0]

    def _and_update(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def replica(*arguments: Any) -> Any:
            result, gradients = run(*arguments)
            self._update(gradients)
            return result

        return replica

    def _replica_without_weights(self, features: Any, labels: Any, signals: Any) -> Any:
        return self._replica(features, labels, None, signals)

    def _replica(self, features: Any, labels: Any, weights: Any, signals: Any) -> tuple[Any, Any]:
        """What one replica does up to the gradients, which are then the same on all."""
        parts = self.training.accumulation_steps
        variables = self.model.trainable_variables
        total_loss: Any = 0.0
        gradients: list[Any] = []
        batch = {"features": features, "labels": labels, "weights": weights}
        batch = {name: value for name, value in batch.items() if value is not None}
        for part in range(parts):
            one = batch
            if parts > 1:
                # One part after the other, or nothing of their memory would be saved.
                with tf.control_dependencies(gradients):
                    one = tf.nest.map_structure(
                        lambda value, n=part: tf.identity(tf.split(value, parts)[n]), batch
                    )
            loss, new = self._gradients(one, variables)
            total_loss += loss / parts
            new = [gradient / parts for gradient in new] if parts > 1 else new
            gradients = [a + b for a, b in zip(gradients, new, strict=True)] if gradients else new
        told = tf.concat([[total_loss], signals], axis=0)
        if self.replicas > 1:
            context = tf.distribute.get_replica_context()
            *gradients, told = context.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, told])
            gradients = [gradient / self.replicas for gradient in gradients]
            told = tf.concat([told[:1] / self.replicas, told[1:]], axis=0)
        norm = tf.linalg.global_norm(gradients) / self.loss_scale
        factor = self.training.clip_norm / tf.maximum(norm, self.training.clip_norm)
        gradients = [gradient * (factor / self.loss_scale) for gradient in gradients]
        return tf.concat([told[:1], [norm], told[1:]], axis=0), gradients

    def _gradients(self, batch: dict[str, Any], variables: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            outputs = self.model(batch["features"], training=True)
            loss = training_loss(
                self.class_loss, batch["labels"], outputs, self.verticals, batch.get("weights")
            )
            total = tf.add_n([loss, *self.model.losses]) * self.loss_scale
        gradients = tape.gradient(
            total, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def _apply(self, gradients: Any) -> None:
        variables = self.model.trainable_variables
        self.optimizer.apply(gradients, variables)
        if self.averages:
            steps = tf.cast(self.optimizer.iterations, tf.float32)
            decay = tf.minimum(self.training.ema_decay, (1 + steps) / (10 + steps))
            for average, variable in zip(self.averages, variables, strict=True):
                average.assign(average - (1 - decay) * (average - variable))
