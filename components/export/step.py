"""Export the trained model, and prove that the export answers as the model does."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from trainer import records
from trainer.config import Config, ModelConfig
from trainer.evaluation import trained_config
from trainer.export import any_frames, export_model, top_predictions
from trainer.files import atomic_directory, write_json
from trainer.inference_model import inference_model
from trainer.manifest import read_manifest
from trainer.models import load_model
from trainer.progress import say
from trainer.training import MODEL

TOLERANCE = 1e-5
"""Largest difference of a score between the trained model and its export."""
RECORDS_COMPARED = 1024
"""Or all, if there are fewer."""


def run_export(
    examples: str, trained_model: str, config: Config, serving_model: str
) -> dict[str, Any]:
    """Write `saved_model/` and `export.json` below `serving_model`.

    Args:
        examples: folder of the manifest; gives the label map and the records to compare on.
        trained_model: folder of the train step.
        config: `export` is used.
        serving_model: folder to write.

    Returns:
        The content of `export.json`.

    Raises:
        InputError: a model that does not fit the data.
        RuntimeError: the export's scores differ from the model's.
    """
    manifest = read_manifest(examples)
    trained = trained_config(trained_model, manifest)
    max_frames = trained["data"]["max_frames"]
    vocabulary = manifest.read_vocabulary()
    model = load_model(Path(trained_model) / MODEL)
    whole, segment_step = model, None
    if manifest.level == records.FRAME:
        # It scores whole videos and windows, whichever of them it was trained on.
        whole = any_frames(model, ModelConfig(**trained["model"]), vocabulary)
        segment_step = config.export.segment_step
        if trained["data"].get("segments"):
            model = whole
    top_k = min(config.export.top_k, manifest.num_classes)
    shards = manifest.split("validate")
    payloads = [
        record.payload
        for record in itertools.islice(
            itertools.chain.from_iterable(records.read_records(s.path) for s in shards),
            RECORDS_COMPARED,
        )
    ]
    classes, scores = top_predictions(model, manifest.level, max_frames, payloads, top_k)
    with atomic_directory(serving_model) as partial:
        saved_model = partial / "saved_model"
        served = inference_model(whole, max_frames)
        export_model(
            served, manifest.level, max_frames, vocabulary, top_k, saved_model, segment_step,
        )  # fmt: skip
        checked = _reload(saved_model, payloads, classes, scores)
        if checked["largest_difference"] > TOLERANCE:
            raise RuntimeError(
                "the export's scores differ from the model's by "
                f"{checked['largest_difference']:g}, expected at most {TOLERANCE:g}"
            )
        result = {
            "signature": "serving_default",
            "top_k": top_k,
            "level": manifest.level,
            "max_frames": max_frames,
            "num_classes": manifest.num_classes,
            "vocabulary_digest": manifest.vocabulary_digest(),
            "data_fingerprint": manifest.fingerprint,
            "bytes": sum(f.stat().st_size for f in saved_model.rglob("*") if f.is_file()),
            "reloaded_records": checked["records"],
            "largest_difference": checked["largest_difference"],
        }
        write_json(partial / "export.json", result)
    say(
        "export",
        f"SavedModel of {result['bytes'] / 1e6:,.1f} MB; a fresh process without the project's "
        f"code scored {checked['records']} records within {checked['largest_difference']:.1g}",
    )
    return result


def _reload(
    saved_model: Path, payloads: list[bytes], classes: np.ndarray, scores: np.ndarray
) -> dict[str, Any]:
    """Score the records in a fresh, isolated interpreter (`-I`: no project on its path)."""
    with tempfile.TemporaryDirectory() as folder:
        cases = Path(folder) / "cases.npz"
        np.savez(
            cases,
            bytes=np.frombuffer(b"".join(payloads), np.uint8),
            ends=np.cumsum([len(payload) for payload in payloads]),
            classes=classes,
            scores=scores,
        )
        script = Path(__file__).with_name("reload_check.py")
        done = subprocess.run(
            [sys.executable, "-I", str(script), str(saved_model), str(cases)],
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
