import re

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from tests.conftest import TINY_MODEL
from trainer import records
from trainer.config import MODEL_NAMES, ModelConfig
from trainer.errors import InputError
from trainer.models import FRAME_LEVEL_ONLY, INITIAL_BIAS, MODELS, build_model, load_model


def inputs_of(level, rng, batch=3, frames=4):
    if level == records.VIDEO:
        shape = lambda size: rng.standard_normal((batch, size)).astype("float32")  # noqa: E731
        return {"mean_rgb": shape(1024), "mean_audio": shape(128)}
    return {
        "rgb": rng.integers(0, 256, (batch, frames, 1024), dtype=np.uint8),
        "audio": rng.integers(0, 256, (batch, frames, 128), dtype=np.uint8),
        "num_frames": np.array([frames, 1, 2], np.int32),
    }


CASES = [(name, level) for name in MODELS for level in (records.FRAME, records.VIDEO)
         if level == records.FRAME or name not in FRAME_LEVEL_ONLY]  # fmt: skip


@pytest.mark.parametrize(("name", "level"), CASES)
def test_every_model_predicts_saves_and_loads(name, level, rng, tmp_path):
    config = ModelConfig(**TINY_MODEL | {"name": name, "branches": 2})
    model = build_model(config, 7, level, 4)
    batch = inputs_of(level, rng)
    scores = to_numpy(model(batch))
    assert scores.shape == (3, 7)
    assert scores.dtype == np.float32
    assert ((scores > 0) & (scores < 1)).all()
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(load_model(tmp_path / "model.keras")(batch)), scores)


@pytest.mark.parametrize("name", MODELS)
def test_what_lies_beyond_num_frames_changes_nothing(name, rng):
    model = build_model(ModelConfig(**TINY_MODEL | {"name": name}), 7, records.FRAME, 4)
    batch = inputs_of(records.FRAME, rng)
    before = to_numpy(model(batch))
    batch["rgb"][1, 1:] = 255
    batch["audio"][2, 2:] = 0
    np.testing.assert_allclose(to_numpy(model(batch)), before, atol=1e-6)


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_the_classifier_starts_at_the_class_frequencies(name, rng):
    priors = np.array([0.5, 0.1, 0.0])
    config = ModelConfig(**TINY_MODEL | {"name": name})
    model = build_model(config, 3, records.VIDEO, priors=priors)
    bias = model.layers[-1].bias.numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), [0.5, 0.1, 5e-6], rtol=1e-4)
    plain = build_model(config, 3, records.VIDEO)
    np.testing.assert_array_equal(plain.layers[-1].bias.numpy(), [INITIAL_BIAS] * 3)


def test_nextvlad_has_the_author_s_number_of_parameters():
    """89 M, as the paper's repository states for 8 groups, 128 clusters, 2,048 hidden units."""
    model = build_model(ModelConfig(), 3862, records.FRAME, 300)
    assert round(model.count_params() / 1e6) == 89


def test_the_configuration_knows_the_models():
    assert tuple(MODELS) == MODEL_NAMES


def test_branches_differ(rng):
    config = ModelConfig(**TINY_MODEL | {"name": "mlp", "branches": 3})
    kernels = [layer.kernel.numpy() for layer in build_model(config, 5, records.VIDEO).layers
               if isinstance(layer, keras.layers.Dense) and layer.units == 16]  # fmt: skip
    assert len(kernels) == 3
    assert not np.array_equal(kernels[0], kernels[1])


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"name": "nextvald"}, records.FRAME, "did you mean nextvlad?"),
        ({"name": "nextvlad"}, records.VIDEO, "needs frame-level records"),
        ({"groups": 3}, records.FRAME, "the 3 groups of rgb do not divide its 1 · 1024"),
        ({"groups": 512}, records.FRAME, "the 256 groups of audio do not divide its 1 · 128"),
        ({"name": "mlp", "hidden_size": 0}, records.VIDEO, "model.hidden_size is 0"),
    ],
)
def test_models_that_can_not_be(changes, level, words):
    with pytest.raises(InputError, match=re.escape(words)):
        build_model(ModelConfig(**TINY_MODEL | changes), 5, level)


def test_files_that_are_no_model(tmp_path):
    with pytest.raises(InputError, match="no such model"):
        load_model(tmp_path / "absent.keras")
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(InputError, match=r"text\.keras: is no model that can be loaded"):
        load_model(tmp_path / "text.keras")
