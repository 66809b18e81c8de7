"""What a request may say, and the one line that answers each thing it may not."""

import json
from base64 import b64encode

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.serving.errors import RequestError
from components.serving.instances import parse_request, predictions
from components.serving.settings import ServingSettings
from tests.conftest import frame_video, mean_video
from trainer import records

SETTINGS = ServingSettings(max_instances=4)


def encoded(video):
    return {"b64": b64encode(records.encode(video)).decode()}


@pytest.fixture
def instance(rng):
    return encoded(frame_video(rng, 4))


def parsed(content, model):
    return parse_request(json.dumps(content).encode(), model, SETTINGS)


def refusal(content, model):
    """The error that a request ends in; None: it can be answered."""
    try:
        parsed(content, model)
    except RequestError as error:
        return error
    return None


def test_both_dialects_are_the_same_request(frame_model, instance):
    forms = [
        {"instances": [instance, instance]},
        {"instances": [{"examples": instance}] * 2, "signature_name": "serving_default"},
        {"instances": [instance] * 2, "parameters": {"top_k": 3, "segments": False}},
        {"inputs": {"examples": [instance] * 2}},
        {"inputs": [instance] * 2},
    ]
    for form in forms:
        request = parsed(form, frame_model)
        same = request.videos[0]
        assert [records.encode(video) for video in request.videos] == [records.encode(same)] * 2
        assert {"b64": b64encode(records.encode(same)).decode()} == instance
        assert (request.top_k, request.segments) == (3, False)
        assert request.by_column == ("inputs" in form)
    assert len(parsed({"inputs": instance}, frame_model).videos) == 1
    assert parsed({"instances": [instance], "signature_name": "segments"}, frame_model).segments


def test_a_prediction_has_the_best_classes_by_name(frame_model, instance):
    request = parsed({"instances": [instance], "parameters": {"top_k": 2}}, frame_model)
    answer = frame_model.answer(request.videos)
    (found,) = predictions(request, answer)["predictions"]
    assert found["id"] == request.videos[0].video_id
    assert found["classes"] == answer.classes[0, :2].tolist()
    assert found["names"] == [f"näme {index}" for index in found["classes"]]
    assert found["scores"] == sorted(found["scores"], reverse=True)
    by_column = parsed({"inputs": [instance]}, frame_model)
    columns = predictions(by_column, answer)["outputs"]
    assert columns["classes"] == answer.classes.tolist()
    assert columns.keys() == {"classes", "names", "scores", "verticals"}


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        ([], 400, "expected a JSON object, found list"),
        ({}, 400, "expected one of instances and inputs"),
        ({"instances": [], "inputs": []}, 400, "expected one of instances and inputs"),
        ({"instances": []}, 400, "expected a list of one or more, found none"),
        ({"instances": "text"}, 400, "expected a list of one or more, found str"),
        ({"instances": [1] * 5}, 413, "5 instances, expected at most 4 a request"),
        ({"instances": [1], "instanzes": []}, 400, "unknown key 'instanzes'"),
        ({"instances": [1]}, 400, r"instances\[0\]: expected {\"b64\""),
        ({"instances": [{"b64": 1}]}, 400, r"instances\[0\]: expected {\"b64\""),
        ({"instances": [{"b64": "AA=A"}]}, 400, r"instances\[0\]: is no base64"),
        ({"instances": [{"b64": "ä"}]}, 400, r"instances\[0\]: is no base64"),
        ({"instances": [{"b64": ""}]}, 400, r"instances\[0\]: "),
        ({"instances": [{"b64": "AAAA"}]}, 400, r"instances\[0\]: its 3 bytes are neither"),
        ({"inputs": {"examples": [], "more": []}}, 400, "inputs has examples, more"),
        ({"instances": [1], "signature_name": "none"}, 400, "signature_name is 'none'"),
        ({"instances": [1], "parameters": []}, 400, "parameters: expected an object"),
        ({"instances": [1], "parameters": {"k": 1}}, 400, "parameters: expected an object of"),
        ({"instances": [1], "parameters": {"top_k": 4}}, 400, "top_k is 4, expected 1 to 3"),
        ({"instances": [1], "parameters": {"top_k": True}}, 400, "top_k is True"),
        ({"instances": [1], "parameters": {"segments": 1}}, 400, "segments is 1, expected true"),
    ],
)
def test_a_request_that_is_none(content, status, message, frame_model):
    with pytest.raises(RequestError, match=message) as caught:
        parsed(content, frame_model)
    assert caught.value.status == status


def test_scores_that_are_no_numbers_are_not_sent(frame_model, instance):
    request = parsed({"instances": [instance, instance]}, frame_model)
    answer = frame_model.answer(request.videos)
    answer.scores[1, 2] = np.nan
    with pytest.raises(RequestError, match=r"instances\[1\]: its features give scores that are no"):
        predictions(request, answer)


def test_a_record_larger_than_any_is_refused_before_it_is_decoded(frame_model):
    with pytest.raises(RequestError, match=r"has 2,097,156 characters of base64, expected at most"):
        parsed({"instances": [{"b64": "A" * ((2 << 20) + 4)}]}, frame_model)


def test_videos_that_can_not_be_scored(frame_model, video_model, rng):
    good = encoded(frame_video(rng, 2))
    with pytest.raises(RequestError, match=r"instances\[1\]: is a video-level record"):
        parsed({"instances": [good, encoded(mean_video(rng))]}, frame_model)
    with pytest.raises(RequestError, match=r"instances\[0\]: has 301 frames, expected at most 300"):
        parsed({"instances": [encoded(frame_video(rng, 301))]}, frame_model)
    assert parsed({"instances": [encoded(frame_video(rng, 300))]}, frame_model).videos
    with pytest.raises(RequestError, match="it has no timeline"):
        parsed({"instances": [good], "parameters": {"segments": True}}, video_model)
    empty = frame_video(rng, 1)
    none = records.VideoRecord("id", empty.labels, empty.rgb[:0], empty.audio[:0])
    with pytest.raises(RequestError, match=r"instances\[0\]: rgb has no frames"):
        parsed({"instances": [encoded(none)]}, frame_model)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"instances": NaN'])
def test_a_body_that_is_no_json(body, frame_model):
    with pytest.raises(RequestError, match="is no JSON") as caught:
        parse_request(body, frame_model, SETTINGS)
    assert caught.value.status == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["instances", "inputs", "examples", "b64", "parameters", "top_k"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_no_json_ends_otherwise_than_in_a_request_error(frame_model, content):
    refused = refusal(content, frame_model)
    assert refused is None or refused.status in (400, 413)
    assert "\n" not in getattr(refused, "message", "")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damaged_record_ends_otherwise(frame_model, data):
    payload = bytearray(records.encode(frame_video(np.random.default_rng(0), 3)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if kind == "flip":
            payload[at] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del payload[at : at + data.draw(st.integers(1, 2000))]
        else:
            payload[at:at] = data.draw(st.binary(max_size=8))
        if not payload:
            break
    content = {"instances": [{"b64": b64encode(bytes(payload)).decode()}]}
    refused = refusal(content, frame_model)
    assert refused is None or refused.status == 400
    assert getattr(refused, "message", "instances[0]: ").startswith("instances[0]: ")
