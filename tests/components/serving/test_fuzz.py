"""Ten thousand damaged requests: each ends in an answer or a 4xx, and the server stays."""

import http.client
import json
import logging
import random
from base64 import b64encode

import pytest

from components.serving.logs import LOGGER
from tests.components.serving.conftest import running
from tests.components.serving.http_client import ask, body_of
from tests.components.serving.test_app import until_ready
from tests.conftest import frame_video, mean_video
from tests.memory import resident
from trainer import records

REQUESTS = 10_000
MOST_GROWTH = 32 << 20


def damaged(payload, chance):
    """A record with a few bytes flipped, cut out, doubled or put in."""
    content = bytearray(payload)
    for _ in range(chance.randint(1, 4)):
        at, size = chance.randrange(len(content) or 1), chance.choice((1, 2, 8, 500))
        kind = chance.randrange(4)
        if kind == 0 and content:
            content[min(at, len(content) - 1)] ^= chance.randint(1, 255)
        elif kind == 1:
            del content[at : at + size]
        elif kind == 2:
            content[at:at] = content[at : at + size]
        else:
            content[at:at] = chance.randbytes(size)
    return bytes(content)


def requests(payload, chance):
    """Bodies without end: damaged records, damaged base64, damaged JSON."""
    good = body_of(payload)
    while True:
        kind = chance.randrange(4)
        if kind < 2:
            yield body_of(damaged(payload, chance))
        elif kind == 2:
            text = bytearray(b64encode(payload))
            for _ in range(3):
                text[chance.randrange(len(text))] = chance.randrange(32, 127)
            yield json.dumps({"instances": [{"b64": text.decode()}]}).encode()
        else:
            yield damaged(good, chance)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["frame", "video"])
def test_nothing_breaks_the_server_or_makes_it_grow(
    level, frame_model, video_model, rng, capsys, caplog
):
    # pytest keeps every line that is logged.
    caplog.set_level(logging.CRITICAL, LOGGER.name)
    chance = random.Random(0)
    model = {"frame": frame_model, "video": video_model}[level]
    video = frame_video(rng, 3) if level == "frame" else mean_video(rng)
    payload = records.encode(video)
    counts = {}
    with running(lambda: model, batch_milliseconds=0.0) as (port, service, _):
        until_ready(port)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        before = 0
        for number, made in zip(range(REQUESTS), requests(payload, chance), strict=False):
            body = made
            # Timelines go another way through the model.
            asked = "timelines" if level == "frame" and number % 3 == 0 else "predictions"
            if asked == "timelines":
                body = body.replace(b"{", b'{"parameters": {"segments": true}, ', 1)
            connection.request("POST", "/predict", body)
            response = connection.getresponse()
            content = json.loads(response.read())
            assert ("predictions" if response.status == 200 else "error") in content
            kind = f"{asked} {response.status}"
            counts[kind] = counts.get(kind, 0) + 1
            if number == REQUESTS // 5:  # by then all that is kept once is there
                before = resident()
        connection.close()
        growth = resident() - before
        assert ask(port, body=body_of(payload))[0] == 200
        assert service.metrics.registry.get_sample_value("nextvlad_body_bytes_in_flight") == 0
    with capsys.disabled():
        print(f"\n{REQUESTS} damaged {level}-level requests: {counts}, {growth / 1e6:+.1f} MB")
    assert {kind.split()[1] for kind in counts} == {"200", "400"}
    assert min(counts.values()) > REQUESTS // 100, "both outcomes have to be met"
    assert growth < MOST_GROWTH
