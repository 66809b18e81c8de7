"""Layers on two replicas beside one device: a process of its own, which has two logical devices.

Prints {case: {quantity: largest difference}} as JSON. The replicas have different numbers of videos
and of frames, so a mean over the replicas' means would be wrong.
"""

import json

import numpy as np
import tensorflow as tf

from trainer.layers import BatchNormalization, DBoF, NetVLAD, NeXtVLAD

VIDEOS = ((0, 3), (3, 5))
LENGTHS = (5, 4, 1, 2, 0)
T, D = 5, 6
VLAD = {"cluster_size": 4, "batch_norm_momentum": 0.5}

CASES = {
    "batch norm, mask": (BatchNormalization, {"momentum": 0.5}, True),
    "batch norm, no mask": (BatchNormalization, {"momentum": 0.5}, False),
    **{
        f"nextvlad {form}, {rows}": (
            NeXtVLAD,
            VLAD | {"groups": 2, "form": form, "batch_norm_rows": rows},
            True,
        )
        for form in ("direct", "folded", "fast")
        for rows in ("valid", "all")
    },
    "netvlad": (NetVLAD, VLAD, True),
    "dbof": (DBoF, VLAD | {"pooling": "average"}, True),
}


def build(kind, arguments):
    layer = kind(**arguments, dtype="float64")
    layer.build((None, T, D))
    values = np.random.default_rng(11)
    for weight in layer.trainable_weights:
        weight.assign(values.standard_normal(weight.shape) * 0.7)
    return layer


def step(layer, x, mask, direction):
    """Output, gradient of the inputs, gradients of the weights; the loss is a sum over videos."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = layer(x, mask=mask, training=True)
        loss = tf.reduce_sum(output * direction)
    gradients = tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_weights)])
    return output, gradients[0], gradients[1:]


def compare(strategy, kind, arguments, masked):
    alone = build(kind, arguments)
    values = np.random.default_rng(5)
    shape = (len(LENGTHS), T, D)
    batch = [
        values.standard_normal(shape) + 1,
        np.arange(T) < np.array(LENGTHS)[:, None] if masked else None,
        values.standard_normal(alone.compute_output_shape(shape)),
    ]
    output, inputs, weights = step(alone, *map_arrays(tf.constant, batch))
    with strategy.scope():
        layer = build(kind, arguments)

    def of_replica(array):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(array[slice(*VIDEOS[context.replica_id_in_sync_group])])
        )

    @tf.function
    def on_both(*batch):
        found = strategy.run(step, (layer, *batch))
        return tf.nest.map_structure(strategy.experimental_local_results, found)

    outputs, of_inputs, of_weights = on_both(*map_arrays(of_replica, batch))
    differences = {
        "outputs": np.concatenate(outputs) - output,
        "gradient of the inputs": np.concatenate(of_inputs) - inputs,
    }
    for weight, parts, whole in zip(alone.trainable_weights, of_weights, weights, strict=True):
        differences[f"gradient of {weight.path}"] = np.sum(parts, axis=0) - whole
    for weight, both in zip(alone.non_trainable_weights, layer.non_trainable_weights, strict=True):
        assert np.abs(weight.numpy() - np.round(weight.numpy())).max() > 0.001, "it has not moved"
        for replica in strategy.experimental_local_results(both.value):
            differences[f"{weight.path} {replica.device[-1]}"] = replica.numpy() - weight.numpy()
    return {name: float(np.abs(value).max()) for name, value in differences.items()}


def map_arrays(function, batch):
    return [None if array is None else function(array) for array in batch]


if __name__ == "__main__":
    device = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
    both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    print(json.dumps({name: compare(both, *case) for name, case in CASES.items()}))
