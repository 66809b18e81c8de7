"""`python -m pipeline.compile`: one file for Vertex AI, one for KFP on Kubernetes."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.statistics.engines import Dataflow, engine_options
from pipeline.compiled_file import compile_target
from pipeline.image_names import image_name
from pipeline.parameters import configured
from pipeline.targets.kubernetes import KubernetesTarget
from pipeline.targets.vertex import VertexTarget
from pipeline.training_pipeline import NAME, Target
from trainer.configuration_file import load_yaml
from trainer.errors import InputError, reported
from trainer.parameter import check_value, nearest


def targets(image: str, dataflow: Sequence[str] = ()) -> dict[str, Target]:
    """The targets that need a file, by the suffix of its name.

    Args:
        image: repository and tag with `{kind}` where `cpu` or `gpu` goes.
        dataflow: settings of `components.statistics.engines.Dataflow`, `name=value`, for the
            statistics step on Vertex AI; none: it runs in its own container.

    Raises:
        InputError: no `{kind}`, or no tag, or one that moves; a setting that can not be.
    """
    _, _, tag = image.rpartition("/")[2].partition(":")
    if "{kind}" not in image or image.count("{") != 1 or tag in ("", "latest"):
        raise InputError(
            f"image is {image!r}, expected a name with {{kind}} for cpu or gpu and a tag of one "
            "build (not latest: caches know an image by its name)"
        )
    cpu, gpu, workers = (image.replace("{kind}", kind) for kind in ("cpu", "gpu", "dataflow"))
    return {
        "vertex": VertexTarget("vertex", cpu, gpu, _dataflow_arguments(dataflow, workers)),
        "kubernetes": KubernetesTarget("kubernetes", cpu, cpu),
    }


def _dataflow_arguments(settings: Sequence[str], image: str) -> tuple[str, ...]:
    """Checked Beam options; none without settings."""
    if not settings:
        return ()
    fields = {field.name: field for field in dataclasses.fields(Dataflow)}
    kinds = typing.get_type_hints(Dataflow)
    values: dict[str, Any] = {"worker_image": image}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or name not in fields:
            raise InputError(
                f"dataflow setting {setting!r}: expected name=value of {', '.join(fields)}"
                f"{nearest(name, fields)}"
            )
        if name == "labels":
            parts = [part.partition(":") for part in text.split(",")]
            if not all(colon for _, colon, _ in parts):
                raise InputError(f"dataflow.labels is {text!r}, expected such as team:video,cost:7")
            values[name] = {key: value for key, _, value in parts}
        elif kinds[name] is str:
            values[name] = text
        else:
            values[name] = check_value(
                f"dataflow.{name}", fields[name], kinds[name], load_yaml(text)
            )
    missing = [name for name in ("project", "region", "temp_location") if name not in values]
    if missing:
        raise InputError(f"dataflow: {', '.join(missing)} is missing, expected such as project=p-1")
    arguments = Dataflow(**values).arguments()
    engine_options(arguments)
    return tuple(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build"), help="folder to write")
    parser.add_argument(
        "--image",
        default="",
        help="container image, {kind} stands for cpu, gpu or dataflow; default: the names that "
        "make images gives, nextvlad-pipeline-{kind}:<digest of what is in them>",
    )
    parser.add_argument("--config", default="", help="YAML file of the parameters' defaults")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", dest="settings",
        help="defaults of parameters, in place of the file's",
    )  # fmt: skip
    parser.add_argument(
        "--dataflow", nargs="*", default=[], metavar="NAME=VALUE",
        help="run the statistics step on Dataflow: project=… region=… temp_location=gs://…, and "
        "service_account, subnetwork, machine_type, max_workers, public_ips, labels=a:b,c:d",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    image = options.image or image_name("{kind}")
    with reported():
        defaults = configured(options.config, options.settings)
        for suffix, target in targets(image, options.dataflow).items():
            path = options.output / f"{NAME}-{suffix}.yaml"
            compile_target(target, path, defaults)
            print(f"{path}  ({target.cpu_image}, {target.gpu_image})")


if __name__ == "__main__":
    main()
