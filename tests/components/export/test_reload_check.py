import math

from components.export.reload_check import largest_difference


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
