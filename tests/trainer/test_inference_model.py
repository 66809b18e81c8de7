"""What is served computes what was trained, in fewer operations."""

import keras
import numpy as np
import pytest

from tests.trainer.cases import T, batch_of, every_case
from trainer.inference_model import inference_model
from trainer.layers import FoldedNeXtVLAD, NeXtVLAD
from trainer.models import probabilities

CASES, _ = every_case()


def unsettle(model, rng):
    """Weights and moving statistics such as training leaves, so that each of them is seen."""
    for variable in model.variables:
        name = variable.path.rpartition("/")[2]
        if name in ("moving_variance", "gamma"):
            variable.assign(rng.uniform(0.5, 2, variable.shape))
        elif name.endswith("bias"):  # the classifier's starts where all scores are small
            variable.assign(rng.normal(0, 1, variable.shape))
        elif variable.dtype == "float32" and "seed" not in name:
            variable.assign(variable + rng.normal(0, 0.2, variable.shape))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_model_answers_as_trained(case, policy, rng):
    keras.utils.set_random_seed(7)
    keras.config.set_dtype_policy(policy)
    try:
        trained = case.build()
    finally:
        keras.config.set_dtype_policy("float32")
    unsettle(trained, rng)
    wide = case.build()
    wide.set_weights(trained.get_weights())
    inputs, _ = batch_of(case.level)
    served = inference_model(trained)
    expected = probabilities(wide(inputs, training=False))
    assert np.std(expected) > 1e-3, "scores that are all alike would show nothing"
    np.testing.assert_allclose(probabilities(served(inputs)), expected, atol=1e-5)
    assert [layer.name for layer in served.layers] == [layer.name for layer in trained.layers]
    assert not any(isinstance(layer, NeXtVLAD) for layer in served.layers)
    assert {layer.compute_dtype for layer in served.layers if layer.weights} == {"float32"}


@pytest.mark.parametrize("form", ["folded", "fast"])
def test_both_forms_leave_out_what_the_mask_excludes(form, rng):
    trained = NeXtVLAD(cluster_size=3, groups=2, expansion=2)
    frames = rng.normal(size=(2, T, 6)).astype("float32")
    trained.build(frames.shape)
    unsettle(trained, rng)
    folded = FoldedNeXtVLAD(3, 2, 2, form=form)
    folded.build(frames.shape)
    folded.fold(trained)
    mask = np.arange(T) < np.array([[1], [3]])
    longer = frames + 9 * ~mask[..., None]
    expected = trained(frames, mask=mask, training=False)
    np.testing.assert_allclose(folded(longer, mask=mask), expected, atol=1e-5)
    np.testing.assert_allclose(folded(frames), trained(frames, training=False), atol=2e-6)


def test_the_form_goes_by_products():
    layer = FoldedNeXtVLAD(64, 8, 2)
    # Of 300 frames: 159 + 157 + 134 million against 159 + 629 + 39; of 5 the last of fast remains.
    assert layer.takes((None, 300, 1024)) == "fast"
    assert layer.takes((None, 5, 1024)) == "folded"


def test_it_is_saved_and_loaded(tmp_path, rng):
    case = next(case for case in CASES if dict(case.changes)["name"] == "nextvlad")
    served = inference_model(case.build())
    served.save(tmp_path / "served.keras")
    inputs, _ = batch_of(case.level)
    loaded = keras.saving.load_model(tmp_path / "served.keras")
    np.testing.assert_array_equal(probabilities(loaded(inputs)), probabilities(served(inputs)))
