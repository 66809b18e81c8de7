"""The exact GAP of the weights of the moment, on the held-out shards."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from trainer.batches import Batch
from trainer.config import DataConfig
from trainer.distribution import Distribution
from trainer.evaluation import predictor, scores_of
from trainer.input_pipeline import evaluation_batches
from trainer.manifest import Manifest, Shard
from trainer.metrics import MetricsAccumulator, average_precision
from trainer.segment_evaluation import rated_windows, segment_videos


class Validator:
    """Scores the held-out shards with a twin of the model: float32, on one device of each worker.

    The twin is also what is delivered, so that what was validated is what is saved.

    Args:
        twin: of the same configuration as the model that is trained, without a strategy.
        manifest: of the data.
        shards: held out; each worker scores its share of their records.
        data: `max_frames`, and `segments`: then the metric is of the rated pairs.
        batch_size: videos at a time.
        distribution: of the training.
    """

    def __init__(
        self,
        twin: keras.Model,
        manifest: Manifest,
        shards: tuple[Shard, ...],
        data: DataConfig,
        batch_size: int,
        distribution: Distribution,
    ) -> None:
        self.twin, self.manifest, self.shards, self.data = twin, manifest, shards, data
        self.batch_size, self.distribution = batch_size, distribution
        self._predict = predictor(twin)

    def set_weights(self, model: keras.Model, averages: Iterable[Any] = ()) -> None:
        """Take over the weights of the model that is trained.

        Args:
            model: trained; its moving statistics are taken as they are.
            averages: of its trainable weights, in their order, to take in their place; or none.
        """
        trainable = {id(weight): value for weight, value in zip(model.trainable_weights, averages)}  # noqa: B905
        for weight, twin in zip(model.weights, self.twin.weights, strict=True):
            twin.assign(trainable.get(id(weight), weight.value).numpy())

    def batches(self) -> Generator[Batch]:
        """This worker's share of the held-out records."""
        return evaluation_batches(
            self.shards,
            self.manifest.level,
            self.manifest.num_classes,
            self.data,
            segment_videos(self.batch_size) if self.data.segments else self.batch_size,
            self.distribution.worker,
            self.distribution.workers,
        )

    def gap(self, interrupted: Callable[[], bool] = lambda: False) -> float | None:
        """GAP@20 of the twin's weights; of segments the average precision of all rated pairs.

        None without held-out shards, or if none of their records has a label.

        Args:
            interrupted: asked after each batch.

        Raises:
            InterruptedError: it was.
            InputError: a record that can not be read, or a score that is NaN.
        """
        if not self.shards:
            return None
        self._interrupted = interrupted
        return self._rated_gap() if self.data.segments else self._video_gap()

    def _scored(self) -> Iterator[tuple[NDArray[np.float32], Batch]]:
        for read in self.batches():
            if self._interrupted():
                raise InterruptedError
            batch = rated_windows(read) if self.data.segments else read
            if len(batch.labels):
                yield scores_of(self.twin, self._predict, batch), batch

    def _video_gap(self) -> float | None:
        metrics = MetricsAccumulator(self.manifest.num_classes)
        for scores, batch in self._scored():
            metrics.add(scores, batch.labels)
        arrays = {name: self.distribution.gather(one) for name, one in metrics.arrays().items()}
        metrics = MetricsAccumulator.of_arrays(self.manifest.num_classes, arrays)
        return metrics.result().gap if metrics.positives.any() else None

    def _rated_gap(self) -> float | None:
        pooled, hits = [np.zeros(0, np.float32)], [np.zeros(0, bool)]
        for scores, batch in self._scored():
            assert batch.weights is not None
            rated = batch.weights > 0
            pooled.append(scores[rated])
            hits.append(batch.labels[rated] > 0)
        score, hit = map(self.distribution.gather, (np.concatenate(pooled), np.concatenate(hits)))
        return average_precision(score, hit, int(hit.sum())) if hit.any() else None
