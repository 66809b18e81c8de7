from components.export.reload_check import largest_difference


def test_scores_are_compared_by_class():
    assert largest_difference({1: 0.5, 2: 0.25}, {2: 0.25, 1: 0.5}) == 0
    assert largest_difference({1: 0.5, 2: 0.25}, {1: 0.25, 2: 0.5}) == 0.25
    # A class that fell off one list had at most that list's lowest score there.
    assert largest_difference({1: 0.5, 2: 0.25}, {1: 0.5, 3: 0.25}) == 0
    assert largest_difference({1: 0.5, 2: 0.5}, {1: 0.5, 3: 0.25}) == 0.25
