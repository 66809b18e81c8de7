"""Run the DAG on a cluster and leave the folder that a local run leaves."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.download.bucket_folder import in_bucket, local_folder
from components.publish.step import RESULTS, results_of
from pipeline.clusters.endpoint import Endpoint
from pipeline.clusters.following import WELL, Following, NotStartedError, Pace
from pipeline.compiled_file import compile_target
from pipeline.console import Console
from pipeline.name_values import listed, named_values, pairs
from pipeline.report import Run, write_report
from pipeline.run_folder import new_run_folder
from pipeline.targets.kubernetes import STEP_TIMEOUT_SECONDS, KubernetesTarget, volumes_of
from pipeline.training_pipeline import NAME, PUBLISH
from trainer.errors import InputError
from trainer.files import read_json, write_json
from trainer.parameter import parameter

EXPERIMENT = "nextvlad"


@dataclasses.dataclass(frozen=True)
class PodSettings:
    """What KFP="name=value …" may set of the pods of a cluster.

    Attributes:
        gpus: for the train step, in the gpu image.
        gpu_resource: by which name the cluster offers them.
        volumes: `claim:/folder,claim:/folder`, that every step sees.
        google_secret: secret whose `key.json` is a service account's key, for buckets.
        pull_secrets: `name,name`, for a private registry.
        node_labels: `key:value,key:value`, that a node has to have.
        annotations: `key:value,key:value`, of the pods.
        timeout_seconds: of a step.
        start_seconds: until a step's container must have started.
    """

    gpus: int = parameter(0, "for the train step", minimum=0)
    gpu_resource: str = "nvidia.com/gpu"
    volumes: str = ""
    google_secret: str = ""
    pull_secrets: str = ""
    node_labels: str = ""
    annotations: str = ""
    timeout_seconds: int = parameter(STEP_TIMEOUT_SECONDS, "of a step", minimum=1)
    start_seconds: int = parameter(1200, "until a step's container must have started", minimum=1)

    def target(self, name: str, image: str, caching: bool = True, **more: Any) -> KubernetesTarget:
        """The target on these images (`{kind}` stands for cpu or gpu)."""
        cpu = image.replace("{kind}", "cpu")
        return KubernetesTarget(
            name, cpu, image.replace("{kind}", "gpu") if self.gpus else cpu,
            caching=caching, gpus=self.gpus, gpu_resource=self.gpu_resource,
            google_secret=self.google_secret, pull_secrets=tuple(listed(self.pull_secrets)),
            node_labels=tuple(pairs("node label", self.node_labels).items()),
            annotations=tuple(pairs("annotation", self.annotations).items()),
            timeout_seconds=self.timeout_seconds,
            **{"volumes": volumes_of(listed(self.volumes))} | more,
        )  # fmt: skip


def pod_settings(settings: Sequence[str]) -> PodSettings:
    """Checked settings, from `name=value`.

    Raises:
        InputError: an unknown name, or a value of another type.
    """
    return PodSettings(**named_values("KFP", PodSettings, settings))


def run_on_cluster(
    endpoint: Endpoint,
    target: KubernetesTarget,
    parameters: Mapping[str, Any],
    runs: Path,
    experiment: str = EXPERIMENT,
    pace: Pace | None = None,
    watch: Callable[[str, str], None] | None = None,
) -> Run | None:
    """Submit the DAG, follow it to its end, and write the run's folder.

    Args:
        endpoint: of the cluster's KFP.
        target: images and pod settings.
        parameters: of the pipeline, checked, all of them.
        runs: folder of runs; a new one is made below it.
        experiment: by its name.
        pace: how often to look.
        watch: called with the run's id and state at each look.

    Returns:
        The run; None: it ended well, and its results are in the cluster's own store alone.

    Raises:
        InputError: a step failed, the run was ended by somebody, or its results can not be had.
    """
    start = time.monotonic()
    folder = new_run_folder(runs)
    write_json(folder / "parameters.json", dict(parameters))
    package = folder / "pipeline.yaml"
    compile_target(target, package)
    name = f"{NAME} {folder.name} {uuid.uuid4().hex[:6]}"
    facts = {"host": endpoint.host, "name": name, "run_id": ""}
    try:
        facts["run_id"] = run_id = endpoint.submit(package, name, parameters, experiment)
        write_json(folder / "kfp.json", facts)
        print(f"run {folder}\n    {endpoint.pages}/#/runs/details/{run_id}", flush=True)
        with Console(sys.stdout, folder / "pipeline.log") as console:
            following = Following(endpoint, run_id, console, pace, watch)
            ended = following.to_the_end()
    except KeyboardInterrupt:
        print(f"\ninterrupted: {_goes_on(facts)}")
        raise SystemExit(130) from None
    except NotStartedError:
        raise
    except InputError as error:
        if not facts["run_id"]:
            raise
        raise InputError(f"{error}; {_goes_on(facts)}") from None
    state = str(ended.state).upper()
    write_json(folder / "kfp.json", facts | {"state": state, "from_cache": console.cached})
    if state not in WELL:
        if following.terminated:
            raise InputError(f"run {run_id} was terminated (log: {folder / 'pipeline.log'})")
        raise console.failure(f"run {run_id} ended as {state}")
    destination = str(parameters["destination"])
    if not destination or ("://" not in destination and not Path(destination).is_dir()):
        return None
    results = fetch_results(destination, run_id, folder)
    run = Run(
        folder=folder,
        parameters=dict(parameters),
        seconds={k: v for k, v in console.seconds.items() if k != PUBLISH},
        artifacts=_artifacts(results, folder),
        reason=results["reason"],
        blessed=results["blessed"],
        wall_seconds=time.monotonic() - start,
    )
    write_report(run)
    return run


def _goes_on(facts: Mapping[str, str]) -> str:
    """What becomes of a run that is not followed any more."""
    run_id = facts["run_id"]
    if not run_id:
        return f"make kfp-runs shows whether {facts['name']} was started"
    return (
        f"run {run_id} goes on. make kfp-follow RUN={run_id} shows it, "
        f"make kfp-terminate RUN={run_id} ends it"
    )


def fetch_results(destination: str, run_id: str, folder: Path) -> dict[str, Any]:
    """Have what the publish step copied below a run's folder: by links, or copied from a bucket.

    Raises:
        InputError: it is not there, or not whole.
    """
    place = results_of(destination, run_id)
    if in_bucket(destination):
        with local_folder(place, "results") as fetched:
            results = _proved(fetched, place)
            for name in results["artifacts"]:
                shutil.copytree(fetched / name, folder / name)
        return results
    results = _proved(Path(place), place)
    for name in results["artifacts"]:
        (folder / name).symlink_to(Path(place) / name)
    return results


def _proved(folder: Path, place: str) -> dict[str, Any]:
    results: dict[str, Any] = read_json(folder / RESULTS)
    if not isinstance(results, dict) or not isinstance(results.get("files"), dict):
        raise InputError(f"results {place}: {RESULTS} is not what the publish step writes")
    for name, size in results["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise InputError(f"results {place}: {name} is not there whole, expected {size:,} bytes")
    return results


def _artifacts(results: Mapping[str, Any], folder: Path) -> dict[str, str]:
    names = ("examples", "example_statistics", "trained_model", "evaluation", "serving_model")
    return {name: str(folder / name) if name in results["artifacts"] else "" for name in names}
