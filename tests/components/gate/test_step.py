import dataclasses

import pytest

from components.gate.step import run_gate
from tests.components.gate.test_verdict import evaluation
from trainer.config import Config, EvaluationConfig
from trainer.errors import InputError
from trainer.files import write_json


@pytest.mark.parametrize(("margin", "word"), [(0.0, "Blessed"), (0.02, "Not blessed")])
def test_the_margin_is_a_parameter_and_the_verdict_is_written(margin, word, tmp_path, capsys):
    write_json(tmp_path / "evaluation.json", evaluation(0.71, (0.02, 0.01, 0.03)))
    config = dataclasses.replace(Config(), evaluation=EvaluationConfig(champion_margin=margin))
    blessed, reason = run_gate(str(tmp_path), 0.7, config, str(tmp_path / "verdict"))
    assert blessed is (word == "Blessed")
    assert (tmp_path / "verdict").read_text() == f"**{word}**: {reason}.\n"
    assert capsys.readouterr().out == f"[gate] {word.lower()}: {reason}\n"


def test_no_evaluation_no_verdict(tmp_path):
    with pytest.raises(InputError, match=r"evaluation\.json: no such file"):
        run_gate(str(tmp_path), 0.7, Config(), str(tmp_path / "verdict"))
    assert not (tmp_path / "verdict").exists()
