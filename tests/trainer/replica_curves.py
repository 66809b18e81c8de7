"""Loss curves of one training on one device and on two: a process of its own, with two devices.

Arguments: names of the cases. Prints {case: [losses of one device, losses of two replicas, largest
difference of a weight]} as JSON. The global batch is the same;
frames are not sampled and nothing is dropped.
"""

import dataclasses
import json
import sys

import keras
import numpy as np
import tensorflow as tf

from tests.trainer.cases import VERTICALS, B, C, Case, T, batch_of
from trainer import record_format
from trainer.config import TrainingConfig
from trainer.losses import make_loss
from trainer.models import build_model
from trainer.optimizer import make_optimizer
from trainer.train_step import LOSS, TrainStep

STEPS = 50
BATCHES = 5
BASE = TrainingConfig(learning_rate=0.001, clip_norm=0.5, batch_size=2 * B)
NEXTVLAD = Case(record_format.FRAME, (("name", "nextvlad"),))
CASES = {
    "adam": (NEXTVLAD, BASE),
    "sgd": (NEXTVLAD, dataclasses.replace(BASE, optimizer="sgd", learning_rate=0.5)),
    # Nothing divides a gradient that is summed where it should be averaged.
    "sgd, not clipped": (
        NEXTVLAD,
        dataclasses.replace(BASE, optimizer="sgd", learning_rate=0.02, clip_norm=1e9),
    ),
    "weight decay": (
        NEXTVLAD,
        dataclasses.replace(BASE, optimizer="adamw", weight_decay=0.1),
    ),
    "in parts, averaged": (
        NEXTVLAD,
        dataclasses.replace(BASE, accumulation_steps=2, ema_decay=0.9),
    ),
    "mixture": (Case(record_format.FRAME, (("name", "nextvlad_mixture"),)), BASE),
    "verticals": (
        Case(record_format.FRAME, (("name", "nextvlad"), ("classifier", "vertical_attention"))),
        BASE,
    ),
    # Neither Adam nor clipping, which would make up for gradients on a wrong scale.
    "float16": (
        NEXTVLAD,
        dataclasses.replace(
            BASE, optimizer="sgd", learning_rate=0.02, clip_norm=1e9, precision="float16"
        ),
    ),
}


def build(case, training, strategy):
    keras.utils.set_random_seed(3)
    if training.precision == "float16":
        keras.config.set_dtype_policy("mixed_float16")
    with strategy.scope():
        model = build_model(case.config(), C, case.level, verticals=VERTICALS)
        optimizer = make_optimizer(training, model, STEPS)
        step = TrainStep(model, optimizer, make_loss(training), training, strategy)
    keras.config.set_dtype_policy("float32")
    return model, step


def batches(training):
    for seed in range(BATCHES):
        first, second = (
            batch_of(record_format.FRAME, seed),
            batch_of(record_format.FRAME, seed + 50),
        )
        features = {name: np.concatenate([first[0][name], second[0][name]]) for name in first[0]}
        if training.precision == "float16":
            # A step whose gradient overflows is left out, and near the limit one curve leaves out
            # what the other does not. The large gradients are those of few frames or none.
            features["num_frames"][:] = T
        yield features, np.concatenate([first[1], second[1]])


def curve(case, training, strategy):
    model, step = build(case, training, strategy)
    replicas = strategy.num_replicas_in_sync
    # A replica's parts are of its own rows: the same rows shall be in the same part on one device.
    rows = np.arange(2 * B).reshape(replicas, training.accumulation_steps, -1)
    one = np.arange(2 * B).reshape(2, training.accumulation_steps, -1).transpose(1, 0, 2)
    rows = rows.ravel() if replicas == 2 else one.ravel()

    def distributed(array):
        parts = iter(np.split(array[rows], replicas))
        if replicas == 1:
            return tf.constant(next(parts))
        return strategy.experimental_distribute_values_from_function(
            lambda _: tf.constant(next(parts))
        )

    data = [
        ({name: distributed(value) for name, value in features.items()}, distributed(labels))
        for features, labels in batches(training)
    ]
    losses = [
        float(step(*data[number % BATCHES], None, tf.zeros(2))[LOSS]) for number in range(STEPS)
    ]
    values = [value.numpy() for value in (step.averages or model.trainable_variables)]
    return losses, values


if __name__ == "__main__":
    device = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
    both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    results = {}
    for name in sys.argv[1:]:
        case, training = CASES[name]
        (alone, weights), (mirrored, others) = (
            curve(case, training, strategy) for strategy in (tf.distribute.get_strategy(), both)
        )
        furthest = max(float(np.abs(a - b).max()) for a, b in zip(weights, others, strict=True))
        results[name] = [alone, mirrored, furthest]
    print(json.dumps(results))
