"""`python -m pipeline.images`: build the container images, say what they weigh and what is in them.

Runs the `docker` command, so that the user's builder, proxies and registry logins are used as they
are; works with BuildKit and with the classic builder.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import docker

from pipeline.bill_of_materials import write_bill_of_materials
from pipeline.docker_engine import FULL, PROXIES, docker_engine, what_to_do
from pipeline.image_layers import layers, size_table
from pipeline.image_names import KINDS, ROOT, dockerfile, image_name, write_context
from trainer.errors import InputError, reported
from trainer.progress import duration
from trainer.source_digest import commit_of

BASE_IMAGE = "python:3.11-slim-bookworm"
BEAM_IMAGE = "apache/beam_python3.11_sdk:2.77.0"
BASE, MADE_FROM = "org.opencontainers.image.base.name", "nextvlad.made-from"
LARGEST_ARGUMENT = 100_000
"""Bytes: Linux passes no argument of 128 KiB to a process."""
_MILESTONE = re.compile(r"Step \d+/\d+ : (FROM|COPY|RUN)|#\d+ \[.*(FROM|COPY|RUN)|.*: Pushed")
"""Lines of the classic builder, of BuildKit and of a push that people want to see."""
_THAT_IT_FAILED = re.compile(
    r"^The command .* returned a non-zero code|executor failed running|did not complete success|"
    r"^ > \[.*:$|^-+$"
)
"""Builders' last words, which say that a command failed and not why."""
_BUILD_CAUSES = (
    (r"[Nn]o space left on device", FULL),
    (
        r"pull access denied|manifest unknown|manifest for .* not found|failed to resolve source|"
        r"registry-1\.docker\.io|failed to do request: Head|error pulling image|"
        r"toomanyrequests|Get \"?https://[^ ]*/v2/",
        "the base image can not be pulled: name one that can with BASE_IMAGE=…, or make one from "
        "Debian's packages with docker/debian_base.sh",
    ),
    (
        r"deb\.debian\.org|Unable to locate package|E: Failed to fetch",
        "Debian's packages can not be reached from the build: set HTTP_PROXY, or take a base image "
        "whose apt knows a mirror (docs/containers.md)",
    ),
    (
        r"UnknownIssuer|certificate verify failed|CERTIFICATE_VERIFY_FAILED|self.signed certif",
        "the package index shows a certificate that is not trusted: give your company's with "
        "CA=file.pem",
    ),
    (
        r"do not match the hashes|Hash mismatch",
        "a package is not the one that was locked (its hash differs): the package index or a proxy "
        "serves other files",
    ),
    (
        r"Failed to fetch|dns error|Temporary failure in name resolution|Connection refused|"
        r"Could not connect|Failed to establish a new connection|Could not find a version",
        "the package index can not be reached from the build: set HTTPS_PROXY, or PIP_INDEX_URL "
        "to a mirror (docs/containers.md)",
    ),
)
_PUSH_CAUSES = (
    (
        r"denied|unauthorized|no basic auth|authentication required",
        "the registry does not let you: log in with docker login, or gcloud auth configure-docker",
    ),
    (r"no such host|dial tcp|i/o timeout", "the registry can not be reached: is REGISTRY right?"),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How images are built.

    Attributes:
        base_image: with Python 3.11 to 3.13, pip, venv and CA certificates, on glibc.
        beam_image: where the Dataflow image's start program comes from.
        registry: prefix of the names; empty: none.
        ca: PEM file of certificates to trust while packages are fetched, beside the base image's.
    """

    base_image: str = BASE_IMAGE
    beam_image: str = BEAM_IMAGE
    registry: str = ""
    ca: Path | None = None

    def base_of(self, kind: str) -> str:
        return image_name("cpu", self.registry) if kind == "dataflow" else self.base_image

    def build_arguments(self, kind: str) -> dict[str, str]:
        with (ROOT / "pyproject.toml").open("rb") as file:
            version = tomllib.load(file)["project"]["version"]
        arguments = {"BASE_IMAGE": self.base_of(kind)}
        if kind in ("cpu", "gpu"):
            arguments["KIND"] = kind
        if kind == "dataflow":
            arguments["BEAM_IMAGE"] = self.beam_image
        elif self.ca is not None:
            arguments["CA_CERTIFICATES"] = _certificates(self.ca)
        if kind != "dataflow" and (index := os.environ.get("PIP_INDEX_URL")):
            arguments["PIP_INDEX_URL"] = index
        return arguments | {"VERSION": version, "COMMIT": commit_of(ROOT) or "unknown"}


def build(kind: str, settings: Settings, output: Path, anew: bool = False) -> str:
    """Build an image unless it is there; returns its name. The builder's log goes to `output`.

    Raises:
        InputError: it can not be built; the message says why where that is known.
    """
    name = image_name(kind, settings.registry)
    base = made_from = settings.base_of(kind)
    with docker_engine() as client:
        found = _inspect(client, name)
        if kind == "dataflow":
            below = _inspect(client, base)
            if below is None:
                raise InputError(
                    f"image {base} is not there, and {kind} is made from it: build cpu"
                )
            # The name of an image of ours stays when it is built from another base.
            made_from = f"{below['Id']} {settings.beam_image}"
    if found and not anew and (found["Config"]["Labels"] or {}).get(MADE_FROM) == made_from:
        print(f"[images] {kind}: {name} is there already")
        return name
    print(f"[images] {kind}: builds {name} from {base}", flush=True)
    file = dockerfile(kind).relative_to(ROOT).as_posix()
    command = ["docker", "build", "--file", file, "--tag", name]
    command += ["--label", f"{BASE}={base}", "--label", f"{MADE_FROM}={made_from}"]
    command += ["--no-cache"] if anew else []
    for key, value in settings.build_arguments(kind).items():
        command += ["--build-arg", f"{key}={value}"]
    # Without their values, which may hold a password: Docker takes them from the environment.
    for proxy in PROXIES:
        command += ["--build-arg", proxy] if proxy in os.environ else []
    start = time.monotonic()
    failure = f"image {name} was not built"
    with tempfile.TemporaryFile() as context:
        write_context(context)
        context.seek(0)
        log = output / f"image-{kind}.log"
        _run([*command, "-"], log, failure, _BUILD_CAUSES, context)
    print(f"[images] {kind}: built in {duration(time.monotonic() - start)}", flush=True)
    return name


def push(kind: str, name: str, output: Path) -> None:
    """Send an image to its registry, with the logins of the `docker` command."""
    failure = f"image {name} was not pushed"
    _run(["docker", "push", name], output / f"push-{kind}.log", failure, _PUSH_CAUSES)
    print(f"[images] {kind}: pushed {name}", flush=True)


def _inspect(client: docker.DockerClient, name: str) -> dict[str, Any] | None:
    try:
        attributes: dict[str, Any] = client.images.get(name).attrs
    except docker.errors.ImageNotFound:
        return None
    return attributes


def _certificates(path: Path) -> str:
    """The certificates of a file; what stands between them is left out."""
    block = r"-----BEGIN CERTIFICATE-----\n.*?-----END CERTIFICATE-----\n?"
    text = "".join(re.findall(block, path.read_text(errors="replace"), re.S))
    if not text:
        raise InputError(f"{path}: expected certificates in PEM form (-----BEGIN CERTIFICATE-----)")
    if len(text) > LARGEST_ARGUMENT:
        raise InputError(
            f"{path}: has {len(text):,} bytes, expected at most {LARGEST_ARGUMENT:,}: give your "
            "company's certificate alone, the public ones are trusted anyway"
        )
    return text


def _run(
    command: list[str],
    log: Path,
    failure: str,
    causes: Sequence[tuple[str, str]],
    given: IO[bytes] | None = None,
) -> None:
    """Run Docker's command, its output in a file, its milestones shown.

    Raises:
        InputError: it failed, and of what.
    """
    if not shutil.which(command[0]):
        raise InputError("the command docker is not there: https://docs.docker.com/engine/install/")
    log.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        command, stdin=given or subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    assert process.stdout is not None
    seen: list[str] = []
    with process, log.open("w", encoding="utf-8") as file:
        for line in process.stdout:
            file.write(line)
            seen = [*seen[-79:], line]
            if _MILESTONE.match(line):
                print("  " + line.rstrip()[:98], flush=True)
    if process.returncode:
        raise InputError(f"{failure}: {_cause(''.join(seen), causes)} (log: {log})")


def _cause(output: str, causes: Sequence[tuple[str, str]] = _BUILD_CAUSES) -> str:
    output = re.sub(r"\x1b\[[0-9;]*m", "", output)
    for pattern, words in causes:
        if re.search(pattern, output):
            return words
    lines = [re.sub(r"^#\d+ [\d.]+ ", "", line) for line in output.splitlines()]
    last = [line for line in lines if line.strip() and not _THAT_IT_FAILED.search(line)]
    return what_to_do(last[-1]) if last else "docker said nothing"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "kinds", nargs="*", default=["cpu", "serving"], metavar="KIND",
        help="; ".join(f"{kind}: {words}" for kind, words in KINDS.items())
        + " (default: cpu serving)",
    )  # fmt: skip
    parser.add_argument("--base-image", default=BASE_IMAGE, help="Python 3.11 to 3.13 on Debian")
    parser.add_argument("--beam-image", default=BEAM_IMAGE, help="with Beam's start program")
    parser.add_argument("--registry", default="", help="prefix of the names")
    parser.add_argument("--push", action="store_true", help="send the images to the registry")
    parser.add_argument("--anew", action="store_true", help="build again what is there")
    parser.add_argument("--ca", type=Path, help="PEM file of a certificate to trust in the build")
    parser.add_argument("--output", type=Path, default=Path("build"), help="folder for the bills")
    options = parser.parse_args(arguments)
    with reported():
        for kind in options.kinds:
            if kind not in KINDS:
                raise InputError(f"image kind {kind!r}: expected one of {', '.join(KINDS)}")
        if options.push and not options.registry:
            raise InputError("images are pushed to a registry: REGISTRY is missing")
        settings = Settings(
            options.base_image or BASE_IMAGE,
            options.beam_image or BEAM_IMAGE,
            options.registry,
            options.ca,
        )
        for kind in options.kinds:
            name = build(kind, settings, options.output, options.anew)
            print(size_table(layers(kind, name)))
            bill = options.output / f"{name.rpartition('/')[2].replace(':', '-')}.cdx.json"
            count = write_bill_of_materials(name, bill)
            print(f"[images] {kind}: {count} packages in {bill}", flush=True)
            if options.push:
                push(kind, name, options.output)


if __name__ == "__main__":
    main()
