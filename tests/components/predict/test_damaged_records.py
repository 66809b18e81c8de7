"""Whatever a record holds, it is answered or refused: no other exception, and no leak."""

import collections

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.predict.scoring import (
    Predicted,
    Settings,
    of_json,
    parse_window,
    score_window,
    to_json,
)
from components.predict.windows import Window
from tests.components.predict.damage import damaged, rng_of
from tests.memory import resident
from trainer import records

MANY, AT_ONCE = 10_000, 250
GROWTH_MB = 60


def outcomes(model, payloads, segments):
    window = Window([records.Record("s", i, 0, one) for i, one in enumerate(payloads)])
    found = score_window(model, parse_window(model, window), Settings(16, segments, 2))
    assert [one.record for one in found] == list(range(len(payloads)))
    for one in found:
        of_json(to_json(one))
        if not isinstance(one, Predicted):
            assert str(one.error()).startswith("s: record ")
            assert one.reason
    return found


SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=SEEDS, level=st.sampled_from(["frame", "video"]))
def test_each_ends_in_an_answer_or_an_error(seed, level, frame_model, video_model):
    model = {"frame": frame_model, "video": video_model}[level]
    rng = rng_of(seed)
    outcomes(model, [damaged(rng, level) for _ in range(5)], segments=False)


@settings(max_examples=300, deadline=None)
@given(payload=st.binary(max_size=400))
def test_any_bytes(payload, frame_model):
    outcomes(frame_model, [payload], segments=False)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_timelines_of_what_is_answered(seed, frame_model):
    rng = rng_of(seed)
    outcomes(frame_model, [damaged(rng, most_frames=30) for _ in range(4)], segments=True)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["frame", "video"])
def test_ten_thousand_leave_no_trace(level, frame_model, video_model):
    model = {"frame": frame_model, "video": video_model}[level]
    rng = rng_of(5)
    counts, sizes = collections.Counter(), []
    for _ in range(MANY // AT_ONCE):
        payloads = [damaged(rng, level) for _ in range(AT_ONCE)]
        for one in outcomes(model, payloads, segments=False):
            counts["answered" if isinstance(one, Predicted) else "refused"] += 1
        sizes.append(resident() / 2**20)
    grown = sizes[-1] - sizes[len(sizes) // 4]
    print(f"{level}: {dict(counts)}, {sizes[-1]:.0f} MB, grown by {grown:.1f} MB")
    assert counts.total() == MANY
    assert min(counts.values()) > MANY // 20
    assert grown < GROWTH_MB
