"""The real `kind` on a real engine, as far as it goes without an image of a node."""

import shutil

import pytest
import yaml

from pipeline.clusters import kind, manifests
from pipeline.clusters.tools import check_tools, run
from trainer.errors import InputError

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(
        not shutil.which("kind") or not shutil.which("kubectl"),
        reason="kind or kubectl is not there",
    ),
]
NAME = "nextvlad-test"


@pytest.fixture(autouse=True)
def another_name(monkeypatch):
    """Whoever runs the tests may have a cluster."""
    monkeypatch.setattr(kind, "NAME", NAME)


def configuration(folder):
    ports = {manifests.API: 28888, manifests.PAGES: 28889}
    content = manifests.cluster_configuration(NAME, ports, {str(folder): False})
    content["nodes"][0]["image"] = "localhost:1/nextvlad/no-such-node:1"
    return content


def create(content):
    return run(["kind", "create", "cluster", "--config=-"], yaml.safe_dump(content))


def test_the_tools_are_new_enough():
    check_tools()


def test_kind_takes_the_configuration(engine, tmp_path):
    with pytest.raises(InputError, match="failed to pull image"):
        create(configuration(tmp_path))
    spoiled = configuration(tmp_path)
    spoiled["nodes"][0]["extraMount"] = spoiled["nodes"][0].pop("extraMounts")
    with pytest.raises(InputError, match="unable to decode config"):
        create(spoiled)


def test_a_node_that_can_not_be_pulled_is_one_line(engine, image, tmp_path, monkeypatch):
    monkeypatch.setattr(kind, "cluster_configuration", lambda *_: configuration(tmp_path))
    monkeypatch.setattr(kind, "_ROOM", 0)  # that a whole cluster takes, which never comes here
    with pytest.raises(InputError, match="the node's image can not be pulled"):
        kind.up(28888, {str(tmp_path): False}, [image("cpu")], 5)
    with pytest.raises(InputError, match=f"there is no cluster {NAME}"):
        kind.running_cluster()


def test_down_leaves_nothing(engine):
    kind.down()
    kind.down()
    label = "io.x-k8s.kind.cluster"
    assert not engine.containers.list(all=True, filters={"label": f"{label}={NAME}"})
    if not engine.containers.list(all=True, filters={"label": label}):  # nobody else has a cluster
        assert "kind" not in {network.name for network in engine.networks.list()}
