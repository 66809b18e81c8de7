import math

import numpy as np
import pytest

from components.export import step
from components.export.reload_check import largest_difference
from tests.conftest import frame_video, mean_video
from tests.exported_models import write_export
from trainer import records
from trainer.export import top_predictions


def test_scores_are_compared_by_class():
    assert largest_difference({1: 0.5, 2: 0.25}, {2: 0.25, 1: 0.5}) == 0
    assert largest_difference({1: 0.5, 2: 0.25}, {1: 0.25, 2: 0.5}) == 0.25
    # A class that fell off one list had at most that list's lowest score there.
    assert largest_difference({1: 0.5, 2: 0.25}, {1: 0.5, 3: 0.25}) == 0
    assert largest_difference({1: 0.5, 2: 0.5}, {1: 0.5, 3: 0.25}) == 0.25


def test_a_score_that_is_no_number_is_as_far_off_as_can_be():
    for answer in ({1: math.nan, 2: 0.25}, {1: 0.5, 2: math.nan}, {1: math.nan, 2: math.nan}):
        assert largest_difference({1: 0.5, 2: 0.25}, answer) == math.inf
        assert largest_difference(answer, {1: 0.5, 2: 0.25}) == math.inf


@pytest.fixture(scope="module", params=["frame", "video"])
def reload(request, tmp_path_factory):
    """Of changes to the cases, the largest difference that a fresh process finds."""
    level, folder = request.param, tmp_path_factory.mktemp("export")
    model = write_export(folder, level, 7, 3, 6)
    rng = np.random.default_rng(7)
    lengths = [1, 5, 23, 310, 2, 3, 4, 9, 10, 2]
    videos = {
        "frame": lambda: [frame_video(rng, count) for count in lengths],
        "video": lambda: [mean_video(rng) for _ in lengths],
    }[level]()
    payloads = [records.encode(video) for video in videos]
    expected = top_predictions(model, level, 6, payloads, 3)
    windows = step._of_windows(model, payloads[:8], 3, 3) if level == "frame" else None
    cases = step._cases(payloads, expected, level, 6, windows)

    def found(**changes):
        result = step._reload(folder / "saved_model", cases | changes)
        assert result["records"] == 10
        return result["largest_difference"]

    found.cases, found.level = cases, level
    return found


@pytest.mark.slow
def test_every_signature_answers_alike(reload):
    assert reload() < 1e-6
    if reload.level == "frame":
        windows = sum(-(-count // 3) for count in (1, 5, 23, 300, 2, 3, 4, 9))
        assert reload.cases["segments/scores"].shape == (windows, 3)


@pytest.mark.slow
def test_a_signature_that_answers_otherwise_is_found(reload):
    def turned(start):
        """Other records' values, or windows'."""
        return {k: value[::-1] for k, value in reload.cases.items() if k.startswith(start)}

    changes = [turned("scores"), turned("feature/")]
    if reload.level == "frame":
        # And fewer windows than are expected.
        changes += [turned("segments/scores"), {"segments/records": 2}]
    for one in changes:
        assert one
        assert reload(**one) > 1e-4, one.keys()
