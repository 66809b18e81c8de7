"""The models under Keras's JAX backend, from weights and beside outputs of TensorFlow's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from tests.trainer.cases import LEVELS, Case, batch_of, every_case
from trainer import record_format
from trainer.config import TrainingConfig
from trainer.losses import make_loss, training_loss
from trainer.models import class_verticals, probabilities

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {
    "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
    # Compiling takes longer than running: less of it.
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
}  # fmt: skip
FORMS = ("direct", "folded", "fast")
IDLE = ("score_bias", "input_norm/beta")
"""The softmax cancels the one, dbof's second batch norm the other."""


def cases():
    """Every name on every level, nextvlad in each form, and one with each other classifier."""
    logistic = [
        case
        for case in every_case()[0]
        if ("classifier", "logistic") in case.changes and ("name", "nextvlad") not in case.changes
    ]
    forms = [Case(record_format.FRAME, (("name", "nextvlad"), ("form", one))) for one in FORMS]
    heads = [
        Case(record_format.VIDEO, (("name", "mlp"), ("classifier", one)))
        for one in ("moe", "vertical_attention")
    ]
    return [*logistic, *forms, *heads]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """{case: {what: found}} of the process that runs JAX."""
    folder = tmp_path_factory.mktemp("jax")
    described = []
    keras.utils.set_random_seed(5)
    for index, case in enumerate(cases()):
        model = case.build()
        values = np.random.default_rng(3)
        for weight in model.weights:
            if weight.name in ("gamma", "moving_variance"):
                weight.assign(values.uniform(0.5, 1.5, weight.shape))
            elif weight.name.endswith(("beta", "moving_mean", "bias")):
                weight.assign(values.standard_normal(weight.shape) * 0.2)
        model.save(folder / f"{index}.keras")
        inputs, labels = batch_of(case.level)
        inference = to_numpy(probabilities(model(inputs)))
        outputs = model(inputs, training=True)
        loss = training_loss(make_loss(TrainingConfig()), labels, outputs, class_verticals(model))
        np.savez(
            folder / f"{index}.npz", inference=inference,
            training=to_numpy(probabilities(outputs)), loss=float(loss) + float(sum(model.losses)),
        )  # fmt: skip
        one = {"level": case.level, "changes": case.changes, "of": index}
        described.append(one | {"policy": "float32"})
        if ("form", "fast") in case.changes:
            described.append(one | {"policy": "mixed_bfloat16"})
    (folder / "cases.json").write_text(json.dumps(described))
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("jax_backend_check.py"), folder],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_every_model_is_the_same_under_jax(case, found):
    of_case = found[f"{case} float32"]
    assert of_case["inference"] < 1e-5
    assert of_case["training"] < 1e-4
    assert of_case["loss"] < 1e-4


@pytest.mark.parametrize("case", cases(), ids=str)
def test_a_training_step_under_jax(case, found):
    assert_it_trained(found[f"{case} float32"])


def test_half_precision_under_jax(found):
    (of_case,) = (value for name, value in found.items() if name.endswith("mixed_bfloat16"))
    assert of_case["inference"] < 0.02
    assert_it_trained(of_case)


def assert_it_trained(of_case):
    assert of_case["finite"]
    assert of_case["float32"]
    assert all(path.endswith(IDLE) for path in of_case["unmoved"]), of_case["unmoved"]


def test_every_name_and_level_ran(found):
    models = {(dict(case.changes)["name"], case.level) for case in every_case()[0]}
    assert {(dict(case.changes)["name"], case.level) for case in cases()} == models
    assert {level for _, level in models} == set(LEVELS)
    assert len(found) == len(cases()) + 1


def test_the_models_need_no_tensorflow():
    """Not even where it is installed: neither an import nor building a model asks for it."""
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from tests.trainer.cases import Case\n"
        "Case('video', (('name', 'mlp'),)).build()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
