"""Export the trained model, and prove that the export answers as the model does."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from components.download.extras import VOCABULARY
from components.export.card_facts import CardFacts, read_evaluation
from components.export.half import rounded
from components.export.model_card import model_card
from components.export.onnx_file import export_onnx
from components.export.reload_check import FEATURE, largest_change
from trainer import records
from trainer.config import Config, ModelConfig
from trainer.evaluation import trained_config
from trainer.export import any_frames, export_model, signatures, top_predictions
from trainer.exported_model import ABOUT, FEATURES, SAVED_MODEL, features_of
from trainer.feature_networks.feature_extractor import extractor_facts, keep_extractor
from trainer.files import atomic_directory, atomic_file, local_path, read_json, write_json
from trainer.inference_model import inference_model
from trainer.manifest import Manifest, read_manifest
from trainer.models import load_model
from trainer.onnx_packages import check_packages
from trainer.progress import say
from trainer.reporting.document import Document, as_html, as_markdown
from trainer.training import MODEL

TOLERANCE = 1e-5
"""Largest difference of a score between the trained model and its export."""
RECORDS_COMPARED = 1024
"""Or all, if there are fewer."""
FEATURES_COMPARED, TIMELINES_COMPARED = 64, 8
"""As many of these are also given as their features, and have their timelines compared."""
Answers = tuple[np.ndarray, np.ndarray]
"""Classes and scores, each [N,k]."""
CARD = "model_card.html"
"""And `model_card.md`, of the same content."""


def run_export(
    examples: str,
    trained_model: str,
    evaluation: str,
    config: Config,
    serving_model: str,
    card: str,
) -> dict[str, Any]:
    """Write `saved_model/`, `export.json` and the model card below `serving_model`.

    Args:
        examples: folder of the manifest; gives the label map and the records to compare on.
        trained_model: folder of the train step.
        evaluation: folder of the evaluate step, whose metrics the card states.
        config: `export` is used; the card states all of it.
        serving_model: folder to write.
        card: HTML file to write, the card once more.

    Returns:
        The content of `export.json`.

    Raises:
        InputError: a model or evaluation that does not fit the data, weights that float16 can not
            hold, or ONNX is asked for and not installed.
        RuntimeError: the scores of one of the export's signatures differ from the model's.
    """
    settings = config.export
    if settings.onnx:
        check_packages()
    manifest = read_manifest(examples)
    trained = trained_config(trained_model, manifest)
    training = read_json(Path(trained_model) / "training.json")["model"]
    evaluated, by_class = read_evaluation(evaluation, manifest)
    max_frames = trained["data"]["max_frames"]
    vocabulary = manifest.read_vocabulary()
    model = load_model(Path(trained_model) / MODEL)
    whole, segment_step = model, None
    if manifest.level == records.FRAME:
        # It scores whole videos and windows, whichever of them it was trained on.
        whole = any_frames(model, ModelConfig(**trained["model"]), vocabulary)
        segment_step = settings.segment_step
        if trained["data"].get("segments"):
            model = whole
    served = inference_model(whole, max_frames)
    top_k = min(settings.top_k, manifest.num_classes)
    payloads = _payloads(manifest)

    def expected_of(network: keras.Model) -> Answers:
        return top_predictions(network, manifest.level, max_frames, payloads, top_k)

    expected = expected_of(model)
    half, compared_with = None, "the trained model"
    measured: dict[str, Any] = {}
    if settings.weights == "float16":
        # Rounded, it answers otherwise than the trained model; that it does not yet is shown here.
        before_rounding = largest_change(expected, expected_of(served))
        _check_difference(before_rounding, "the network to be rounded")
        half, measured["float16"] = rounded(
            served, manifest, max_frames, config.evaluation.batch_size
        )
        measured["float16"]["largest_difference_before_rounding"] = before_rounding
        # What rounding costs is measured; the export is to answer as the rounded weights do.
        expected = expected_of(served)
        compared_with = (
            "its rounded weights in float32, which before they were rounded scored within "
            f"{before_rounding:.1g} of the trained model"
        )
    with atomic_directory(serving_model) as partial:
        saved_model = partial / SAVED_MODEL
        export_model(
            served, manifest.level, max_frames, vocabulary, top_k, saved_model, segment_step, half,
        )  # fmt: skip
        windows = None
        if segment_step is not None:
            network = served if half else whole
            windows = _of_windows(network, payloads[:TIMELINES_COMPARED], segment_step, top_k)
        cases = _cases(payloads, expected, manifest.level, max_frames, windows)
        checked = _reload(saved_model, cases)
        _check_difference(checked["largest_difference"], "the export")
        if settings.onnx:
            measured["onnx"] = export_onnx(
                served, manifest.level, max_frames, vocabulary, top_k, partial, payloads,
                half is not None,
            )  # fmt: skip
        result = {
            "signature": "serving_default",
            "signatures": signatures(saved_model),
            "top_k": top_k,
            "level": manifest.level,
            "max_frames": max_frames,
            "num_classes": manifest.num_classes,
            "vocabulary_digest": manifest.vocabulary_digest(),
            "data_fingerprint": manifest.fingerprint,
            "data_source": manifest.source,
            **extractor_facts(manifest),
            "weights": settings.weights,
            "bytes": sum(f.stat().st_size for f in saved_model.rglob("*") if f.is_file()),
            "reloaded_records": checked["records"],
            "largest_difference": checked["largest_difference"],
            "compared_with": compared_with,
            **measured,
        }
        facts = CardFacts(manifest, trained, training, evaluated, by_class, result, config, served)
        _write_card(model_card(facts), partial, card)
        _keep_what_records_need(manifest, partial)
        write_json(partial / ABOUT, result)
    _say(result)
    return result


def _check_difference(difference: float, what: str) -> None:
    if difference > TOLERANCE:
        raise RuntimeError(
            f"{what} has scores that differ from the model's by {difference:g}, expected at most "
            f"{TOLERANCE:g}"
        )


def _keep_what_records_need(manifest: Manifest, folder: Path) -> None:
    """Records that are made for the model later have to be of its features and classes."""
    keep_extractor(manifest, folder)
    if manifest.vocabulary:
        content = local_path(manifest.vocabulary).read_bytes()
        (folder / VOCABULARY).write_bytes(content)


def _payloads(manifest: Manifest) -> list[bytes]:
    """The first serialised records of validate."""
    shards = manifest.split("validate")
    every = itertools.chain.from_iterable(records.read_records(one.path) for one in shards)
    return [record.payload for record in itertools.islice(every, RECORDS_COMPARED)]


def _write_card(document: Document, folder: Path, card: str) -> None:
    html = as_html(document)
    (folder / CARD).write_text(html, encoding="utf-8")
    (folder / CARD).with_suffix(".md").write_text(as_markdown(document), encoding="utf-8")
    with atomic_file(card) as partial:
        partial.write_text(html, encoding="utf-8")


def _say(result: dict[str, Any]) -> None:
    say(
        "export",
        f"SavedModel of {result['bytes'] / 1e6:,.1f} MB; a fresh process without the project's "
        f"code scored {result['reloaded_records']} records within "
        f"{result['largest_difference']:.1g}",
    )
    if half := result.get("float16"):
        say(
            "export",
            f"float16 weights: GAP@20 {half['gap_float16']:.5f}, float32 {half['gap_float32']:.5f} "
            f"on {half['videos']:,} videos, a loss of {half['gap_loss']:.1g}",
        )
    if onnx := result.get("onnx"):
        say(
            "export",
            f"{onnx['file']} of {onnx['bytes'] / 1e6:,.1f} MB; onnxruntime scored "
            f"{onnx['records']} records within {onnx['largest_difference']:.1g} of the SavedModel",
        )


def _of_windows(network: keras.Model, payloads: list[bytes], step: int, top_k: int) -> Answers:
    """What the timelines of some frame-level records should say: of all their windows, in order."""
    windows = []
    for payload in payloads:
        video = records.parse(records.Record("validate", 0, 0, payload))
        count = min(video.num_frames, records.MAX_FRAMES)
        for start in range(0, count, step):
            part = slice(start, min(start + records.SEGMENT_FRAMES, count))
            window = dataclasses.replace(video, rgb=video.rgb[part], audio=video.audio[part])
            windows.append(records.encode(window))
    return top_predictions(network, records.FRAME, records.SEGMENT_FRAMES, windows, top_k)


def _cases(
    payloads: list[bytes],
    expected: Answers,
    level: records.Level,
    max_frames: int,
    windows: Answers | None,
) -> dict[str, Any]:
    """The arrays of `reload_check`'s CASES.

    Args:
        payloads: N serialised records.
        expected: of these.
        level: of the records.
        max_frames: frames used of a video.
        windows: expected of the windows of the first `TIMELINES_COMPARED`; None: no timelines.
    """
    # Read by this project's parser, not by the graph's.
    videos = [
        records.parse(records.Record("validate", index, 0, payload))
        for index, payload in enumerate(payloads[:FEATURES_COMPARED])
    ]
    features = features_of(videos, level, max_frames)
    cases = {
        "bytes": np.frombuffer(b"".join(payloads), np.uint8),
        "ends": np.cumsum([len(payload) for payload in payloads]),
        "classes": expected[0],
        "scores": expected[1],
        "features": FEATURES[level],
        **{f"{FEATURE}{name}": value for name, value in features.items()},
    }
    if windows is not None:
        cases["segments/records"] = min(TIMELINES_COMPARED, len(payloads))
        cases["segments/classes"], cases["segments/scores"] = windows
    return cases


def _reload(saved_model: Path, cases: dict[str, Any]) -> dict[str, Any]:
    """Score the cases in a fresh, isolated interpreter (`-I`: no project on its path)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cases.npz"
        np.savez(file, **cases)
        script = Path(__file__).with_name("reload_check.py")
        done = subprocess.run(
            [sys.executable, "-I", str(script), str(saved_model), str(file)],
            capture_output=True,
            text=True,
            cwd=folder,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"the export does not reload:\n{done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
