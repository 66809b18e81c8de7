"""The cluster's own manifests, checked by the tools that read them."""

import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

from pipeline.clusters import manifests
from pipeline.clusters.manifests import API, PAGES

FOLDERS = {"/data/yt8m": True, "/work/runs": False}
needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not there")


def test_the_clusters_configuration():
    found = manifests.cluster_configuration("mine", {API: 9000, PAGES: 9001}, FOLDERS)
    assert found["name"] == "mine"
    (node,) = found["nodes"]
    assert {m["containerPort"]: m["hostPort"] for m in node["extraPortMappings"]} == {
        API: 9000, PAGES: 9001,
    }  # fmt: skip
    assert {m["listenAddress"] for m in node["extraPortMappings"]} == {"127.0.0.1"}
    assert node["extraMounts"] == [
        {"hostPath": "/data/yt8m", "containerPath": "/data/yt8m", "readOnly": True},
        {"hostPath": "/work/runs", "containerPath": "/work/runs", "readOnly": False},
    ]
    assert "@sha256:" in manifests.node_image()


def test_volumes_are_valid_and_bound_to_each_other():
    found = list(yaml.safe_load_all(manifests.as_yaml(manifests.volume_manifests(FOLDERS))))
    assert [one["kind"] for one in found] == ["PersistentVolume", "PersistentVolumeClaim"] * 2
    for one in found:
        kubernetes_validate.validate(one, "1.36", strict=True)
    for volume, claim in zip(found[::2], found[1::2], strict=True):
        assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
        assert volume["spec"]["claimRef"] == {
            "namespace": claim["metadata"]["namespace"], "name": claim["metadata"]["name"],
        }  # fmt: skip
        assert claim["spec"]["accessModes"] == volume["spec"]["accessModes"]
    assert found[0]["spec"]["accessModes"] == ["ReadOnlyMany"]
    assert found[0]["metadata"]["name"] == manifests.volume_of("/data/yt8m").claim


def test_what_steps_see(tmp_path):
    seen = {str(tmp_path): False}
    assert manifests.folders_seen(seen, tmp_path / "a" / "b")
    assert manifests.folders_seen(seen, tmp_path)
    assert not manifests.folders_seen(seen, tmp_path.with_name(f"{tmp_path.name}-more"))


def _deployment(name):
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": name, "image": f"x/{name}:1", "resources": {
                    "requests": {"cpu": "4"}}}]},
            },
        },
    }  # fmt: skip


def _service(name):
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]},
    }  # fmt: skip


@needs_kubectl
def test_the_overlay_changes_what_it_should(tmp_path):
    names = ["ml-pipeline", "ml-pipeline-ui", "mysql", "ml-pipeline-visualizationserver"]
    base = tmp_path / "base"
    base.mkdir()
    objects = [make(name) for name in names for make in (_deployment, _service)]
    (base / "all.yaml").write_text(yaml.safe_dump_all(objects))
    (base / "kustomization.yaml").write_text("resources: [all.yaml]\n")
    overlay = yaml.safe_load((manifests.OVERLAY / "kustomization.yaml").read_text())
    overlay["resources"] = ["../base"]
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay" / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run(
        ["kubectl", "kustomize", str(tmp_path / "overlay")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    found = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(done.stdout)}
    assert len(found) == len(objects)
    for (kind, name), one in found.items():
        kubernetes_validate.validate(one, "1.36", strict=True)
        assert one["metadata"]["namespace"] == "kubeflow"
        if kind == "Deployment":
            (container,) = one["spec"]["template"]["spec"]["containers"]
            assert container["imagePullPolicy"] == "IfNotPresent"
            assert container["resources"] == {"requests": {"cpu": "10m", "memory": "64Mi"}}
        else:
            port = {"ml-pipeline": API, "ml-pipeline-ui": PAGES}.get(name)
            assert one["spec"].get("type") == ("NodePort" if port else None)
            assert one["spec"]["ports"][0].get("nodePort") == port


def test_where_kfp_comes_from():
    cluster_wide, overlay = manifests.manifests_of_kfp()
    assert cluster_wide.endswith(f"/cluster-scoped-resources?ref={manifests.kfp_version()}")
    assert overlay == str(manifests.OVERLAY)
