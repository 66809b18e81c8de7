"""What the local cluster's steps are given."""

import os

import pytest

from pipeline.clusters.kind import Cluster
from pipeline.clusters.kind_target import kind_target
from pipeline.clusters.manifests import volume_of
from pipeline.clusters.running import pod_settings
from pipeline.image_names import image_name
from pipeline.parameters import pipeline_parameters
from trainer.errors import InputError

CLUSTER = Cluster(8888, 8889, {"/data/yt8m": True, "/work/runs": False})


def parameters(**values):
    places = {"destination": "/work/runs/data", "checkpoint_root": "/work/runs/checkpoints"}
    return pipeline_parameters(places | values)


def test_images_folders_and_user():
    target = kind_target(CLUSTER, pod_settings([]), parameters(data_source="/data/yt8m/frame"))
    assert target.cpu_image == target.gpu_image == image_name("cpu")
    assert target.volumes == (volume_of("/data/yt8m"), volume_of("/work/runs"))
    assert target.user == (os.getuid(), os.getgid())
    assert target.small
    assert target.caching
    gpus = kind_target(CLUSTER, pod_settings(["gpus=1"]), parameters(), caching=False)
    assert gpus.gpu_image == image_name("gpu")
    assert not gpus.caching


@pytest.mark.parametrize("name", ["destination", "checkpoint_root"])
@pytest.mark.parametrize("folder", ["/elsewhere", "/data/yt8m/out"])
def test_a_folder_that_steps_can_not_write_to(name, folder):
    with pytest.raises(
        InputError, match=rf"{name} {folder}: .* expected a folder below /work/runs"
    ):
        kind_target(CLUSTER, pod_settings([]), parameters(**{name: folder}))


@pytest.mark.parametrize(
    "values",
    [
        {"data_source": "/data/yt8m-2"},
        {"champion": "/models/old"},
        {"overrides": {"statistics": {"schema": "/elsewhere/schema.json"}}},
    ],
)
def test_a_folder_that_steps_do_not_see(values):
    with pytest.raises(InputError, match=r"do not see it: make kind-down, then .*MOUNTS=/"):
        kind_target(CLUSTER, pod_settings([]), parameters(**values))
