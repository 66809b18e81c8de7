"""What is wrong with a data set, judged by its statistics and its manifest."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.manifest import Manifest
from trainer.statistics import Anomaly, FeatureStatistics


def find_anomalies(manifest: Manifest, by_split: Mapping[str, FeatureStatistics]) -> list[Anomaly]:
    """Compare the statistics with the manifest and with what can be trained on."""
    found = []
    for split in sorted({shard.split for shard in manifest.shards}):
        stated = manifest.records(split)
        statistics = by_split.get(split)
        counted = statistics.records if statistics else 0
        if counted != stated:
            found.append(
                Anomaly("error", f"{split}: {counted:,} records read, the manifest has {stated:,}")
            )
        if not statistics or not counted:
            continue
        unlabelled = int(statistics.labels_a_video[0])
        if split != "test" and unlabelled == counted:
            found.append(Anomaly("error", f"{split}: none of its {counted:,} records has a label"))
        elif split != "test" and unlabelled:
            found.append(Anomaly("warning", f"{split}: {unlabelled:,} records have no label"))
        if statistics.unequal_lengths:
            found.append(
                Anomaly(
                    "warning",
                    f"{split}: rgb and audio differ in length in {statistics.unequal_lengths:,} "
                    "records; the shorter one counts",
                )
            )
        constant = int((statistics.moments()["variance"] == 0).sum())
        if constant and counted > 1:
            found.append(Anomaly("warning", f"{split}: {constant} feature dimensions are constant"))
    if "train" in by_split and "validate" in by_split:
        unseen = (by_split["train"].labels == 0) & (by_split["validate"].labels > 0)
        if unseen.any():
            found.append(
                Anomaly(
                    "warning",
                    f"validate: {int(unseen.sum()):,} of its classes have no example in train",
                )
            )
    return found
