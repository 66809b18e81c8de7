"""One model's training: steps, validation, and checkpoints that another process goes on from.

A training is a function of configuration, data and code: what a step does depends on its place
alone, and all that it depends on is in a checkpoint. So a training that is killed anywhere and
started again ends with the same bytes as one that was not.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.batches import Batch
from trainer.checkpoints import Checkpoints
from trainer.config import Config
from trainer.distribution import Distribution
from trainer.errors import InputError
from trainer.feed import Feed
from trainer.input_pipeline import TrainingInput
from trainer.losses import make_loss
from trainer.optimizer import make_optimizer
from trainer.progress import Progress, say
from trainer.termination import EXIT_CODE, Termination
from trainer.train_step import GRADIENT_NORM, LOSS, SAVE, STOP, TrainStep
from trainer.training_log import TrainingLog
from trainer.training_state import Position, TrainingState
from trainer.validation import Validator

_SCALARS_AN_EPOCH = 100


@dataclasses.dataclass(frozen=True)
class Trained:
    """What one training did; its speed counts input and all, but no validation."""

    parameters: int
    examples_per_second: float
    input_wait: float
    history: list[dict[str, Any]]
    timings: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class _Unsettled:
    """A step whose result was not looked at yet."""

    epoch: int
    step: int
    result: Any


class TrainingLoop:
    """Trains a model for `training.epochs` epochs, or until it no longer gets better.

    Args:
        config: `data` and `training` are used.
        model: new, made in the strategy's scope; its weights are trained in place.
        batches: to train on; this worker's share.
        validator: scores the weights on the held-out shards.
        folder: of the checkpoints; where it has some, the training goes on at the newest.
        facts: what a checkpoint depends on.
        distribution: over devices and workers.
    """

    def __init__(
        self,
        config: Config,
        model: keras.Model,
        batches: TrainingInput,
        validator: Validator,
        folder: Path,
        facts: dict[str, Any],
        distribution: Distribution,
    ) -> None:
        self.config, self.model, self.input = config, model, batches
        self.validator, self.folder, self.distribution = validator, folder, distribution
        training = config.training
        self.feed = Feed(training, distribution)
        self.epoch_steps = batches.epoch_steps
        self.position = Position()
        with distribution.strategy.scope():
            optimizer = make_optimizer(training, model, self.epoch_steps * training.epochs)
        self.optimizer = optimizer
        strategy = distribution.strategy if distribution.replicas > 1 else None
        self.train_step = TrainStep(model, optimizer, make_loss(training), training, strategy)
        self.checkpoints = Checkpoints(folder, facts, training.keep_checkpoints)
        self._state = TrainingState(model, optimizer, self.train_step, distribution.strategy)
        every = [round(self.epoch_steps * (i + 1) / training.validations) for i in
                 range(training.validations)]  # fmt: skip
        self._validated_after = sorted({max(1, step) for step in every})
        self._unsettled: collections.deque[_Unsettled] = collections.deque()
        self._saved, self._saved_step = time.monotonic(), -1

    @property
    def steps_done(self) -> int:
        """Updates of the weights so far."""
        return self.position.epoch * self.epoch_steps + self.position.step

    def run(self, termination: Termination | None = None) -> Trained:
        """Train to the end; the validator's twin has the weights to deliver then.

        Args:
            termination: looked at between two steps.

        Raises:
            InputError: a bad record, a loss that is no number, checkpoints that can not be read or
                written.
            SystemExit: SIGTERM came; a checkpoint was saved.
        """
        training, termination = self.config.training, termination or Termination()
        self._restore()
        if self.distribution.is_chief:
            self.checkpoints.claim()
        self._log = TrainingLog(self.folder, training.profile_steps, self.distribution.is_chief)
        total = training.epochs * self.epoch_steps * training.batch_size
        self._progress = Progress(
            "train", total, "videos", done=self.steps_done * training.batch_size
        )
        try:
            while not self.position.ended:
                if self._is_due():
                    self._validate(termination)
                else:
                    self._train_until_validation(termination)
        finally:
            self.checkpoints.join()
            self._log.close()
        self._load_delivered()
        self.checkpoints.wait()
        position = self.position
        examples = self.steps_done * training.batch_size
        return Trained(
            self.model.count_params(),
            examples / max(position.seconds, 1e-9),
            position.waited / max(position.seconds, 1e-9),
            position.history,
            position.timings,
        )

    # --- steps ---

    def _train_until_validation(self, termination: Termination) -> None:
        position = self.position
        end = next(step for step in self._validated_after if step > position.step)
        stamp = time.monotonic()
        batches = self.input.batches(position.epoch, range(position.step, end))
        try:
            while position.step < end:
                batch = next(batches)
                arguments = self.feed.arguments(batch, position.epoch, position.step)
                waited = time.monotonic() - stamp
                signals = self._signals(termination)
                self._log.at_step(self.steps_done + 1)
                result = self.train_step(*arguments, tf.constant(signals, tf.float32))
                self._unsettled.append(_Unsettled(position.epoch, position.step, result))
                position.step += 1
                # One step behind, so that a GPU has its next step before it is done with this one.
                told = self._settle(leave=1)
                now = time.monotonic()
                position.seconds += now - stamp
                position.waited += waited
                stamp = now
                if self._heed(told):
                    stamp = time.monotonic()
            self._heed(self._settle())
        finally:
            batches.close()

    def _heed(self, told: NDArray[np.float32] | None) -> bool:
        """Save if a worker wants it, end if one was told to; whether anything was to do."""
        if told is None or not (told[SAVE] or told[STOP]):
            return False
        self._settle()
        self._save()
        if told[STOP]:
            self._stop()
        return True

    def _signals(self, termination: Termination) -> list[float]:
        """What this worker wants: save, stop. All workers learn of it in the same step."""
        due = time.monotonic() - self._saved > 60 * self.config.training.checkpoint_minutes
        return [float(due and self.distribution.is_chief), float(termination.wanted)]

    def _settle(self, leave: int = 0) -> NDArray[np.float32] | None:
        """Look at the results of all steps but the last `leave`; the last one that was looked at.

        Raises:
            InputError: a loss or a gradient that is no number.
        """
        result = None
        while len(self._unsettled) > leave:
            done = self._unsettled.popleft()
            result = done.result.numpy()
            loss, norm = float(result[LOSS]), float(result[GRADIENT_NORM])
            # In float16 a gradient that overflows is left out, and the loss scale halved.
            if not (np.isfinite(loss) and (np.isfinite(norm) or self._scales_loss)):
                raise self._diverged(done, loss, norm)
            self.position.loss_sum += loss
            self.position.loss_steps += 1
            self._report(done, loss, norm)
        return result

    @property
    def _scales_loss(self) -> bool:
        return self.config.training.precision == "float16"

    def _report(self, done: _Unsettled, loss: float, norm: float) -> None:
        training, position = self.config.training, self.position
        step = done.epoch * self.epoch_steps + done.step + 1
        waited = position.waited / max(position.seconds, 1e-9)
        gap = position.history[-1]["holdout_gap"] if position.history else None
        words = [
            f"{self.model.name} epoch {done.epoch + 1}/{training.epochs}",
            f"loss {loss:.3f}",
            "" if gap is None else f"GAP {gap:.4f}",
            f"input {waited:.0%}",
        ]
        self._progress.advance(training.batch_size, "  ".join(filter(None, words)))
        if step % max(1, self.epoch_steps // _SCALARS_AN_EPOCH) == 0:
            self._log.scalars(
                step,
                loss=loss,
                gradient_norm=norm,
                learning_rate=self._learning_rate(),
                input_wait=waited,
                loss_scale=float(self.train_step.loss_scale.numpy()) if self._scales_loss else None,
            )

    def _diverged(self, done: _Unsettled, loss: float, norm: float) -> InputError:
        self.checkpoints.join()
        good = self.checkpoints.path_of_newest()
        shards = ", ".join(self.input.shards_of(done.epoch, done.step))
        return InputError(
            f"training.learning_rate is {self.config.training.learning_rate}: the loss of epoch "
            f"{done.epoch + 1}, step {done.step + 1} is {loss}, the norm of its gradient {norm}; "
            f"expected a smaller rate, or better data in that batch, which was read from {shards}. "
            f"The last good checkpoint is {good or 'none'}"
        )

    def _learning_rate(self) -> float:
        return float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))

    # --- validation ---

    def _is_due(self) -> bool:
        rows = self.position.history
        return self.position.step in self._validated_after and (
            not rows or rows[-1]["step"] != self.steps_done
        )

    def _validate(self, termination: Termination) -> None:
        """Score the held-out shards, write down what was learned, go on to the next epoch."""
        position, training = self.position, self.config.training
        if self.validator.shards and self._saved_step != self.steps_done:
            self._save()  # a validation can take longer than the machine lives
        self._take_weights()
        started = time.monotonic()
        try:
            # One worker can not leave the others alone with the sum over all.
            alone = self.distribution.workers == 1
            gap = self.validator.gap(lambda: alone and termination.wanted)
        except InterruptedError:  # the checkpoint of before the validation is the same place
            self._stop()
        loss = position.loss_sum / max(1, position.loss_steps)
        step = self.steps_done
        position.history.append(
            {
                "epoch": position.epoch + 1,
                "step": step,
                "examples": step * training.batch_size,
                "learning_rate": self._learning_rate(),
                "loss": loss,
                "holdout_gap": gap,
            }
        )
        position.timings.append(
            {
                "step": step,
                "training_seconds": round(position.seconds, 3),
                "input_wait_seconds": round(position.waited, 3),
                "validation_seconds": round(time.monotonic() - started, 3),
            }
        )
        self._log.validated(step, loss, gap)
        self._log.histograms(step, self.validator.twin, self._example_batch())
        held = "" if gap is None else f", GAP on held-out shards {gap:.4f}"
        name = self.model.name
        say("train", f"{name} epoch {position.epoch + 1}: mean loss {loss:.3f}{held}")
        position.loss_sum, position.loss_steps = 0.0, 0
        if gap is not None and (position.best_gap is None or gap > position.best_gap):
            position.best_gap, position.best_step = gap, step
        if position.step == self.epoch_steps:
            position.epoch, position.step = position.epoch + 1, 0
        position.ended = position.epoch == training.epochs or self._no_longer_better()
        self._save()
        wanted = self.distribution.gather(np.array([termination.wanted]))
        if wanted.any() and not position.ended:
            self._stop()

    def _example_batch(self) -> Batch | None:
        """Held-out records, to look at what the layers do."""
        batches = self.validator.batches()
        batch = next(batches, None)
        batches.close()
        return batch

    def _no_longer_better(self) -> bool:
        patience, rows = self.config.training.early_stopping, self.position.history
        if not patience or self.position.best_gap is None:
            return False
        since = sum(row["step"] > self.position.best_step for row in rows)
        if since < patience:
            return False
        say(
            "train",
            f"{self.model.name}: no better GAP than {self.position.best_gap:.4f} in {since} "
            f"validations (training.early_stopping), ends after {self.steps_done:,} steps",
        )
        return True

    def _take_weights(self) -> None:
        self.validator.set_weights(self.model, self.train_step.averages)

    def _load_delivered(self) -> None:
        """Give the validator's twin the weights that are delivered."""
        position = self.position
        wanted = self.config.training.deliver == "best" and position.best_step != self.steps_done
        # The first worker delivers; others need not see what it has written by now.
        if wanted and self.distribution.is_chief:
            best = self.checkpoints.best()
            if best is None:
                say("train", "warning: there is no best checkpoint, the last weights are delivered")
            else:
                self._state.assign(best)
        self._take_weights()

    # --- checkpoints ---

    def _save(self) -> None:
        """Write a checkpoint of the weights as they are now; all workers come here at one step.

        Raises:
            InputError: one of them is no number: the update after a sound gradient was too large.
        """
        self._saved, self._saved_step = time.monotonic(), self.steps_done
        if self.distribution.is_chief:
            tensors = self._state.tensors()
            for name, value in tensors.items():
                if value.dtype.kind == "f" and not np.isfinite(value).all():
                    good = self.checkpoints.path_of_newest()
                    raise InputError(
                        f"training.learning_rate is {self.config.training.learning_rate}: after "
                        f"{self.steps_done:,} steps {name} holds values that are no numbers, "
                        f"expected a smaller rate. The last good checkpoint is {good or 'none'}"
                    )
            position = dataclasses.asdict(self.position)
            best = self.position.best_step == self.steps_done
            self.checkpoints.save(self.steps_done, tensors, position, best)

    def _stop(self) -> None:
        """End because of SIGTERM, when the checkpoint is on disk."""
        self.checkpoints.wait()
        say(
            "train",
            f"SIGTERM: saved after {self.steps_done:,} steps; started again, it goes on there",
        )
        raise SystemExit(EXIT_CODE)

    def _restore(self) -> None:
        found = self.checkpoints.newest(sweep=self.distribution.is_chief)
        steps = self.distribution.gather(np.array([found.step if found else -1]))
        if steps.min() != steps.max():
            raise InputError(
                f"{self.folder}: the workers found checkpoints of different steps there (by rank: "
                f"{', '.join(map(str, steps))}), expected one folder that all of them share"
            )
        if found:
            self._state.assign(found)
            self.position = Position(**found.position)
            self._saved_step = found.step
            place = f"goes on at epoch {self.position.epoch + 1}, step {self.position.step}"
            words = "was trained already" if self.position.ended else place
            say("train", f"{self.model.name}: {words}")
        self._state.spread_random_states()
