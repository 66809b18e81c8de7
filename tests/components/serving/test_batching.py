"""Videos of many requests in one call, each answer to whom it belongs."""

import asyncio
import threading

import numpy as np
import pytest

from components.serving.batching import DynamicBatcher
from components.serving.errors import RequestError
from components.serving.metrics import ServingMetrics
from trainer.exported_model import Answer


class Model:
    """Answers each "video" with itself; remembers the batches, and can be held."""

    def __init__(self):
        self.batches, self.free = [], threading.Event()
        self.free.set()

    def __call__(self, videos):
        self.batches.append(list(videos))
        self.free.wait(10)
        if "poison" in videos:
            raise ValueError("the model broke")
        column = np.array(videos, object)[:, None]
        return Answer(column, column, column, column)


def batcher(model, max_batch=4, milliseconds=20.0, max_queue=10):
    return DynamicBatcher(model, max_batch, milliseconds, max_queue, ServingMetrics())


def run(script, model, **settings):
    async def whole():
        made = batcher(model, **settings)
        made.start()
        try:
            return await script(made)
        finally:
            model.free.set()
            await made.stop()

    return asyncio.run(whole())


async def at_work(model):
    """Until the model has its first batch."""
    while not model.batches:
        await asyncio.sleep(0.001)


def told(answer):
    return answer.classes[:, 0].tolist()


def test_requests_share_a_call_and_get_their_own():
    model = Model()

    async def script(made):
        return await asyncio.gather(made.answer([1]), made.answer([2, 3]), made.answer([4]))

    assert [told(one) for one in run(script, model)] == [[1], [2, 3], [4]]
    assert model.batches == [[1, 2, 3, 4]], "a full batch does not wait"


def test_a_request_of_more_than_a_batch_is_put_together_again():
    model = Model()

    async def script(made):
        return await asyncio.gather(made.answer(list(range(6))), made.answer([9]))

    assert [told(one) for one in run(script, model)] == [[0, 1, 2, 3, 4, 5], [9]]
    assert model.batches == [[0, 1, 2, 3], [4, 5, 9]]


def test_what_arrives_while_the_model_works_is_the_next_batch():
    model = Model()
    model.free.clear()

    async def script(made):
        first = asyncio.create_task(made.answer([1]))
        await at_work(model)
        others = [asyncio.create_task(made.answer([number])) for number in (2, 3)]
        await asyncio.sleep(0.05)
        model.free.set()
        await asyncio.gather(first, *others)

    run(script, model, milliseconds=1.0)
    assert model.batches == [[1], [2, 3]]


def test_too_many_are_turned_away_and_the_rest_answered():
    model = Model()

    async def script(made):
        waiting = asyncio.create_task(made.answer([1, 2]))
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="2 videos wait already") as caught:
            await made.answer([3])
        assert caught.value.status == 503
        return await waiting

    assert told(run(script, model, max_queue=2)) == [1, 2]


def test_a_call_that_breaks_is_told_to_its_own_and_the_server_lives():
    model = Model()

    async def script(made):
        with pytest.raises(ValueError, match="the model broke"):
            await made.answer(["poison"])
        return await made.answer(["good"])

    assert told(run(script, model)) == ["good"]


def test_who_has_gone_is_not_scored():
    model = Model()
    model.free.clear()

    async def script(made):
        first = asyncio.create_task(made.answer([1]))
        await at_work(model)
        gone = asyncio.create_task(made.answer([2]))
        await asyncio.sleep(0)
        gone.cancel()
        last = asyncio.create_task(made.answer([3]))
        await asyncio.sleep(0)
        model.free.set()
        await first
        return await last

    assert told(run(script, model, milliseconds=0.0)) == [3]
    assert [2] not in model.batches


def test_a_stop_turns_away_who_waits():
    model = Model()
    model.free.clear()

    async def whole():
        made = batcher(model, milliseconds=0.0, max_batch=1)
        made.start()
        tasks = [asyncio.create_task(made.answer([number])) for number in (1, 2)]
        await at_work(model)
        model.free.set()
        await made.stop()
        return await asyncio.gather(*tasks, return_exceptions=True)

    for outcome in asyncio.run(whole()):
        assert isinstance(outcome, RequestError | Answer)
        assert getattr(outcome, "status", 503) == 503
