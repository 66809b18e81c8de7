"""What the first step refuses, before anything long is begun."""

import importlib.util
import json

import pytest
from kfp import dsl

from components.download.component import download


def test_onnx_that_is_not_installed_is_said_hours_before_the_export(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    with pytest.raises(SystemExit) as ended:
        download.python_func(
            data_source="sample", destination=str(tmp_path), champion="", registered="",
            overrides=json.dumps({"export": {"onnx": True}}),
            examples=dsl.Dataset(name="examples", uri=str(tmp_path / "examples")),
        )  # fmt: skip
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: export.onnx is true, but ")
    assert "onnxruntime can not be imported" in error
    assert list(tmp_path.iterdir()) == []
