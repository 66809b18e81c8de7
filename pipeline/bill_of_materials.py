"""The software bill of materials of an image: CycloneDX 1.6 in JSON.

https://cyclonedx.org/docs/1.6/json/. What is installed is asked of the image itself: Debian's list
of packages and the metadata of every Python distribution.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from pipeline.docker_engine import docker_engine
from trainer.errors import InputError
from trainer.files import atomic_file

_ASK = """
import importlib.metadata as m, json, pathlib, platform, sys
# Of the environment, and of the Python below it where that is no package of the system.
below = f"{sys.base_prefix}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
python = [
    [d.name, d.version, d.metadata.get("License-Expression") or ""]
    for d in [*m.distributions(), *m.distributions(path=[below])]
]
status = pathlib.Path("/var/lib/dpkg/status")
parts = pathlib.Path("/var/lib/dpkg/status.d")
texts = [status.read_text()] if status.exists() else []
texts += [p.read_text() for p in sorted(parts.glob("*"))] if parts.is_dir() else []
release = pathlib.Path("/etc/os-release").read_text()
runtime = [platform.python_implementation(), platform.python_version()]
print(json.dumps({"python": python, "debian": texts, "release": release, "runtime": runtime}))
"""


def write_bill_of_materials(image: str, path: Path) -> int:
    """Write the bill of an image; returns how many packages it names.

    Raises:
        InputError: the image can not be asked.
    """
    with docker_engine() as client:
        answer = client.containers.run(
            image, [_ASK], entrypoint=["python3", "-c"], network_mode="none", remove=True,
            read_only=True, stderr=False,
        )  # fmt: skip
        digest = client.images.get(image).id
    try:
        found = json.loads(answer)
    except ValueError:
        raise InputError(f"image {image}: did not say what is installed in it") from None
    name, _, version = image.rpartition(":")
    bom = Bom()
    bom.metadata.component = Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=version,
        properties=[Property(name="docker:image:id", value=digest)],
    )
    system = dict(re.findall(r'^(ID|VERSION_CODENAME)="?([^"\n]+)', found["release"], re.M))
    for kind, package, at, licence in _packages(found):
        namespace = system.get("ID", "debian") if kind == "deb" else None
        release = system.get("VERSION_CODENAME")
        qualifiers = {"distro": release} if kind == "deb" and release else None
        bom.components.add(
            Component(
                type=ComponentType.LIBRARY,
                name=package,
                version=at,
                licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
                purl=PackageURL(kind, namespace, package, at, qualifiers),
                bom_ref=f"{kind}:{package}@{at}",
            )
        )
    bom.register_dependency(bom.metadata.component, bom.components)
    with atomic_file(path) as partial:
        partial.write_text(JsonV1Dot6(bom).output_as_string(indent=1) + "\n", encoding="utf-8")
    return len(bom.components)


def _packages(found: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Type of package URL, name, version and SPDX licence (or nothing) of each package."""
    yield "generic", found["runtime"][0].lower(), found["runtime"][1], "PSF-2.0"
    for name, version, licence in found["python"]:
        yield "pypi", re.sub(r"[-_.]+", "-", name).lower(), version, licence
    for text in found["debian"]:
        for paragraph in text.split("\n\n"):
            fields = dict(re.findall(r"^(Package|Version|Status): (.*)$", paragraph, re.M))
            if "Package" in fields and fields.get("Status", "installed").endswith("installed"):
                yield "deb", fields["Package"], fields["Version"], ""
