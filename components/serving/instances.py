"""From the JSON of a request to records, and from answers back to JSON.

Two forms are taken, which agree on `instances`: that of Vertex AI's custom containers
(https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements), with optional
`parameters`, and that of TensorFlow Serving's REST interface
(https://www.tensorflow.org/tfx/serving/api_rest), with an optional `signature_name` and, in place
of instances, `inputs` by column.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray

from components.serving.errors import RequestError
from components.serving.settings import ServingSettings
from trainer.errors import InputError
from trainer.exported_model import SEGMENTS, SIGNATURE, Answer, ExportedModel
from trainer.records import FRAME, MAX_FRAMES, Record, VideoRecord

_EXAMPLES = "examples"
_KEYS = {"instances", "inputs", "parameters", "signature_name"}
_PARAMETERS = {"top_k", "segments"}
_MOST_CHARACTERS = 2 << 20
"""Of a record in base64; one of 300 frames has under 500,000."""


@dataclasses.dataclass(frozen=True)
class Request:
    """A request whose records can be scored.

    Attributes:
        videos: parsed.
        top_k: classes that the answer has.
        segments: whether a timeline is asked for.
        by_column: whether TensorFlow Serving's column form is answered in its own form.
    """

    videos: list[VideoRecord]
    top_k: int
    segments: bool
    by_column: bool


def parse_request(
    body: bytes | bytearray, model: ExportedModel, settings: ServingSettings
) -> Request:
    """Parse a request's body.

    Raises:
        RequestError: 400, it is none that the model can answer; 413, too many instances.
    """
    content = _json(body)
    if unknown := content.keys() - _KEYS:
        raise RequestError(
            400, f"unknown key {min(unknown)!r}, expected {', '.join(sorted(_KEYS))}"
        )
    by_column = "inputs" in content
    if by_column == ("instances" in content):
        raise RequestError(400, "expected one of instances and inputs")
    encoded = _columns(content["inputs"]) if by_column else content["instances"]
    if not isinstance(encoded, list) or not encoded:
        found = "none" if encoded == [] else type(encoded).__name__
        raise RequestError(400, f"instances: expected a list of one or more, found {found}")
    if len(encoded) > settings.max_instances:
        raise RequestError(
            413, f"{len(encoded)} instances, expected at most {settings.max_instances} a request"
        )
    top_k, segments = _parameters(content, model)
    videos = [
        _video(Record(f"instances[{index}]", 0, 0, _payload(instance, index)), model)
        for index, instance in enumerate(encoded)
    ]
    return Request(videos, top_k, segments, by_column)


def predictions(request: Request, answer: Answer) -> dict[str, Any]:
    """The response for whole videos.

    Raises:
        RequestError: 400, scores that are no numbers.
    """
    answer = answer.cut(request.top_k)
    _check_sound(answer.sound())
    columns = {
        "classes": answer.classes.tolist(),
        "names": answer.names.tolist(),
        "scores": answer.scores.tolist(),
        "verticals": answer.verticals.tolist(),
    }
    if request.by_column:
        return {"outputs": columns}
    ids = [video.video_id for video in request.videos]
    rows = zip(ids, *columns.values(), strict=True)
    return {"predictions": [dict(zip(("id", *columns), row, strict=True)) for row in rows]}


def timelines(request: Request, answers: list[tuple[Any, Answer]]) -> dict[str, Any]:
    """The response for windows of videos.

    Raises:
        RequestError: 400, scores that are no numbers.
    """
    rows = []
    _check_sound(np.array([answer.sound().all() for _, answer in answers]))
    for video, (starts, answer) in zip(request.videos, answers, strict=True):
        windows = [
            {"start": start, "classes": row}
            for start, row in zip(starts.tolist(), answer.cut(request.top_k).rows(), strict=True)
        ]
        rows.append({"id": video.video_id, "windows": windows})
    return {"outputs" if request.by_column else "predictions": rows}


def _check_sound(sound: NDArray[np.bool_]) -> None:
    """Refuse what no client could read: JSON has no NaN."""
    if not sound.all():
        index = int(np.argmin(sound))
        raise RequestError(400, f"instances[{index}]: its features give scores that are no numbers")


def _json(body: bytes | bytearray) -> dict[str, Any]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise RequestError(400, f"expected a JSON object, found {type(content).__name__}")
    return content


def _columns(inputs: Any) -> Any:
    """The records of `inputs`, by name or, as there is only one input, without."""
    if isinstance(inputs, dict) and "b64" not in inputs:
        if inputs.keys() != {_EXAMPLES}:
            raise RequestError(
                400, f"inputs has {', '.join(sorted(inputs)) or 'nothing'}, expected {_EXAMPLES}"
            )
        inputs = inputs[_EXAMPLES]
    return [inputs] if isinstance(inputs, dict) else inputs


def _parameters(content: dict[str, Any], model: ExportedModel) -> tuple[int, bool]:
    signature = content.get("signature_name") or SIGNATURE
    served = [SIGNATURE, *([SEGMENTS] if model.has_segments else [])]
    if signature not in served:
        raise RequestError(
            400, f"signature_name is {signature!r}, expected one of {', '.join(served)}"
        )
    parameters = content.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict) or parameters.keys() - _PARAMETERS:
        raise RequestError(
            400, f"parameters: expected an object of {', '.join(sorted(_PARAMETERS))}"
        )
    top_k = parameters.get("top_k", model.top_k)
    if type(top_k) is not int or not 1 <= top_k <= model.top_k:
        raise RequestError(
            400, f"parameters.top_k is {top_k!r}, expected 1 to {model.top_k}, the export's top_k"
        )
    segments = parameters.get("segments", signature == SEGMENTS)
    if not isinstance(segments, bool):
        raise RequestError(400, f"parameters.segments is {segments!r}, expected true or false")
    if segments and not model.has_segments:
        raise RequestError(400, "parameters.segments: the model is video-level, it has no timeline")
    return top_k, segments


def _payload(instance: Any, index: int) -> bytes:
    where = f"instances[{index}]"
    if isinstance(instance, dict) and instance.keys() == {_EXAMPLES}:
        instance = instance[_EXAMPLES]
    if not (
        isinstance(instance, dict)
        and instance.keys() == {"b64"}
        and isinstance(instance["b64"], str)
    ):
        raise RequestError(400, f'{where}: expected {{"b64": "…"}}, a record in base64')
    if len(instance["b64"]) > _MOST_CHARACTERS:
        raise RequestError(
            400,
            f"{where}: has {len(instance['b64']):,} characters of base64, expected at most "
            f"{_MOST_CHARACTERS:,}",
        )
    try:
        return pybase64.b64decode(instance["b64"], validate=True)
    except ValueError as error:
        raise RequestError(400, f"{where}: is no base64 ({error})") from None


def _video(record: Record, model: ExportedModel) -> VideoRecord:
    try:
        video = model.parse(record)
    except InputError as error:
        # It is one record: where it stands in a file is nothing to a client.
        _, _, reason = str(error).partition("): ")
        raise RequestError(400, f"{record.path}: {reason or error}") from None
    if model.level == FRAME and max(len(video.rgb), len(video.audio)) > MAX_FRAMES:
        raise RequestError(
            400,
            f"{record.path}: has {max(len(video.rgb), len(video.audio))} frames, expected at most "
            f"{MAX_FRAMES}, one a second",
        )
    return video
