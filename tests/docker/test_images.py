"""What is in the images, and what is not."""

import json
import re
import shutil

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from pipeline.bill_of_materials import write_bill_of_materials
from pipeline.images import layers
from tests.conftest import ROOT
from tests.workplace import Workplace

pytestmark = pytest.mark.docker
KINDS = ("cpu", "gpu", "serving", "dataflow")
LARGEST = {"cpu": 2.2e9, "gpu": 7.2e9, "serving": 1.3e9, "dataflow": 2.25e9}


def ask(engine, name, script):
    """What a shell prints in a container without a network, as whoever the image says."""
    return engine.containers.run(
        name, [script], entrypoint=["sh", "-c"], network_mode="none", remove=True, read_only=True,
        tmpfs={"/tmp": ""}, cap_drop=["ALL"],
    ).decode()  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_its_labels_and_user(kind, engine, image):
    config = engine.images.get(image(kind)).attrs["Config"]
    labels = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in config["Labels"].items()
    }
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] == "0.1.0"
    assert re.fullmatch(r"[0-9a-f]{40}( with changes)?|unknown", labels["revision"])
    assert labels["base.name"]
    assert config["User"] == "10001:10001"
    # KFP brings its own command; a cluster would pass over an entry point anyway.
    assert bool(config["Entrypoint"]) == (kind not in ("cpu", "gpu"))


@pytest.mark.parametrize("kind", KINDS)
def test_it_stays_small(kind, image):
    assert sum(layer.bytes for layer in layers(kind, image(kind))) < LARGEST[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_named_as_in_the_dockerfile(kind, image):
    lines = [layer.line for layer in layers(kind, image(kind))]
    assert "COPY --from=packages /layers/tensorflow /" in lines
    assert "COPY trainer trainer" in lines
    assert not [line for line in lines if re.search("buildkit|dir:|file:", line)]


@pytest.mark.parametrize("kind", ["cpu", "gpu", "serving"])
def test_no_tools_no_caches_nothing_of_the_build(kind, engine, image):
    script = """
        for tool in gcc cc g++ make git curl uv strip; do command -v $tool; done
        ls -A /root/.cache /var/cache/apt/archives/*.deb /build /layers 2>/dev/null
        ls -d /opt/venv/lib/python3*/site-packages/pip 2>/dev/null
        find / -xdev \\( -name '*.pem' -o -name '*.crt' -o -name '*.key' \\) 2>/dev/null |
            grep -v -e site-packages -e certifi -e ^/usr/lib/ssl -e ^/etc/ssl \\
                -e ^/usr/share/ca-certificates -e ^/usr/local/share/ca-certificates
        id -u
    """
    assert ask(engine, image(kind), script).split() == ["10001"]
    history = json.dumps(engine.api.history(image(kind)))
    assert "CA_CERTIFICATES" not in history
    assert "PIP_INDEX_URL" not in history


@pytest.mark.parametrize("kind", ["cpu", "gpu", "serving"])
def test_every_module_is_compiled(kind, engine, image):
    script = """
        python3 - <<'END'
import importlib.util, pathlib, sys
lacking = [
    str(path)
    for folder in ("/app", *[p for p in sys.path if p.endswith("site-packages")])
    for path in pathlib.Path(folder).rglob("*.py")
    if not pathlib.Path(importlib.util.cache_from_source(str(path))).exists()
]
# Templates and tests of other Pythons' syntax do not compile.
print(len(lacking), [path for path in lacking if path.startswith("/app")])
END
    """
    count, of_ours = ask(engine, image(kind), script).split(" ", 1)
    assert int(count) < 30
    assert of_ours.strip() == "[]"


@pytest.mark.parametrize("kind", ["cpu", "serving"])
def test_every_library_loads(kind, engine, image):
    """Stripped as they are; numba's other thread pools want libraries that it does not bring."""
    script = """
        python3 - <<'END'
import ctypes, os, pathlib, sys
(packages,) = [pathlib.Path(path) for path in sys.path if path.endswith("site-packages")]
libraries = [
    path
    for path in sorted(packages.rglob("*.so*"))
    if not {"tensorflow", "nvidia"} & {*path.parts} and path.parent.name != "ufunc"
]
for path in libraries:
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        print(error)
print(len(libraries), flush=True)
os._exit(0)  # Python's own end is not made for all of them at once.
END
    """
    (count,) = ask(engine, image(kind), script).splitlines()
    assert int(count) > 50


@pytest.mark.parametrize("kind", KINDS)
def test_the_bill_of_materials(kind, image, tmp_path):
    path = tmp_path / "bill.json"
    count = write_bill_of_materials(image(kind), path)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text()) is None
    bill = json.loads(path.read_text())
    assert len(bill["components"]) == count
    urls = {component["purl"] for component in bill["components"]}
    lock = kind if kind in ("gpu", "serving") else "cpu"
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    # Those for every system and Python.
    locked = re.findall(r"^([\w.-]+)==(\S+) \\$", text, re.M)
    assert len(locked) > 20
    for name, version in locked:
        assert f"pkg:pypi/{name}@{version}" in urls
    assert any(url.startswith("pkg:deb/debian/libc6@") for url in urls)


def test_cuda_lacks_nothing_but_the_driver(engine, image):
    script = """
        cd /opt/venv/lib/python3*/site-packages
        python3 - <<'END'
import ctypes, glob, os
for path in sorted(glob.glob("nvidia/*/lib/*.so*")):
    try:
        ctypes.CDLL(os.path.abspath(path), ctypes.RTLD_GLOBAL)
    except OSError as error:
        print(error)
END
        nvidia/cuda_nvcc/bin/ptxas --version | head -1
    """
    lines = ask(engine, image("gpu"), script).splitlines()
    assert lines.pop() == "ptxas: NVIDIA (R) Ptx optimizing assembler"
    assert all(line.startswith("libcuda.so.1: cannot open") for line in lines)


def test_a_gpu_is_asked_for_before_the_first_step(image, tmp_path):
    image("gpu")
    if shutil.which("nvidia-container-cli"):
        pytest.skip("this machine can give containers a GPU")
    workplace = Workplace(tmp_path, flags=["--target", "docker", "--gpu"])
    assert "container toolkit" in workplace.error()
    assert not list(workplace.runs.glob("2*"))


def test_the_commit_is_known_without_git(engine, image):
    code = "from trainer.source_digest import code_version; print(code_version())"
    revision = engine.images.get(image("cpu")).attrs["Config"]["Labels"][
        "org.opencontainers.image.revision"
    ]
    said = ask(engine, image("cpu"), f"python3 -c '{code}'")
    assert said.startswith("code digest" if revision == "unknown" else f"commit {revision}, code")
