"""Hyperparameter tuning: trials of `trainer.task` on the data of a finished run.

https://cloud.google.com/vertex-ai/docs/training/using-hyperparameter-tuning
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1.types import JobState, StudySpec
from google.protobuf import duration_pb2

from pipeline.targets.vertex import VertexTarget, seconds_of_hours
from pipeline.vertex.following import steps_of
from pipeline.vertex.jobs import Jobs, check_display_name, job_client
from pipeline.vertex.prices import Prices
from pipeline.vertex.running import artifacts_of, parameters_of
from trainer.config import FLAT, Config, run_config
from trainer.configuration_file import OVERRIDES
from trainer.errors import InputError
from trainer.flags import FlagParser, add_flags, flag_overrides
from trainer.progress import duration

METRIC = "holdout_gap"
"""GAP@20 on the train shards that are held out; `validate` is not touched by the choice."""
_ENDED = (
    JobState.JOB_STATE_SUCCEEDED,
    JobState.JOB_STATE_PARTIALLY_SUCCEEDED,
    JobState.JOB_STATE_FAILED,
    JobState.JOB_STATE_CANCELLED,
    JobState.JOB_STATE_EXPIRED,
)
_RANGE = re.compile(r"(?P<least>[^.:,]+(?:\.\d+)?[^.:,]*)\.\.(?P<most>[^:,]+)(?::(?P<scale>\w+))?")
_SCALES = {
    "": StudySpec.ParameterSpec.ScaleType.UNIT_LINEAR_SCALE,
    "linear": StudySpec.ParameterSpec.ScaleType.UNIT_LINEAR_SCALE,
    "log": StudySpec.ParameterSpec.ScaleType.UNIT_LOG_SCALE,
    "reverse_log": StudySpec.ParameterSpec.ScaleType.UNIT_REVERSE_LOG_SCALE,
}


@dataclasses.dataclass(frozen=True)
class Study:
    """What is tried.

    Attributes:
        name: of the job.
        space: `name=values`: `learning_rate=1e-4..1e-2:log`, `cluster_size=64,128,256`.
        trials: in all.
        parallel: at once.
    """

    name: str
    space: Sequence[str]
    trials: int = 20
    parallel: int = 2


def parameter_specs(space: Sequence[str]) -> list[StudySpec.ParameterSpec]:
    """The search space, each value checked against its parameter's type and range.

    Raises:
        InputError: no such parameter, no such values, or nothing to search.
    """
    found = []
    for setting in space:
        name, _, text = setting.partition("=")
        if not text:
            raise InputError(
                f"TUNE {setting!r}: expected name=least..most, with :log for a logarithmic scale, "
                "or name=a,b,c"
            )
        found.append(_spec(name, text))
    if not found:
        raise InputError('TUNE is missing, expected such as TUNE="learning_rate=1e-4..1e-2:log"')
    names = [one.parameter_id for one in found]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"TUNE {name}: stands there twice")
    return found


def _spec(name: str, text: str) -> StudySpec.ParameterSpec:
    try:
        return _checked_spec(name, text)
    except InputError:
        raise
    except (ValueError, OverflowError):
        raise InputError(f"TUNE {name}: {text[:60]}: a number is too large") from None


def _checked_spec(name: str, text: str) -> StudySpec.ParameterSpec:
    if not text.strip(", "):
        raise InputError(f"TUNE {name}: {text!r}: expected values")
    spec = StudySpec.ParameterSpec
    if match := _RANGE.fullmatch(text):
        scale = _SCALES.get(match["scale"] or "")
        if scale is None:
            raise InputError(
                f"TUNE {name}: scale {match['scale']!r}: expected one of "
                f"{', '.join(filter(None, _SCALES))}"
            )
        least, most = _value(name, match["least"]), _value(name, match["most"])
        if not _are_numbers((least, most)) or least >= most:
            raise InputError(f"TUNE {name}: {text}: expected two numbers, the smaller one first")
        if "log" in (match["scale"] or "") and least <= 0:
            raise InputError(f"TUNE {name}: {text}: a logarithmic scale starts above 0")
        kind = spec.IntegerValueSpec if isinstance(least, int) else spec.DoubleValueSpec
        field = "integer_value_spec" if isinstance(least, int) else "double_value_spec"
        return spec(
            parameter_id=name, scale_type=scale, **{field: kind(min_value=least, max_value=most)}
        )
    values = [_value(name, one) for one in text.split(",") if one]
    if _are_numbers(values):
        return spec(
            parameter_id=name,
            scale_type=_SCALES[""],
            discrete_value_spec=spec.DiscreteValueSpec(values=sorted(set(map(float, values)))),
        )
    words = [one.strip() for one in text.split(",") if one.strip()]
    return spec(parameter_id=name, categorical_value_spec=spec.CategoricalValueSpec(values=words))


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(type(one) in (int, float) for one in values)


def _value(name: str, text: str) -> Any:
    """A value as the trainer takes it from its flag."""
    parser = FlagParser()
    add_flags(parser)
    try:
        overrides = flag_overrides(parser.parse([f"--{name}={text.strip()}"]))
        config = Config().updated(overrides)
    except InputError as error:
        raise InputError(f"TUNE {name}: {error}") from None
    ((section, values),) = overrides.items()
    return getattr(getattr(config, section), next(iter(values)))


def trainer_arguments(job: Any, settings: Mapping[str, Any]) -> list[str]:
    """The trainer's command line for the data and the parameters of a finished run.

    Vertex AI adds the trial's own flags behind it, and says where its output goes by AIP_MODEL_DIR
    and AIP_CHECKPOINT_DIR.

    Args:
        job: of the run.
        settings: configuration in place of the run's, as `parse_settings` has it.

    Raises:
        InputError: the run has no examples or statistics, or nothing is held out to judge by.
    """
    places = artifacts_of(job)
    for name in ("examples", "example_statistics"):
        if name not in places:
            raise InputError(
                f"run {job.name.rpartition('/')[2]}: has no {name}, expected a run whose "
                f"statistics step is done (it has {', '.join(steps_of(job)) or 'no step'})"
            )
    parameters = parameters_of(job, settings)
    flat = {name: parameters[name] for name in FLAT}
    config = run_config(parameters[OVERRIDES], **flat)
    if not config.data.holdout_shards:
        raise InputError(
            f"data.holdout_shards is 0: {METRIC} is of train shards that are held out, expected at "
            "least 1 (SET=data.holdout_shards=1)"
        )
    arguments = ["--examples", places["examples"], "--statistics", places["example_statistics"]]
    overrides: dict[str, dict[str, Any]] = json.loads(parameters[OVERRIDES])
    for name, value in flat.items():
        section, field = FLAT[name]
        overrides.setdefault(section, {})[field] = value
    # A baseline is no part of the choice; its time is not to be paid for in each trial.
    overrides.setdefault("training", {})["baseline"] = ""
    return [*arguments, "--overrides", json.dumps(overrides, sort_keys=True)]


def check_study(study: Study) -> list[StudySpec.ParameterSpec]:
    """The search space of a study that can be.

    Raises:
        InputError: as `parameter_specs`, or a name or numbers that can not be.
    """
    check_display_name(study.name)
    if not 1 <= study.parallel <= study.trials:
        raise InputError(
            f"PARALLEL is {study.parallel}, expected 1 to TRIALS, which is {study.trials}"
        )
    return parameter_specs(study.space)


def plan_text(
    target: VertexTarget, study: Study, prices: Prices, hours: float | None = None
) -> str:
    """What the trials will cost, each on a machine of its own."""
    settings = target.settings
    count = settings.accelerators if settings.accelerator else 0
    rate = prices.machine_hour(
        settings.machine, settings.accelerator, count, settings.spot, settings.disk_gb
    )
    machine = settings.machine + (f" + {count} × {settings.accelerator}" if count else "")
    machine += " spot" if settings.spot else ""
    lines = [f"{study.trials} trials, {study.parallel} at once, each on {machine}"]
    if rate is None:
        return f"{lines[0]}\nWithout a price in {prices.path}."
    if hours is not None:
        likely = rate * hours * study.trials
        lines.append(f"expected     {likely:,.2f} {prices.currency}, of {hours:g} h a trial")
    most = rate * settings.train_hours * study.trials
    lines.append(
        f"never above  {most:,.2f} {prices.currency}: {rate:,.2f} an hour, a trial is ended after "
        f"{settings.train_hours:g} h"
    )
    lines.append(f"List prices of {prices.region} of {prices.date}.")
    return "\n".join(lines)


def start(
    jobs: Jobs, target: VertexTarget, study: Study, arguments: Sequence[str]
) -> aiplatform_v1.HyperparameterTuningJob:
    """Start the trials.

    Raises:
        InputError: a study that can not be, or Vertex AI refuses.
    """
    specs = check_study(study)
    settings, home = target.settings, target.home
    machine: dict[str, Any] = {"machine_type": settings.machine}
    if settings.accelerator:
        machine |= {
            "accelerator_type": settings.accelerator,
            "accelerator_count": settings.accelerators,
        }
    pool = {
        "machine_spec": machine,
        "replica_count": 1,
        "container_spec": {
            "image_uri": target.image("train"),
            "command": ["python3", "-m", "trainer.task"],
            "args": list(arguments),
        },
        "disk_spec": {"boot_disk_type": "pd-ssd", "boot_disk_size_gb": settings.disk_gb},
    }
    seconds = seconds_of_hours(settings.train_hours)
    job = aiplatform_v1.HyperparameterTuningJob(
        display_name=study.name,
        study_spec={
            "metrics": [{"metric_id": METRIC, "goal": "MAXIMIZE"}],
            "parameters": specs,
        },
        max_trial_count=study.trials,
        parallel_trial_count=study.parallel,
        max_failed_trial_count=max(3, study.trials // 4),
        trial_job_spec={
            "worker_pool_specs": [pool],
            "scheduling": {
                "timeout": duration_pb2.Duration(seconds=seconds),
                "strategy": "SPOT" if settings.spot else "STANDARD",
            },
            "service_account": home.service_account,
            "network": home.network,
            "base_output_directory": {"output_uri_prefix": f"{home.root}/tuning/{study.name}"},
        },
        labels=target.labels(),
        encryption_spec={"kms_key_name": home.kms_key} if home.kms_key else None,
    )
    client = job_client()
    parent = f"projects/{home.project}/locations/{home.region}"

    def known() -> Any:
        listed = client.list_hyperparameter_tuning_jobs(
            request={"parent": parent, "filter": f'display_name="{study.name}"'}
        )
        return next(iter(listed), None)

    def create() -> Any:
        # Its id is Google's, so what became of a lost answer is looked for by the name.
        return known() or client.create_hyperparameter_tuning_job(
            parent=parent, hyperparameter_tuning_job=job
        )

    if jobs.ask(f"tuning job {study.name}", known):
        raise InputError(f"tuning job {study.name}: there is one already, give another name")
    return jobs.ask(f"tuning job {study.name}", create)  # type: ignore[no-any-return]


def follow(jobs: Jobs, name: str, poll_seconds: float = 30.0) -> Any:
    """The job when it has ended; a line for each trial that has.

    Raises:
        InputError: it ended without an answer.
    """
    client, said = job_client(), set()

    def look() -> Any:
        return client.get_hyperparameter_tuning_job(name=name)

    while True:
        job = jobs.ask(f"tuning job {name}", look)
        for trial in job.trials:
            if trial.id not in said and trial.state.name in ("SUCCEEDED", "INFEASIBLE", "STOPPED"):
                said.add(trial.id)
                print(f"  {trial_line(trial)}", flush=True)
        if job.state in _ENDED:
            break
        time.sleep(poll_seconds)
    if not (done := ranked(job)):
        words = " ".join(job.error.message.split()) or job.state.name
        raise InputError(f"tuning job {job.display_name}: no trial has a result: {words}")
    best = done[0]
    print(f"\nbest of {len(done)}: {trial_line(best)}")
    chosen = " ".join(
        f"{setting_name(one.parameter_id)}={_text(one.value)}" for one in best.parameters
    )
    print(f'take it: make pipeline-run TARGET=vertex … SET="{chosen}"')
    return job


def setting_name(flag: str) -> str:
    """The name in a configuration or in SET of a parameter that the trainer has a flag for."""
    parser = FlagParser()
    add_flags(parser)
    full = parser._option_string_actions[f"--{flag}"].dest
    section, _, field = full.partition(".")
    flat = [name for name, place in FLAT.items() if place == (section, field)]
    return flat[0] if flat else full


def ranked(job: Any) -> list[Any]:
    """Trials with a result, the best first."""
    done = [one for one in job.trials if one.state.name == "SUCCEEDED" and _metric(one) is not None]
    return sorted(done, key=lambda one: -(_metric(one) or 0.0))


def trial_line(trial: Any) -> str:
    """A trial in words: number, result, time, parameters."""
    value = _metric(trial)
    result = f"{METRIC} {value:.4f}" if value is not None else trial.state.name.lower()
    took = ""
    if trial.start_time and trial.end_time:
        took = f" in {duration((trial.end_time - trial.start_time).total_seconds())}"
    chosen = ", ".join(f"{one.parameter_id} {_text(one.value)}" for one in trial.parameters)
    return f"trial {trial.id}: {result}{took}: {chosen}"


def _metric(trial: Any) -> float | None:
    metrics = trial.final_measurement.metrics
    return next((one.value for one in metrics if one.metric_id == METRIC), None)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:.6g}"
    return str(value)
