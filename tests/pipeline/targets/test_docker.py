"""What containers are given; the engine is not needed."""

import json
import os

import pytest

from pipeline.targets import docker as target
from trainer.errors import InputError

PARAMETERS = {
    "data_source": "sample", "destination": "", "checkpoint_root": "", "champion": "",
    "overrides": "{}",
}  # fmt: skip


@pytest.fixture
def parameters(tmp_path):
    return PARAMETERS | {
        "destination": str(tmp_path / "runs" / ".pipeline" / "data"),
        "checkpoint_root": str(tmp_path / "checkpoints"),
    }


def mounts(parameters, tmp_path, security=()):
    arguments = target._arguments(parameters, tmp_path / "runs", list(security))
    return {mount["Target"]: mount["ReadOnly"] for mount in arguments["mounts"]}


def test_a_container_has_the_least_that_it_needs(parameters, tmp_path):
    arguments = target._arguments(parameters, tmp_path / "runs", [])
    assert arguments["user"] == f"{os.getuid()}:{os.getgid()}"
    assert arguments["read_only"]
    assert arguments["cap_drop"] == ["ALL"]
    assert arguments["security_opt"] == ["no-new-privileges"]
    assert arguments["network_mode"] == "none"
    assert arguments["environment"] == {}
    assert mounts(parameters, tmp_path) == {
        str(tmp_path / "runs"): True,
        parameters["destination"]: False,
        parameters["checkpoint_root"]: False,
    }
    # Docker would make them, as root.
    assert (tmp_path / "checkpoints").is_dir()


def test_inputs_are_seen_by_their_own_names_and_never_written(parameters, tmp_path):
    data = tmp_path / "data" / "frame"
    data.mkdir(parents=True)
    (data.parent / "vocabulary.csv").write_text("")
    (tmp_path / "model").mkdir()
    (tmp_path / "schema.yaml").write_text("")
    overrides = {
        "statistics": {"schema": str(tmp_path / "schema.yaml"), "baseline": "/absent"},
        "model": {"name": "nextvlad"},
    }
    seen = mounts(
        parameters
        | {
            "data_source": str(data),
            "champion": str(tmp_path / "model"),
            "overrides": json.dumps(overrides),
        },
        tmp_path,
    )
    assert {path for path, read_only in seen.items() if read_only} == {
        str(tmp_path / "runs"), str(data), str(data.parent / "vocabulary.csv"),
        str(tmp_path / "model"), str(tmp_path / "schema.yaml"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"data_source": "youtube8m:2/frame"},
        {"data_source": "gs://bucket/data"},
        {"destination": "gs://bucket/data"},
        {"champion": "projects/p/locations/l/models/m"},
    ],
)
def test_data_that_is_elsewhere_is_reached(changes, parameters, tmp_path, monkeypatch):
    login = tmp_path / "login.json"
    login.write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(login))
    monkeypatch.setenv("SSL_CERT_FILE", str(login))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    arguments = target._arguments(parameters | changes, tmp_path / "runs", [])
    assert "network_mode" not in arguments
    assert arguments["environment"]["HTTPS_PROXY"] == "http://proxy.example:3128"
    certificates, credentials = arguments["mounts"][-2:]
    for name, mount in (
        ("SSL_CERT_FILE", certificates),
        ("GOOGLE_APPLICATION_CREDENTIALS", credentials),
    ):
        inside = arguments["environment"][name]
        assert (mount["Source"], mount["Target"], mount["ReadOnly"]) == (str(login), inside, True)
    assert "REQUESTS_CA_BUNDLE" not in arguments["environment"]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    arguments = target._arguments(parameters | changes, tmp_path / "runs", [])
    assert arguments["network_mode"] == "host"


def test_other_kinds_of_engines(parameters, tmp_path):
    rootless = target._arguments(parameters, tmp_path, ["name=seccomp", "name=rootless"])
    assert rootless["user"] == "0:0"
    selinux = target._arguments(parameters, tmp_path, ["name=selinux"])
    assert "label=disable" in selinux["security_opt"]
    shifted = target._arguments(parameters, tmp_path, ["name=userns"])
    assert shifted["userns_mode"] == "host"


def test_limits_of_memory():
    assert target.memory_limits(["train=6g", "statistics=512m"]) == {
        "train": "6g", "statistics": "512m",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training=6g", r"memory limit 'training=6g': expected step=size with one of download, .*"
                        r"did you mean train"),
        ("train", "memory limit 'train': expected a size such as 512m or 6g"),
        ("train=6", "memory limit 'train=6': expected a size"),
        ("train=0g", "memory limit 'train=0g': expected a size"),
    ],
)  # fmt: skip
def test_limits_that_can_not_be(setting, words):
    with pytest.raises(InputError, match=words):
        target.memory_limits([setting])


def test_a_gpu_has_an_image_of_its_own():
    assert target.docker_target().gpu_image == target.docker_target().cpu_image
    assert "nextvlad-pipeline-gpu:" in target.docker_target(gpu=True).gpu_image
