"""An exported model in Beam's RunInference."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apache_beam.ml.inference.base import ModelHandler

from components.download.bucket_folder import local_folder
from components.download.cloud_storage import SCHEME
from components.predict.scoring import Outcome, Settings, parse_window, score_window
from components.predict.windows import Window
from trainer.exported_model import ExportedModel
from trainer.files import BUCKETS
from trainer.records import Record


class ExportedModelHandler(ModelHandler[Record, Outcome, ExportedModel]):  # type: ignore[type-arg]
    """Scores records of shards, as they stand there, in any Beam pipeline.

    One outcome for each record, in the batch's order: `Predicted`, or `Refused` for one that is
    damaged or of the other level (an exception would be retried, and buried in the engine's own).

    Args:
        folder: of the export step: a path that every worker can read, or a `gs://` URI, of which
            each process has a copy for as long as it lives, where buckets are not mounted.
        settings: how; Beam makes batches of up to a window of records, of which those of like
            length share a call.
        min_batch_size: records that Beam waits for; how long a call takes decides between it and a
            window.
        share_model: one copy of the model for all processes of a machine, to which their records
            are sent: for a model that does not fit as often as there are processes, or an
            accelerator that one process alone can hold. Otherwise each process has its own.

    Example:
        records | RunInference(ExportedModelHandler("runs/<time>/serving_model"))
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: Settings | None = None,
        min_batch_size: int = 1,
        share_model: bool = False,
    ) -> None:
        self._uri, self._settings = _uri(os.fspath(folder)), settings or Settings()
        super().__init__(
            min_batch_size=min(min_batch_size, self._settings.window),
            max_batch_size=self._settings.window,
            large_model=share_model,
        )

    def load_model(self) -> ExportedModel:
        held = contextlib.ExitStack()
        folder = held.enter_context(local_folder(self._uri, "model"))
        # Not with this handler, which is gone before its model is.
        atexit.register(held.close)
        return ExportedModel(folder)

    def run_inference(
        self,
        batch: Sequence[Record],
        model: ExportedModel,
        inference_args: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> list[Outcome]:
        """The outcomes of N records, in their order."""
        # By their places in the batch, as records of several shards can share one.
        places = {(one.path, one.index): place for place, one in enumerate(batch)}
        parsed = parse_window(model, Window(records=list(batch)))
        outcomes = score_window(model, parsed, self._settings)
        return sorted(outcomes, key=lambda one: places[one.uri, one.record])

    def get_num_bytes(self, batch: Sequence[Record]) -> int:
        return sum(len(record.payload) for record in batch)

    def get_metrics_namespace(self) -> str:
        return "predict"


def _uri(folder: str) -> str:
    """The folder as other machines know it: by its bucket also if it is mounted here."""
    if folder.startswith(SCHEME):
        return folder
    path = Path(folder).absolute()
    if path.is_relative_to(BUCKETS):
        return f"{SCHEME}{path.relative_to(BUCKETS)}"
    return str(path)
