"""What is wrong with a data set, judged by what a pass over it found."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.config import StatisticsConfig
from trainer.manifest import SPLITS, Manifest
from trainer.record_format import RGB_SIZE
from trainer.statistics.drift import Drift, drift
from trainer.statistics.findings import Findings
from trainer.statistics.schema import CHECKS, SEVERITIES, Schema
from trainer.statistics.summary import measures

_SHARDS_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Anomaly:
    """Something wrong with the data.

    Attributes:
        severity: info, warning, or error, which stops the pipeline.
        check: of the schema, the name of a threshold, or what was reconciled.
        description: where, what was found, what is expected, what to do.
    """

    severity: str
    check: str
    description: str


@dataclasses.dataclass(frozen=True)
class Earlier:
    """Statistics of an earlier run: where they are, summaries and arrays."""

    folder: str
    splits: Mapping[str, dict[str, Any]]
    arrays: Mapping[str, NDArray[Any]]


def find_anomalies(
    manifest: Manifest,
    findings: Findings,
    splits: Mapping[str, dict[str, Any]],
    arrays: Mapping[str, NDArray[Any]],
    schema: Schema,
    config: StatisticsConfig,
    earlier: Earlier | None = None,
) -> list[Anomaly]:
    """Everything wrong, the worst first.

    Args:
        manifest: what there should be.
        findings: what there is.
        splits: summaries by split.
        arrays: `<split>/<name>`.
        schema: what is expected.
        config: thresholds.
        earlier: to compare with.
    """
    found = [
        *_reconciled(manifest, findings, schema, config),
        *_against_schema(splits, schema),
        *_ids(findings, schema),
        *_classes(splits, arrays, schema),
        *_drifts(manifest, splits, arrays, config, earlier),
    ]
    return sorted(found, key=lambda one: -SEVERITIES.index(one.severity))


def totals(findings: Findings, arrays: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Measures of the whole data set."""
    return {
        "duplicate_ids": sum(findings.duplicates.within.values()),
        "leaked_ids": sum(findings.duplicates.across.values()),
        "classes_unseen": int(_unseen(arrays).sum()),
    }


def _reconciled(
    manifest: Manifest, findings: Findings, schema: Schema, config: StatisticsConfig
) -> Iterator[Anomaly]:
    if (manifest.level, manifest.num_classes) != (schema.level, schema.num_classes):
        yield Anomaly(
            "error",
            "schema",
            f"the data is of {manifest.level} level with {manifest.num_classes:,} classes, the "
            f"schema expects {schema.level} level with {schema.num_classes:,}",
        )
    stated_splits = {shard.split for shard in manifest.shards}
    for split in sorted(stated_splits | set(schema.splits), key=SPLITS.index):
        stated = manifest.records(split)
        statistics = findings.by_split.get(split)
        counted = statistics.records if statistics else 0
        lost = findings.bad.lost.get(split, 0)
        differing = list(_differing_shards(manifest, split, findings))
        if differing:
            bad = f" and {lost:,} bad ones" if lost else ""
            shards = (
                "1 shard differs" if len(differing) == 1 else f"{len(differing):,} shards differ"
            )
            yield Anomaly(
                "error",
                "manifest",
                f"{split}: {counted:,} records read{bad}, the manifest has {stated:,}; {shards} "
                f"({'; '.join(differing[:_SHARDS_NAMED])}): they have changed since it was made, "
                "or records were lost on the way",
            )
        elif counted + lost != stated:  # not in the shards, but in what was made of them
            yield Anomaly(
                "error",
                "manifest",
                f"{split}: the statistics hold {counted:,} records of {stated - lost:,} that were "
                "read: they were lost on the way",
            )
        elif not counted:
            yield Anomaly(
                "error", "splits", f"{split}: has no records{' that can be read' if lost else ''}"
            )
    stated = sum(shard.records for shard in manifest.shards)
    share = findings.bad.total / max(stated, 1)
    if findings.bad.total:
        severity = "error" if share > config.corrupt_share else "warning"
        yield Anomaly(
            severity,
            "statistics.corrupt_share",
            f"{findings.bad.total:,} of {stated:,} records are bad ({share:.2%}), "
            f"statistics.corrupt_share allows {config.corrupt_share:.2%}; the first: "
            f"{findings.bad.first[0]}",
        )


