"""A batch on two replicas: a process of its own, which has two logical devices.

Prints {"plain" or "mixed": what each replica has of features, labels and weights} as JSON.
"""

import dataclasses
import json

import numpy as np
import tensorflow as tf

from trainer.batches import Batch
from trainer.config import TrainingConfig
from trainer.distribution import Distribution
from trainer.feed import Feed

ROWS, PLACE = 6, (2, 5)
TRAININGS = {"plain": TrainingConfig(), "mixed": TrainingConfig(mixup=0.4)}


def batch():
    """Whole numbers, other ones in each array; half of a row's pairs count."""
    values = np.arange(ROWS * 4, dtype=np.float32).reshape(ROWS, 4)
    features = {"mean_rgb": values, "mean_audio": 100 + values[:, :2]}
    labels = np.eye(ROWS, dtype=np.float32)
    places = np.zeros((ROWS, 2), np.int64)
    return Batch(features, labels, 1 - labels, [""] * ROWS, places)


def lists_of(arguments):
    """A list of rows of each feature, the labels and the weights, by name."""
    features, labels, weights = arguments
    arrays = {**features, "labels": labels, "weights": weights}
    return {name: np.asarray(array).tolist() for name, array in arrays.items()}


def on_each(strategy, training):
    feed = Feed(training, Distribution(strategy, None))
    given = batch()
    arguments = feed.arguments(given, *PLACE)
    without = feed.arguments(dataclasses.replace(given, weights=None), *PLACE)
    assert without[2] is None, "a batch without weights has some on the replicas"
    return [
        lists_of(
            tf.nest.map_structure(
                lambda value, n=number: strategy.experimental_local_results(value)[n], arguments
            )
        )
        for number in range(strategy.num_replicas_in_sync)
    ]


if __name__ == "__main__":
    device = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
    both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    print(json.dumps({name: on_each(both, training) for name, training in TRAININGS.items()}))
