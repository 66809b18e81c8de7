import keras
import numpy as np
import pytest

from trainer.config import Config
from trainer.optimizer import learning_rate_schedule, make_optimizer


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.1, 0.1, 0.1]),
        ("staircase", [0.1, 0.1 * 0.5, 0.1 * 0.25]),  # every 40 videos: at steps 5 and 10
        ("cosine", [0.0, 0.1 * (1 + np.cos(np.pi * 3 / 8)) / 2, 0.0]),  # 2 of 10 steps warm up
    ],
)
def test_learning_rate_schedules_by_hand(schedule, expected):
    config = Config().updated(
        {
            "training": {
                "schedule": schedule, "learning_rate": 0.1, "decay": 0.5, "decay_examples": 40,
                "batch_size": 8, "warmup": 0.2,
            }
        }
    )  # fmt: skip
    rate = learning_rate_schedule(config.training, 10)
    found = [float(rate(step)) if callable(rate) else rate for step in (0, 5, 10)]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_weight_decay_spares_what_is_no_matrix():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    config = Config().updated({"training": {"weight_decay": 0.5, "learning_rate": 0.1}})
    optimizer = make_optimizer(config.training, model, 10)
    kernel, bias = model.trainable_variables
    kernel.assign([[1.0, 1.0], [1.0, 1.0]])
    bias.assign([1.0, 1.0])
    optimizer.apply([keras.ops.zeros_like(kernel), keras.ops.zeros_like(bias)])
    np.testing.assert_allclose(kernel.numpy(), 1 - 0.5 * 0.1)
    np.testing.assert_allclose(bias.numpy(), 1)