def _differing_shards(manifest: Manifest, split: str, findings: Findings) -> Iterator[str]:
    """What is said of each shard of which not every record was read or found bad."""
    stated = collections.Counter[str]()
    for shard in manifest.shards:
        if shard.split == split:
            stated[shard.uri] += shard.records
    for uri, expected in stated.items():
        counted, lost = findings.counted.get(uri, 0), findings.bad.by_shard.get(uri, 0)
        if counted + lost != expected:
            bad = f" and {lost:,} bad" if lost else ""
            yield f"{uri}: {counted:,}{bad} of {expected:,}"


def _against_schema(splits: Mapping[str, dict[str, Any]], schema: Schema) -> Iterator[Anomaly]:
    for split, summary in splits.items():
        if split == "all":
            continue
        for name, value in measures(summary).items():
            if split == "test" and name == "unlabelled_share":
                continue  # the public test split has no labels
            yield from _limited(schema, name, value, split, _advice(name, summary))
        unlabelled = summary["records_without_labels"]
        if split != "test" and unlabelled == summary["records"]:
            text = f"{split}: none of its {unlabelled:,} records has a label"
            yield Anomaly("error", "unlabelled_share", text)


def _advice(name: str, summary: Mapping[str, Any]) -> str:
    counts = {
        "unlabelled_share": ("records_without_labels", "records"),
        "no_id_share": ("records_without_id", "records"),
        "silent_audio_share": ("silent_audio", "records"),
        "unequal_lengths_share": ("unequal_lengths", "records; of each the shorter feature counts"),
        "single_frame_share": ("single_frame_videos", "records"),
    }
    if name not in counts:
        return ""
    key, words = counts[name]
    return f" ({summary[key]:,} {words})"


def _limited(schema: Schema, name: str, value: float, where: str, detail: str) -> Iterator[Anomaly]:
    check = schema.checks.get(name)
    if check is None:
        return
    if check.minimum is not None and value < check.minimum:
        expected = f"at least {check.minimum:g}"
    elif check.maximum is not None and value > check.maximum:
        expected = f"at most {check.maximum:.8g}"
    else:
        return
    shown = f"{value:.2%}" if name.endswith("_share") else f"{value:,.8g}"
    yield Anomaly(
        check.severity,
        name,
        f"{where}: {CHECKS[name][1]}: {shown}{detail}, the schema expects {expected}",
    )


def _ids(findings: Findings, schema: Schema) -> Iterator[Anomaly]:
    duplicates = findings.duplicates
    for name, counts, words in (
        ("duplicate_ids", {SPLITS[i]: n for i, n in duplicates.within.items()}, ""),
        (
            "leaked_ids",
            {f"{SPLITS[a]} and {SPLITS[b]}": n for (a, b), n in duplicates.across.items()},
            " (a score on one is worth nothing for what was learned on the other)",
        ),
    ):
        for where, count in counts.items():
            yield from _limited(schema, name, count, where, words)


