"""Tiny exported models, as the export step writes them."""

import json

from tests.conftest import TINY_MODEL
from trainer.config import ModelConfig
from trainer.export import export_model
from trainer.inference_model import inference_model
from trainer.models import build_model
from trainer.vocabulary import Vocabulary

MODELS = {"frame": "nextvlad", "video": "mlp"}


def facts(level, vocabulary, top_k, frames):
    """What `export.json` has at least."""
    return {
        "level": level, "top_k": top_k, "num_classes": vocabulary.num_classes,
        "max_frames": frames, "data_fingerprint": "f", "vocabulary_digest": vocabulary.digest,
    }  # fmt: skip


def vocabulary_of(classes):
    return Vocabulary(
        tuple(f"näme {i}" for i in range(classes)), tuple((f"v{i % 3}",) for i in range(classes))
    )


def write_export(folder, level, classes, top_k, frames, name=None):
    """A model with random weights; returns it, in memory, as it is served."""
    config = ModelConfig(**TINY_MODEL | {"name": name or MODELS[level]})
    model = inference_model(build_model(config, classes, level))
    vocabulary = vocabulary_of(classes)
    step = 3 if level == "frame" else None
    export_model(model, level, frames, vocabulary, top_k, folder / "saved_model", step)
    about = facts(level, vocabulary, top_k, frames)
    (folder / "export.json").write_text(json.dumps(about))
    return model
