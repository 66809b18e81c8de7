"""The training step under JAX, for a GPU: videos a second and the share of the matmul peak.

    KERAS_BACKEND=jax python -m benchmarks.jax_train_step
    KERAS_BACKEND=jax python -m benchmarks.jax_train_step --forms fast --batches 1024 --profile DIR

The layers, loss and optimiser of the trainer on synthetic codes, one compiled step, bfloat16. Needs
Keras, JAX and NumPy, and no TensorFlow; its figures are the layers' under JAX and say nothing of
the TensorFlow trainer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from trainer import record_format
from trainer.config import ModelConfig, TrainingConfig
from trainer.layers.nextvlad_forms import FORMS, Shape, multiply_adds
from trainer.losses import make_loss, training_loss
from trainer.models import build_model


def matmul_peak(size: int, dtype: Any = jnp.bfloat16) -> float:
    """FLOP/s of products of two square matrices."""
    left = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda a, b: a @ b)
    product(left, left).block_until_ready()
    rates = []
    for _ in range(5):
        start = time.perf_counter()
        result = left
        for _ in range(10):
            result = product(result, left)
        result.block_until_ready()
        rates.append(10 * 2 * size**3 / (time.perf_counter() - start))
    return float(np.median(rates))


def step_flops(batch: int, frames: int, clusters: int, hidden: int, classes: int, form: Any) -> int:
    """FLOP of a training step's products: twice the multiply-adds."""
    video = multiply_adds(Shape(batch, frames, 1024, 8, clusters, 2, True), form)
    audio = multiply_adds(Shape(batch, frames, 128, 4, clusters // 2, 2, True), form)
    aggregated = 256 * clusters + 64 * (clusters // 2)
    dense = 3 * batch * (aggregated * hidden + hidden * hidden // 4 + hidden * classes)
    return 2 * (video + audio + dense)


class Step:
    """One compiled training step and its state.

    Args:
        config: of the model.
        classes: C.
        batch, frames: B, T of the synthetic batch.
    """

    def __init__(self, config: ModelConfig, classes: int, batch: int, frames: int) -> None:
        self.model = build_model(config, classes, record_format.FRAME, frames)
        self.optimizer = keras.optimizers.Adam(2e-4, global_clipnorm=1.0)
        self.optimizer.build(self.model.trainable_variables)
        self.state = [
            [variable.value for variable in variables]
            for variables in (
                self.model.trainable_variables,
                self.model.non_trainable_variables,
                self.optimizer.variables,
            )
        ]
        rng = np.random.default_rng(0)
        sizes = {"rgb": record_format.RGB_SIZE, "audio": record_format.AUDIO_SIZE}
        self.features = {
            name: jnp.asarray(rng.integers(0, 256, (batch, frames, size), dtype=np.uint8))
            for name, size in sizes.items()
        } | {"num_frames": jnp.full((batch,), frames, jnp.int32)}
        self.labels = jnp.asarray((rng.random((batch, classes)) < 3 / classes).astype(np.float32))
        class_loss = make_loss(TrainingConfig())

        def loss_of(trainable: Any, moving: Any, features: Any, labels: Any) -> Any:
            outputs, moving, losses = self.model.stateless_call(
                trainable, moving, features, training=True, return_losses=True
            )
            loss = training_loss(class_loss, labels, outputs)
            return loss + sum(losses), (loss, moving)

        def step(state: Any, features: Any, labels: Any) -> Any:
            trainable, moving, slots = state
            gradient = jax.grad(loss_of, has_aux=True)
            gradients, (loss, moving) = gradient(trainable, moving, features, labels)
            trainable, slots = self.optimizer.stateless_apply(slots, gradients, trainable)
            return [trainable, moving, slots], loss

        self.step = jax.jit(step, donate_argnums=0)

    def run(self) -> float:
        self.state, loss = self.step(self.state, self.features, self.labels)
        return float(loss)

    def seconds(self, rounds: int) -> list[float]:
        """Of `rounds` groups of five steps, after the first ones: one step's share of each."""
        losses = [self.run() for _ in range(3)]
        assert np.isfinite(losses).all()
        found = []
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(5):
                self.state, loss = self.step(self.state, self.features, self.labels)
            float(loss)
            found.append((time.perf_counter() - start) / 5)
        return found


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """What one process of its own finds: the peak (no form), or the seconds of one case."""
    if not arguments.form:
        return {
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
            "peak": matmul_peak(arguments.peak_size),
        }
    config = ModelConfig(
        cluster_size=arguments.clusters, hidden_size=arguments.hidden, form=arguments.form
    )
    try:
        step = Step(config, arguments.classes, arguments.batches[0], arguments.frames)
        seconds = step.seconds(arguments.rounds)
    except jax.errors.JaxRuntimeError as error:
        return {"error": str(error).splitlines()[0][:70]}
    if arguments.profile:
        with jax.profiler.trace(arguments.profile):
            for _ in range(3):
                step.run()
    return {"seconds": seconds}


def alone(form: str, batch: int) -> dict[str, Any]:
    """The same command for one case, in a process of its own.

    After another case in the same process a step took up to 1.7 times as long on a GPU.
    """
    command = [sys.executable, "-m", "benchmarks.jax_train_step", *sys.argv[1:]]
    ran = subprocess.run(
        [*command, "--one", "--form", form, "--batches", str(batch)],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--clusters", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=record_format.NUM_CLASSES)
    parser.add_argument("--forms", nargs="+", default=FORMS)
    parser.add_argument("--policy", default="mixed_bfloat16")
    parser.add_argument("--peak-size", type=int, default=8192, help="of the square matrices")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", default="", help="folder for traces of three steps")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--form", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if keras.config.backend() != "jax":
        parser.error("set KERAS_BACKEND=jax")
    keras.config.set_dtype_policy(arguments.policy)
    if arguments.one:
        print(json.dumps(measured(arguments)))
        return
    found = alone("", 1)
    peak = found["peak"]
    print(f"{found['device']}; JAX {found['jax']}, Keras {keras.__version__}")
    print(f"matmul peak, bfloat16, {arguments.peak_size}²: {peak / 1e12:.1f} TFLOP/s")
    print(f"T={arguments.frames} K={arguments.clusters} H={arguments.hidden} {arguments.policy}")
    print("form      batch     videos/s   spread    MFU", flush=True)
    for batch in arguments.batches:
        for form in arguments.forms:
            found = alone(form, batch)
            if "error" in found:
                print(f"{form:8} {batch:6}   {found['error']}", flush=True)
                continue
            seconds = found["seconds"]
            middle = float(np.median(seconds))
            spread = (max(seconds) - min(seconds)) / 2 / middle
            flops = step_flops(
                batch, arguments.frames, arguments.clusters, arguments.hidden, arguments.classes,
                form,
            )  # fmt: skip
            print(
                f"{form:8} {batch:6} {batch / middle:12,.1f} {spread:8.1%} "
                f"{flops / middle / peak:6.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