def _unseen(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """bool [C], classes of validate that train has no example of."""
    if "train/labels" not in arrays or "validate/labels" not in arrays:
        return np.zeros(0, bool)
    unseen: NDArray[np.bool_] = (arrays["train/labels"] == 0) & (arrays["validate/labels"] > 0)
    return unseen


def _classes(
    splits: Mapping[str, dict[str, Any]], arrays: Mapping[str, NDArray[Any]], schema: Schema
) -> Iterator[Anomaly]:
    count = int(_unseen(arrays).sum())
    if count:
        # Whoever has few records has few classes, and knows it.
        of = splits["validate"]["classes_with_examples"]
        yield from _limited(schema, "classes_unseen", count, "validate", f" (of {of:,})")


def _drifts(
    manifest: Manifest,
    splits: Mapping[str, dict[str, Any]],
    arrays: Mapping[str, NDArray[Any]],
    config: StatisticsConfig,
    earlier: Earlier | None,
) -> Iterator[Anomaly]:
    names = manifest.read_vocabulary().names
    for comparison in comparisons(splits, arrays, earlier):
        yield from _drifted(comparison, config, names)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A split and what it is compared with.

    Attributes:
        where: both, in words.
        kind: `split` or `run`: how the thresholds' names start.
        apart: how far they are.
        labelled: whether both have labels to compare.
    """

    where: str
    kind: str
    apart: Drift
    labelled: bool


def comparisons(
    splits: Mapping[str, dict[str, Any]],
    arrays: Mapping[str, NDArray[Any]],
    earlier: Earlier | None,
) -> Iterator[Comparison]:
    """Each split but train with train, and each with the same of an earlier run."""
    for split, summary in splits.items():
        if "train" in splits and split not in ("train", "all"):
            apart = drift_between(splits, arrays, "train", splits, arrays, split)
            labelled = are_labelled(split, splits["train"], summary)
            yield Comparison(f"{split} against train", "split", apart, labelled)
    for split in splits:
        if earlier and split != "all" and split in earlier.splits:
            apart = drift_between(earlier.splits, earlier.arrays, split, splits, arrays, split)
            labelled = are_labelled(split, earlier.splits[split], splits[split])
            yield Comparison(f"{split} against {earlier.folder}", "run", apart, labelled)


def are_labelled(split: str, *summaries: Mapping[str, Any]) -> bool:
    """Whether labels can be compared: the public test split has none."""
    return split != "test" or all(summary["labels"] > 0 for summary in summaries)


def drift_between(
    one_splits: Mapping[str, dict[str, Any]],
    one: Mapping[str, NDArray[Any]],
    one_name: str,
    other_splits: Mapping[str, dict[str, Any]],
    other: Mapping[str, NDArray[Any]],
    other_name: str,
) -> Drift:
    """Of a split of one run against one of another, or of the same run."""
    names = ("histogram", "labels")
    return drift(
        {name: one[f"{one_name}/{name}"] for name in names},
        {name: other[f"{other_name}/{name}"] for name in names},
        (one_splits[one_name]["records"], other_splits[other_name]["records"]),
    )


def _drifted(
    comparison: Comparison, config: StatisticsConfig, names: Sequence[str]
) -> Iterator[Anomaly]:
    apart, where, kind = comparison.apart, comparison.where, comparison.kind
    for values, excess, what, threshold in (
        (apart.features, apart.feature_excess, "dimensions", f"{kind}_drift"),
        (np.abs(apart.labels), apart.label_excess, "classes", f"{kind}_label_drift"),
    ):
        if what == "classes" and not comparison.labelled:
            continue
        for severity in ("error", "warning"):
            name = f"{threshold}_{severity}"
            limit = getattr(config, name)
            beyond = np.flatnonzero(excess > limit)
            if not beyond.size:
                continue
            worst = beyond[np.argsort(-values[beyond], kind="stable")][:3].tolist()
            if what == "classes":
                said = ", ".join(f"{names[i]} {apart.labels[i]:+.3f}" for i in worst)
                text = f"shares of {beyond.size:,} classes differ (most: {said})"
            else:
                said = ", ".join(f"{dimension_name(i)} {values[i]:.3f}" for i in worst)
                text = (
                    f"{beyond.size:,} feature dimensions are distributed otherwise (most: {said})"
                )
            yield Anomaly(severity, f"statistics.{name}",
                          f"{where}: {text}, by more than statistics.{name}, {limit:g}, beyond "
                          "chance")  # fmt: skip
            break


def dimension_name(index: int) -> str:
    """`rgb[5]` or `audio[7]`, of 0 … 1,151."""
    return f"rgb[{index}]" if index < RGB_SIZE else f"audio[{index - RGB_SIZE}]"
