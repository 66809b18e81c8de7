"""One pass over every record: numbers, what is wrong with them, and a page about both."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from components.statistics.beam_pass import run_pass
from components.statistics.engines import engine_options
from components.statistics.report import statistics_page
from components.statistics.write import write_statistics
from trainer.config import StatisticsConfig
from trainer.errors import InputError
from trainer.files import atomic_file, local_path
from trainer.manifest import Manifest, read_manifest
from trainer.progress import say
from trainer.statistics.anomalies import Earlier
from trainer.statistics.artifact import read_statistics
from trainer.statistics.schema import Schema, default_schema, read_schema

_MOST_SAID = 100


def run_statistics(
    examples: str,
    example_statistics: str,
    report: str,
    beam_pipeline_args: list[str],
    config: StatisticsConfig | None = None,
) -> dict[str, Any]:
    """Read every record of the manifest; write statistics and the HTML report.

    Args:
        examples: folder of the manifest.
        example_statistics: folder to write, see `components.statistics.write`.
        report: HTML file to write.
        beam_pipeline_args: options of the engine; none: Beam's own, on this machine.
        config: what to compute and what stops a run.

    Returns:
        The content of `statistics.json`.

    Raises:
        InputError: an anomaly of severity error: both outputs are written all the same, to look at,
            and say that the data did not pass. Or nothing could be counted: then neither is.
    """
    config = config or StatisticsConfig()
    manifest = read_manifest(examples)
    schema = _schema(manifest, config)
    earlier = _earlier(manifest, config)
    size = sum(shard.bytes for shard in manifest.shards)
    options = engine_options(beam_pipeline_args, size)
    names = manifest.read_vocabulary().names  # before hours of reading, not after
    if len(names) != manifest.num_classes:
        raise InputError(
            f"{manifest.vocabulary}: names {len(names):,} classes, expected "
            f"{manifest.num_classes:,}"
        )
    with tempfile.TemporaryDirectory() as scratch:
        bad_records = Path(scratch) / "bad_records.jsonl"
        findings = run_pass(manifest, options, config.covariance, str(bad_records))
        for number, bad in enumerate(findings.bad.first):
            say("statistics", f"bad record {number + 1} ({findings.bad.total:,} are lost): {bad}")
        if not findings.by_split:
            raise InputError(f"{manifest.source}: {_nothing(manifest, findings.bad.total)}")
        write_statistics(
            example_statistics, manifest, findings, schema, config, earlier, bad_records
        )
    statistics = read_statistics(example_statistics, manifest.fingerprint, failed=True)
    with atomic_file(report) as partial:
        partial.write_text(statistics_page(manifest, statistics, earlier), encoding="utf-8")
    facts = statistics.facts
    _say_result(facts)
    if not facts["passed"]:
        severe = [one["description"] for one in facts["anomalies"] if one["severity"] == "error"]
        more = f"; and {len(severe) - 3} more" if len(severe) > 3 else ""
        raise InputError(
            f"{manifest.source}: the data did not pass: {'; '.join(severe[:3])}{more}. All is in "
            f"{Path(example_statistics) / 'anomalies.json'} and {report}"
        )
    return facts


def _schema(manifest: Manifest, config: StatisticsConfig) -> Schema:
    if config.schema:
        return read_schema(local_path(config.schema))
    splits = {shard.split for shard in manifest.shards}
    return default_schema(manifest.level, manifest.num_classes, splits)


def _earlier(manifest: Manifest, config: StatisticsConfig) -> Earlier | None:
    if not config.baseline:
        return None
    found = read_statistics(local_path(config.baseline), failed=True)
    theirs = (found.facts["level"], found.facts["num_classes"])
    if theirs != (manifest.level, manifest.num_classes):
        raise InputError(
            f"statistics.baseline {config.baseline} is of {theirs[0]} level with {theirs[1]:,} "
            f"classes, expected {manifest.level} level with {manifest.num_classes:,}"
        )
    return Earlier(config.baseline, found.splits, found.arrays)


def _nothing(manifest: Manifest, bad: int) -> str:
    stated = sum(shard.records for shard in manifest.shards)
    return f"no record can be read: {bad:,} of {stated:,} are bad, expected some that are not"


def _say_result(facts: dict[str, Any]) -> None:
    whole = facts["splits"]["all"]
    anomalies = facts["anomalies"]
    counts = {
        severity: sum(one["severity"] == severity for one in anomalies)
        for severity in ("error", "warning")
    }
    agree = all(one["check"] != "manifest" for one in anomalies)
    says = "counts agree with the manifest" if agree else "counts differ from the manifest"
    words = ", ".join(f"{n} {s}{'' if n == 1 else 's'}" for s, n in counts.items())
    say("statistics", f"read {whole['records']:,} records, {whole['frames']:,} frames: {says}, "
        f"{words}")  # fmt: skip
    for one in anomalies[:_MOST_SAID]:
        say("statistics", f"{one['severity']}: {one['description']}")
