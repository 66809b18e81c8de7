"""The ONNX file answers as the SavedModel does, of every level, or is not handed over."""

import json

import numpy as np
import onnx
import pytest

from components.export import onnx_file
from tests.conftest import TINY_MODEL, frame_video, mean_video
from trainer import records
from trainer.config import ModelConfig
from trainer.export import export_model
from trainer.half_weights import HalfWeights
from trainer.inference_model import inference_model
from trainer.models import build_model
from trainer.vocabulary import Vocabulary

VOCABULARY = Vocabulary(
    tuple(f"näme <{i}>" for i in range(7)), tuple((f"vertical {i % 3}", "x") for i in range(7))
)
CASES = [
    ("nextvlad", "frame", frame_video, {"rgb": "BT1024", "audio": "BT128", "num_frames": "B"}),
    ("moe", "video", mean_video, {"mean_rgb": "B1024", "mean_audio": "B128"}),
]


@pytest.fixture
def make(rng, tmp_path):
    """Writes both files of a new model into a folder; of B = 3 videos."""

    def write(name, level, video, half=False):
        model = build_model(ModelConfig(**TINY_MODEL | {"name": name}), 7, level, 6)
        served = inference_model(model)
        weights = HalfWeights(served) if half else None
        folder = tmp_path / f"{name}-{half}"
        folder.mkdir()
        export_model(served, level, 6, VOCABULARY, 4, folder / "saved_model", half=weights)
        payloads = [records.encode(video(rng)) for _ in range(3)]
        found = onnx_file.export_onnx(served, level, 6, VOCABULARY, 4, folder, payloads, half)
        return folder / "model.onnx", found

    return write


@pytest.mark.parametrize(("name", "level", "video", "inputs"), CASES)
def test_it_answers_as_the_saved_model(make, name, level, video, inputs):
    path, found = make(name, level, video)
    assert found["largest_difference"] < 1e-5
    assert (found["records"], found["bytes"]) == (3, path.stat().st_size)
    content = onnx.load(path)
    shapes = {
        value.name: "".join(
            dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim
        )
        for value in (*content.graph.input, *content.graph.output)
    }
    sizes = {key: shape.replace("T", "6") for key, shape in inputs.items()}
    assert shapes == sizes | {"classes": "B4", "scores": "B4"}
    about = {one.key: json.loads(one.value) for one in content.metadata_props}
    assert about["names"] == list(VOCABULARY.names)
    assert about["verticals"] == [f"vertical {i % 3}" for i in range(7)]


@pytest.mark.slow
def test_float16_weights_are_half_the_file(make):
    whole, _ = make(*CASES[0][:3])
    half, found = make(*CASES[0][:3], half=True)
    assert found["largest_difference"] < 1e-5
    assert half.stat().st_size < 0.55 * whole.stat().st_size


@pytest.mark.parametrize("shift", [2e-4, np.nan])
def test_one_that_answers_otherwise_is_an_error(make, monkeypatch, shift):
    answer = onnx_file.OnnxModel.__call__

    def shifted(self, features):
        classes, scores = answer(self, features)
        return classes, scores + np.float32(shift)

    monkeypatch.setattr(onnx_file.OnnxModel, "__call__", shifted)
    with pytest.raises(
        RuntimeError, match=r"model\.onnx has scores that differ .* by (0\.0002|inf)"
    ):
        make(*CASES[1][:3])
