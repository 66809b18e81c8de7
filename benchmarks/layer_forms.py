"""What the forms of the NeXtVLAD layer cost, alone: the measurements that form="auto" goes by.

    python -m benchmarks.layer_forms            # measures, and compares with what auto takes
    python -m benchmarks.layer_forms --record   # writes trainer/layers/nextvlad_measurements.csv

Measures the layer of rgb and the layer of audio, in training (forward, backward, no update) and in
inference. On 2 cores it takes about five minutes, on a quiet machine.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from benchmarks.timing import POLICIES, machine, time_in_turn
from trainer.files import atomic_file
from trainer.layers import NeXtVLAD
from trainer.layers.nextvlad_forms import FORMS, MEASUREMENTS, Form, Shape, device, fastest


def shapes(batch: int, frames: tuple[int, ...]) -> Iterator[Shape]:
    """Those of the full network with 64 and 128 clusters, and a smaller one's."""
    for training in (True, False):
        for count in frames:
            for clusters in (64, 128):
                yield Shape(batch, count, 1024, 8, clusters, 2, training)
                yield Shape(batch, count, 128, 4, clusters // 2, 2, training)
            yield Shape(batch, count, 1024, 8, 16, 1, training)


def runner(shape: Shape, form: Form, policy: str) -> Callable[[], Any]:
    """A compiled call of a new layer on random frames."""
    keras.utils.set_random_seed(0)
    layer = NeXtVLAD(shape.clusters, shape.groups, shape.expansion, form=form, dtype=policy)
    frames = tf.random.normal((shape.batch, shape.frames, shape.dimensions))
    frames = tf.cast(frames, layer.compute_dtype)
    mask = tf.ones((shape.batch, shape.frames), tf.bool)
    layer.build(frames.shape)
    direction = tf.random.normal(layer.compute_output_shape(frames.shape))

    @tf.function
    def train(frames: Any) -> Any:
        with tf.GradientTape() as tape:
            output = tf.cast(layer(frames, mask=mask, training=True), tf.float32)
            total = tf.reduce_sum(output * direction)
        gradients = tape.gradient(total, layer.trainable_weights)
        return tf.add_n([tf.reduce_sum(gradient[..., :1]) for gradient in gradients])

    @tf.function
    def infer(frames: Any) -> Any:
        return tf.reduce_sum(tf.cast(layer(frames, mask=mask), tf.float32))

    run = train if shape.training else infer
    return lambda: float(run(frames))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write the measurements")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--frames", type=int, nargs="+", default=[5, 20, 60, 120, 300])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    started = machine()
    print(started)
    print(f"{'':44}" + "".join(f"{form:>12}" for form in FORMS) + "   auto     behind   spread")
    rows: list[dict[str, Any]] = []
    for precision, policy in POLICIES.items():
        for shape in shapes(arguments.batch, tuple(arguments.frames)):
            timed = time_in_turn(
                {form: runner(shape, form, policy) for form in FORMS}, arguments.rounds
            )
            chosen = fastest(shape, device(), precision)
            best = min(one.median for one in timed.values())
            label = (
                f"{precision} {'train' if shape.training else 'infer'} T={shape.frames} "
                f"D={shape.dimensions} G={shape.groups} K={shape.clusters} λ={shape.expansion}"
            )
            print(
                f"{label:44}"
                + "".join(f"{timed[form].median * 1e3:9.1f} ms" for form in FORMS)
                + f"   {chosen:8} {timed[chosen].median / best - 1:6.1%}"
                + f" {max(one.spread for one in timed.values()):8.1%}",
                flush=True,
            )
            facts = dataclasses.asdict(shape) | {"training": int(shape.training)}
            rows += [
                {"device": device(), "precision": precision, **facts, "form": form,
                 "milliseconds": f"{timed[form].median * 1e3:.2f}"}
                for form in FORMS
            ]  # fmt: skip
            keras.backend.clear_session()
    if arguments.record:
        with atomic_file(MEASUREMENTS) as partial, partial.open("w", newline="") as file:
            file.write(f"# python -m benchmarks.layer_forms --record; {started}\n")
            file.write(f"# TensorFlow {tf.__version__}\n")
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(f"wrote {MEASUREMENTS}")


if __name__ == "__main__":
    main()
