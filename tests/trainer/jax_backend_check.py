"""Runs every model under JAX beside what TensorFlow made of it: a process of its own.

The folder holds of each case the model in a .keras file and TensorFlow's outputs in an .npz file.
Prints {case: {what: found}} as JSON.
"""

import json
import sys
from pathlib import Path

import jax
import keras
import numpy as np

from tests.trainer.cases import Case, batch_of
from trainer.config import TrainingConfig
from trainer.losses import make_loss, training_loss
from trainer.models import class_verticals, load_model, probabilities
from trainer.optimizer import make_optimizer

TRAINING = TrainingConfig(learning_rate=1e-3)


def check(case, model, expected):
    """Differences from TensorFlow's outputs, and what one training step does."""
    inputs, labels = batch_of(case.level)
    weights = [weight.value for weight in model.trainable_variables]
    others = [variable.value for variable in model.non_trainable_variables]
    verticals = class_verticals(model)
    verticals = None if verticals is None else verticals.value
    class_loss = make_loss(TRAINING)
    optimizer = make_optimizer(TRAINING, model, 1)
    state = [variable.value for variable in optimizer.variables]

    @jax.jit
    def predict(weights, others):
        return probabilities(model.stateless_call(weights, others, inputs, training=False)[0])

    def total(weights, others):
        outputs, others, losses = model.stateless_call(
            weights, others, inputs, training=True, return_losses=True
        )
        loss = training_loss(class_loss, labels, outputs, verticals)
        return loss + sum(losses), (probabilities(outputs), others)

    @jax.jit
    def train_step(weights, others, state):
        (loss, (outputs, others)), gradients = jax.value_and_grad(total, has_aux=True)(
            weights, others
        )
        weights, state = optimizer.stateless_apply(state, gradients, weights)
        return loss, outputs, weights, others

    loss, outputs, moved, others_after = train_step(weights, others, state)
    unmoved = [
        variable.path
        for variable, before, after in zip(model.trainable_variables, weights, moved, strict=True)
        if not float(abs(after - before).max()) > 0
    ]
    inference = predict(weights, others)
    values = [loss, inference, outputs, *moved, *others_after]
    return {
        "inference": float(abs(np.asarray(inference) - expected["inference"]).max()),
        "training": float(abs(np.asarray(outputs) - expected["training"]).max()),
        "loss": abs(float(loss) / float(expected["loss"]) - 1),
        "finite": bool(all(np.isfinite(np.asarray(value)).all() for value in values)),
        "unmoved": unmoved,
        "float32": bool(all(value.dtype == "float32" for value in [*moved, inference, outputs])),
    }


def main(folder):
    assert keras.config.backend() == "jax"
    found = {}
    for one in json.loads((folder / "cases.json").read_text()):
        case = Case(one["level"], tuple(map(tuple, one["changes"])))
        keras.config.set_dtype_policy(one["policy"])
        model = case.build()
        model.set_weights(load_model(folder / f"{one['of']}.keras").get_weights())
        with np.load(folder / f"{one['of']}.npz") as expected:
            found[f"{case} {one['policy']}"] = check(case, model, expected)
    assert "tensorflow" not in sys.modules
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
