import pytest

from components.gate.step import run_gate


@pytest.mark.parametrize(
    ("gap", "blessed", "reason"),
    [
        (0.71, True, "GAP@20 0.7100 reaches the required 0.7000"),
        (0.7, True, "GAP@20 0.7000 reaches the required 0.7000"),
        (0.69, False, "GAP@20 0.6900 is below the required 0.7000"),
    ],
)
def test_verdicts(gap, blessed, reason, tmp_path, capsys):
    assert run_gate(gap, 0.7, str(tmp_path / "verdict")) == (blessed, reason)
    word = "Blessed" if blessed else "Not blessed"
    assert (tmp_path / "verdict").read_text() == f"**{word}**: {reason}.\n"
    assert capsys.readouterr().out == f"[gate] {word.lower()}: {reason}\n"
