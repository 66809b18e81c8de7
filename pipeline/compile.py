"""`python -m pipeline.compile`: each pipeline's file for Vertex AI and for KFP on Kubernetes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.compiled_file import compile_target
from pipeline.parameters import configured
from pipeline.targets.kubernetes import KubernetesTarget
from pipeline.targets.vertex import VertexTarget
from pipeline.training_pipeline import NAME, Target
from pipeline.vertex.check_file import check_vertex_file
from pipeline.vertex.command import vertex_target_of
from pipeline.vertex.flags import add_vertex_flags, check_parameters, home_of, with_places
from pipeline.videos_pipeline import NAME as VIDEOS
from pipeline.videos_pipeline import STEPS, build_videos
from trainer.errors import reported


def targets(options: argparse.Namespace) -> dict[str, Target]:
    """The targets that need a file, by the suffix of its name.

    Raises:
        InputError: an image that caches would mistake; a setting that can not be.
    """
    home = home_of(options, needed=())
    vertex = vertex_target_of(options, home)
    return {
        "vertex": vertex,
        "kubernetes": KubernetesTarget("kubernetes", vertex.cpu_image, vertex.cpu_image),
    }


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
    add_vertex_flags(parser)
    options = parser.parse_args(arguments)
    with reported():
        for suffix, target in targets(options).items():
            path = options.output / f"{NAME}-{suffix}.yaml"
            defaults = configured(options.config, options.settings)
            if isinstance(target, VertexTarget):
                defaults = with_places(defaults, target.home)
                check_parameters(defaults, target.settings)
            compile_target(target, path, defaults)
            if isinstance(target, VertexTarget):
                check_vertex_file(path)
            videos = options.output / f"{VIDEOS}-{suffix}.yaml"
            compile_target(target, videos, make=build_videos)
            if isinstance(target, VertexTarget):
                check_vertex_file(videos)
            print(f"{path}  ({target.cpu_image}, {target.gpu_image})")
            images = dict.fromkeys(target.image(step) for step in STEPS)
            print(f"{videos}  ({', '.join(images)})")
            if "." not in target.cpu_image.partition("/")[0]:
                print("  note: these images are of this machine alone; REGISTRY=… names others")


if __name__ == "__main__":
    main()
