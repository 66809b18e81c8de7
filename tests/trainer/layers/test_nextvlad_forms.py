"""The choice of the form: products counted by hand, and the measurements that it goes by."""

import dataclasses
import itertools

import numpy as np
import pytest

from trainer.layers import nextvlad_forms
from trainer.layers.nextvlad_forms import FORMS, Shape, coefficients, cost, fastest, multiply_adds

# B=1, T=3, D=4, G=2, K=5, λ=1: rows 3, columns G·K = 10, expanded 4, folding 4·4·(10+2)
SMALL = Shape(1, 3, 4, 2, 5, 1, training=False)


@pytest.mark.parametrize(
    ("form", "inference", "training"),
    [
        # x̃ 3·4·4; logits and attention 3·4·12; aggregation 3·5·4
        ("direct", 48 + 144 + 60, 2 * 48 + 3 * (144 + 60)),
        # logits 3·4·12, x̃ 48; aggregation 60, folding 4·4·12
        ("folded", 144 + 48 + 60 + 192, 2 * (144 + 48) + 3 * (60 + 192)),
        # logits 144, sums of x 3·4·10; expansion of the sums 1·5·4·4, folding 192
        ("fast", 144 + 120 + 80 + 192, 2 * (144 + 120) + 3 * (80 + 192)),
    ],
)
def test_products_by_hand(form, inference, training):
    assert multiply_adds(SMALL, form) == inference
    assert multiply_adds(dataclasses.replace(SMALL, training=True), form) == training


def test_without_measurements_the_fewest_products_win():
    assert coefficients("abacus", "float32") is None
    assert fastest(SMALL, "abacus", "float32") == "direct"
    long = Shape(512, 300, 1024, 8, 64, 2, training=True)
    assert fastest(long, "abacus", "float32") == "fast"


def test_a_precision_that_was_not_measured_goes_by_the_nearest():
    for one, other in (("float64", "float32"), ("float16", "bfloat16")):
        assert cost(SMALL, "fast", "cpu", one) == cost(SMALL, "fast", "cpu", other)


@pytest.fixture
def made_up(monkeypatch):
    """Measurements that follow the model with coefficients 7, ½ and 3."""
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(12):
        b, t, d, k = (int(n) for n in rng.integers(8, 200, 4))
        shape = Shape(b, t, d, 2, k, 2, training=bool(rng.integers(2)))
        for form in FORMS:
            milliseconds = nextvlad_forms._counts(shape, form) @ np.array([7.0, 0.5, 3.0])
            rows.append(("test", "float32", shape, form, float(milliseconds)))
    monkeypatch.setattr(nextvlad_forms, "measurements", lambda: tuple(rows))
    forget()
    yield rows
    forget()


def test_the_fit_finds_the_costs_that_made_the_measurements(made_up):
    np.testing.assert_allclose(coefficients("test", "float32"), [7, 0.5, 3], rtol=1e-6)
    expected = nextvlad_forms._counts(SMALL, "fast") @ np.array([7.0, 0.5, 3.0])
    np.testing.assert_allclose(cost(SMALL, "fast", "test", "float32"), expected, rtol=1e-6)


def test_a_measured_case_costs_what_was_measured():
    for device, precision, shape, form, milliseconds in nextvlad_forms.measurements():
        np.testing.assert_allclose(cost(shape, form, device, precision), milliseconds)


def cases_of(rows):
    """Each measured case and its milliseconds by form."""
    for case, group in itertools.groupby(rows, lambda row: row[:3]):
        yield case, {form: ms for *_, form, ms in group}


def forget():
    coefficients.cache_clear()
    fastest.cache_clear()


def test_the_measurements_are_complete():
    cases = dict(cases_of(nextvlad_forms.measurements()))
    assert {device for device, _, _ in cases} == {"cpu"}
    for precision in ("float32", "bfloat16"):
        shapes = [shape for _, name, shape in cases if name == precision]
        assert {5, 60, 300} <= {shape.frames for shape in shapes}
        assert {64, 128} <= {shape.clusters for shape in shapes}
    assert all(set(by_form) == set(FORMS) for by_form in cases.values())


def test_a_length_that_was_not_measured_is_chosen_for_well(monkeypatch):
    """Without the measurements of a length, its choices lose little of all milliseconds."""
    everything = nextvlad_forms.measurements()
    taken = best = 0.0
    for frames in {row[2].frames for row in everything}:
        left = tuple(row for row in everything if row[2].frames != frames)
        monkeypatch.setattr(nextvlad_forms, "measurements", lambda left=left: left)
        forget()
        for (device, precision, shape), by_form in cases_of(everything):
            if shape.frames == frames:
                taken += by_form[fastest(shape, device, precision)]
                best += min(by_form.values())
    forget()
    assert best < taken < 1.05 * best


def test_between_measurements_the_choice_follows_the_frames():
    """Direct for seconds, fast for whole videos, and one change from each to the next."""
    chosen = [
        fastest(Shape(160, frames, 1024, 8, 64, 2, training=True), "cpu", "float32")
        for frames in range(5, 400, 5)
    ]
    assert chosen[0] in ("direct", "folded")
    assert chosen[-1] == "fast"
    assert [form for form, _ in itertools.groupby(chosen)] == sorted(set(chosen), key=FORMS.index)
