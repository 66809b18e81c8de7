"""The folder of a pass: the project's own files, and those of TensorFlow Metadata.

docs/statistics.md describes each.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.statistics.tensorflow_metadata import schema_text, statistics_list
from trainer import tfrecord
from trainer.config import StatisticsConfig
from trainer.files import atomic_directory, write_json
from trainer.manifest import SPLITS, Manifest
from trainer.statistics.anomalies import Earlier, find_anomalies, totals
from trainer.statistics.artifact import ANOMALIES, ARRAYS, STATISTICS, VERSION
from trainer.statistics.covariance import principal_components
from trainer.statistics.feature_statistics import FeatureStatistics, merged
from trainer.statistics.findings import Findings
from trainer.statistics.schema import Schema, infer_schema
from trainer.statistics.summary import arrays_of, summary_of
from trainer.vocabulary import Vocabulary

SCHEMA, BAD_RECORDS, COMPONENTS = "schema.yaml", "bad_records.jsonl", "pca.npz"
CLASSES = "classes.csv"
TFX_STATISTICS, TFX_SCHEMA = "stats.tfrecord", "schema.pbtxt"


def write_statistics(
    folder: str | os.PathLike[str],
    manifest: Manifest,
    findings: Findings,
    schema: Schema,
    config: StatisticsConfig,
    earlier: Earlier | None,
    bad_records: Path,
) -> None:
    """Write all files of a pass, or none.

    Args:
        folder: to write.
        manifest: of the data.
        findings: of the pass, of at least one record.
        schema: what was expected.
        config: thresholds.
        earlier: statistics to compare with.
        bad_records: file of all bad records, which is copied.
    """
    by_split = {**findings.by_split, "all": merged(findings.by_split.values())}
    splits = {split: summary_of(one) for split, one in by_split.items()}
    arrays = {
        f"{split}/{name}": values
        for split, one in by_split.items()
        for name, values in arrays_of(one).items()
    }
    anomalies = find_anomalies(manifest, findings, splits, arrays, schema, config, earlier)
    listed = [dataclasses.asdict(anomaly) for anomaly in anomalies]
    passed = all(anomaly.severity != "error" for anomaly in anomalies)
    facts = {
        "version": VERSION,
        "data_fingerprint": manifest.fingerprint,
        "source": manifest.source,
        "level": manifest.level,
        "num_classes": manifest.num_classes,
        "passed": passed,
        "splits": splits,
        "totals": totals(findings, arrays),
        "bad_records": {
            "total": findings.bad.total,
            "by_split": findings.bad.lost,
            "first": [dataclasses.asdict(one) for one in findings.bad.first],
        },
        "duplicate_ids": _duplicates(manifest, findings),
        "thresholds": dataclasses.asdict(config),
        "anomalies": listed,
    }
    inferred = infer_schema(manifest.level, manifest.num_classes, splits, facts["totals"])  # type: ignore[arg-type]
    vocabulary = manifest.read_vocabulary()
    with atomic_directory(folder) as partial:
        _save(partial / ARRAYS, arrays)
        if config.covariance:
            _save(partial / COMPONENTS, _components(findings.by_split))
        shutil.copyfile(bad_records, partial / BAD_RECORDS)
        _write_classes(partial / CLASSES, by_split, vocabulary)
        (partial / SCHEMA).write_text(inferred.to_yaml(), encoding="utf-8")
        (partial / TFX_SCHEMA).write_text(schema_text(inferred), encoding="utf-8")
        listing = statistics_list(by_split, vocabulary.names)
        tfrecord.write_records(partial / TFX_STATISTICS, [listing.SerializeToString()])
        write_json(partial / ANOMALIES, {"passed": passed, "anomalies": listed})
        write_json(partial / STATISTICS, facts)


def _write_classes(
    path: Path, by_split: dict[str, FeatureStatistics], vocabulary: Vocabulary
) -> None:
    """A line for each class: how many videos of each split carry it, and how it was rated."""
    columns = {split: one.labels.classes for split, one in by_split.items()}
    for split, one in by_split.items():
        if one.ratings.any():
            columns[f"{split} segments present"] = one.ratings[:, 1]
            columns[f"{split} segments absent"] = one.ratings[:, 0]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("class", "name", "verticals", *columns))
        counts = (column.tolist() for column in columns.values())
        rows = zip(vocabulary.names, vocabulary.verticals, *counts, strict=True)
        for index, (name, verticals, *videos) in enumerate(rows):
            writer.writerow((index, name, "; ".join(verticals), *videos))


def _save(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _components(by_split: Any) -> dict[str, NDArray[Any]]:
    """Of train, where there is one: what is fitted must not see what is scored."""
    split = "train" if "train" in by_split else next(iter(by_split))
    statistics: FeatureStatistics = by_split[split]
    found: dict[str, NDArray[Any]] = {"split": np.array(split)}
    for name, one in statistics.covariances.items():
        mean, covariance = one.mean_and_covariance()
        found[f"{name}/covariance"] = covariance
        for key, values in dataclasses.asdict(principal_components(mean, covariance)).items():
            found[f"{name}/{key}"] = values
    return found


def _duplicates(manifest: Manifest, findings: Findings) -> dict[str, Any]:
    duplicates = findings.duplicates
    return {
        "within": {SPLITS[split]: count for split, count in duplicates.within.items()},
        "across": {
            f"{SPLITS[one]}, {SPLITS[other]}": count
            for (one, other), count in duplicates.across.items()
        },
        "first": [
            {
                "id": name.decode(),
                "places": [
                    {"uri": manifest.shards[place.shard].uri, "record": place.record}
                    for place in places
                ],
            }
            for name, places in duplicates.first
        ],
    }
