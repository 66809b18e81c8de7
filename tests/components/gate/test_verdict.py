import pytest

from components.gate.verdict import verdict
from trainer.config import EvaluationConfig


def evaluation(gap, difference=None):
    """Of a model, and of a champion whose GAP is less by the difference's first number."""
    found = {
        "headline": "GAP@20",
        "videos": 3501,
        "labelled_videos": 3500,
        "champion_vocabulary_known": True,
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
        (0.69999, False, "GAP@20 0.699990 is below the required 0.700000"),
    ],
)
def test_without_a_champion(gap, blessed, reason):
    assert verdict(evaluation(gap), 0.7, EvaluationConfig()) == (blessed, reason)


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
    settings = EvaluationConfig(champion_margin=margin)
    found, reason = verdict(evaluation(gap, difference), 0.7, settings)
    assert found is blessed
    assert words in reason


def test_a_few_videos_say_nothing():
    content = evaluation(0.71, (0.3, 0.3, 0.3)) | {"labelled_videos": 99}
    blessed, reason = verdict(content, 0.7, EvaluationConfig())
    assert not blessed
    assert "can not be called better beyond chance on 99 videos with labels" in reason
    assert verdict(content, 0.7, EvaluationConfig(champion_videos=99))[0]


@pytest.mark.parametrize(
    ("confidence", "words"), [(0.999, "99.9% interval"), (0.9, "90% interval")]
)
def test_the_confidence_is_said_as_it_is(confidence, words):
    content = evaluation(0.71, (0.02, 0.01, 0.03)) | {"confidence": confidence}
    assert words in verdict(content, 0.7, EvaluationConfig())[1]


def test_names_that_could_not_be_compared_are_said():
    content = evaluation(0.71, (0.02, 0.01, 0.03)) | {"champion_vocabulary_known": False}
    assert (
        "whether the champion's classes are the data's is not known"
        in verdict(content, 0.7, EvaluationConfig())[1]
    )
