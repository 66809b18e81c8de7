import pytest

from components.gate.verdict import verdict


def evaluation(gap, difference=None):
    """Of a model, and of a champion whose GAP is less by the difference's first number."""
    found = {
        "headline": "GAP@20",
        "videos": 3501,
        "confidence": 0.95,
        "resamples": 1000,
        "metrics": {"model": {"gap": gap}},
        "differences": {},
    }
    if difference:
        value, low, high = difference
        found["metrics"]["champion"] = {"gap": gap - value}
        found["differences"]["champion"] = {"value": value, "low": low, "high": high}
    return found


@pytest.mark.parametrize(
    ("gap", "blessed", "reason"),
    [
        (0.71, True, "GAP@20 0.7100 reaches the required 0.7000"),
        (0.7, True, "GAP@20 0.7000 reaches the required 0.7000"),
        (0.69, False, "GAP@20 0.6900 is below the required 0.7000"),
    ],
)
def test_without_a_champion(gap, blessed, reason):
    assert verdict(evaluation(gap), 0.7, 0.0) == (blessed, reason)


@pytest.mark.parametrize(
    ("gap", "difference", "margin", "blessed", "words"),
    [
        (0.71, (0.02, 0.01, 0.03), 0, True,
         "and is better beyond chance than the champion's 0.6900 on the same shards (difference "
         "+0.0200, 95% interval [+0.0100, +0.0300] of 1,000 paired resamples of 3,501 videos)"),
        (0.71, (0.02, -0.001, 0.03), 0, False, ", but is not better beyond chance than"),
        (0.71, (0.0, 0.0, 0.0), 0, False, ", but is not better beyond chance than"),
        (0.71, (-0.02, -0.03, -0.01), 0, False, ", but is worse than the champion's 0.7300"),
        (0.71, (0.02, 0.01, 0.03), 0.01, False, ", but is not better by more than 0.0100 than"),
        (0.71, (0.02, 0.0101, 0.03), 0.01, True, "and is better by more than 0.0100 than"),
        (0.69, (0.02, 0.01, 0.03), 0, False,
         "is below the required 0.7000, though it is better beyond chance than"),
        (0.69, (0.02, -0.01, 0.03), 0, False,
         "is below the required 0.7000 and is not better beyond chance than"),
    ],
)  # fmt: skip
def test_beside_a_champion(gap, difference, margin, blessed, words):
    found, reason = verdict(evaluation(gap, difference), 0.7, margin)
    assert found is blessed
    assert words in reason
