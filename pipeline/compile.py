"""`python -m pipeline.compile`: one file for Vertex AI, one for KFP on Kubernetes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp import compiler

from pipeline.check_spec import check_pipeline_file
from pipeline.parameters import CONFIGS, pipeline_parameters
from pipeline.targets.kubernetes import KubernetesTarget
from pipeline.targets.local import code_digest
from pipeline.targets.vertex import VertexTarget
from pipeline.training_pipeline import NAME, Target, build
from trainer.configuration_file import merged, parse_settings, read_configuration
from trainer.errors import InputError, reported
from trainer.files import atomic_file


def targets(image: str) -> dict[str, Target]:
    """The targets that need a file, by the suffix of its name.

    Args:
        image: repository and tag with `{kind}` where `cpu` or `gpu` goes.

    Raises:
        InputError: no `{kind}`, or no tag, or one that moves.
    """
    _, _, tag = image.rpartition("/")[2].partition(":")
    if "{kind}" not in image or image.count("{") != 1 or tag in ("", "latest"):
        raise InputError(
            f"image is {image!r}, expected a name with {{kind}} for cpu or gpu and a tag of one "
            "build (not latest: caches know an image by its name)"
        )
    cpu, gpu = (image.replace("{kind}", kind) for kind in ("cpu", "gpu"))
    return {
        "vertex": VertexTarget("vertex", cpu, gpu),
        "kubernetes": KubernetesTarget("kubernetes", cpu, cpu),
    }


def compile_target(target: Target, path: Path, defaults: dict[str, Any] | None = None) -> None:
    """Write one compiled pipeline and check it; `defaults` of its parameters replace its own."""
    with atomic_file(path) as partial:
        # KFP takes the format of the file's name.
        package = partial.with_suffix(".yaml")
        compiler.Compiler().compile(build(target), str(package), pipeline_parameters=defaults)
        check_pipeline_file(package)
        package.rename(partial)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build"), help="folder to write")
    parser.add_argument(
        "--image",
        default="",
        help="container image, {kind} stands for cpu or gpu; default: nextvlad-pipeline-{kind}:"
        "<digest of the code and its requirements>",
    )
    parser.add_argument("--config", default="", help="YAML file of the parameters' defaults")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", dest="settings",
        help="defaults of parameters, in place of the file's",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    image = options.image or f"nextvlad-pipeline-{{kind}}:{code_digest()}"
    with reported():
        configuration = read_configuration(options.config, CONFIGS) if options.config else {}
        defaults = pipeline_parameters(merged(configuration, parse_settings(options.settings)))
        for suffix, target in targets(image).items():
            path = options.output / f"{NAME}-{suffix}.yaml"
            compile_target(target, path, defaults)
            print(f"{path}  ({target.cpu_image}, {target.gpu_image})")


if __name__ == "__main__":
    main()
