"""What is read ahead comes as it would without."""

import threading
import time

import pytest

from components.predict.direct import ahead, predict_directly
from components.predict.scoring import Settings
from components.predict.windows import InputShard


def test_items_come_in_their_order_and_not_too_early():
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    found = []
    for item in ahead(items(), 2):
        time.sleep(0.005)
        # Two that are ready, and one that waits to be.
        assert len(taken) <= item + 4
        found.append(item)
    assert found == list(range(20))


def test_an_error_comes_after_what_came_before_it():
    def items():
        yield 1
        raise RuntimeError("ours")

    found = ahead(items(), 2)
    assert next(found) == 1
    with pytest.raises(RuntimeError, match="ours"):
        next(found)


def test_closed_early_the_thread_ends():
    before = threading.active_count()
    found = ahead(iter(range(10**9)), 2)
    assert next(found) == 0
    found.close()
    assert threading.active_count() == before


def test_progress_ends_at_the_number_of_videos(frame_model, shards, monkeypatch, capsys):
    monkeypatch.setenv("PROGRESS_SECONDS", "0")
    inputs = [InputShard(str(p), p.stat().st_size) for p in sorted(shards.iterdir())]
    found = list(predict_directly(frame_model, inputs, Settings(batch_size=1)))
    assert [len(window) for window in found] == [4, 4, 3, 4, 1]
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("[predict] 16/16 videos")
    assert said[-1].endswith("done")
    assert "ETA" in said[0]
