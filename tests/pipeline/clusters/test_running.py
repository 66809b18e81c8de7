"""The whole way through a KFP server: submitted, run, followed, fetched."""

import json
import re
import signal
import subprocess

import pytest

import pipeline.run
from pipeline.clusters.running import fetch_results, pod_settings
from pipeline.targets.kubernetes import Volume, volumes_of
from tests.conftest import ROOT
from tests.workplace import Workplace
from trainer.errors import InputError

IMAGE = "registry.example/nextvlad-pipeline-{kind}:1"


@pytest.fixture
def workplace(server, tmp_path):
    server.execute = True
    return Workplace(
        tmp_path,
        flags=["--target", "kfp", "--host", server.host, "--image", IMAGE,
               "--kfp", f"volumes=claim:{tmp_path}"],
    )  # fmt: skip


@pytest.fixture
def here(workplace, server, capsys):
    """The command in this process, where the server only tells what it is told to: much faster."""
    server.execute = False
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments):
        code = 0
        try:
            pipeline.run.main(workplace.command()[3:] + list(arguments))
        except SystemExit as exit:
            code = exit.code
        told = capsys.readouterr()
        return code, told.out, told.err

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def places(workplace):
    folder = workplace.folder / "cluster"
    folder.mkdir(exist_ok=True)
    return [f"destination={folder}", f"checkpoint_root={folder}/checkpoints"]


@pytest.mark.slow
def test_a_run_leaves_what_a_local_run_leaves(workplace, server):
    done = workplace.run("--set", *places(workplace))
    ran, _ = workplace.ran(done.stdout)
    assert ran == ["download", "statistics", "train", "evaluate", "gate", "export", "publish"]
    run = workplace.last()
    for name in ("trained_model/model.keras", "serving_model/saved_model", "report.html",
                 "evaluation/predictions.csv", "kfp.json", "pipeline.yaml"):  # fmt: skip
        assert (run / name).exists(), name
    kfp = json.loads((run / "kfp.json").read_text())
    assert list(server.runs) == [kfp["run_id"]]
    (there,) = (workplace.folder / "cluster" / "runs").iterdir()
    assert there.name == kfp["run_id"]
    metrics = json.loads((run / "evaluation" / "evaluation.json").read_text())["metrics"]
    # The same DAG in-process says the same to the last digit.
    local = Workplace(workplace.folder)
    local.run("--set", f"destination={workplace.folder}/other", "checkpoint_root=")
    assert (
        json.loads((local.last() / "evaluation" / "evaluation.json").read_text())["metrics"]
        == metrics
    )


@pytest.mark.slow
def test_a_model_that_is_refused_is_published_too(workplace):
    done = workplace.run("--set", *places(workplace), "min_gap=1")
    assert "export skipped, because" in done.stdout
    assert workplace.ran(done.stdout)[0][-1] == "publish"
    assert not (workplace.last() / "serving_model").exists()
    assert (workplace.last() / "report.html").is_file()


@pytest.mark.slow
def test_a_failing_step_is_shown_with_its_error(workplace):
    source = f"data_source={workplace.folder}/nowhere"
    line = workplace.error("--set", *places(workplace), source)
    assert re.match(r"error: step download failed: .*/nowhere.* \(log: .*pipeline\.log\)", line)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["", "/of/a/volume"])
def test_results_that_are_nowhere_but_on_the_cluster(place, here, server):
    server.snapshots.append(("SUCCEEDED", []))
    code, out, _ = here("--set", f"destination={place}", "--kfp", "volumes=claim:/of/a/volume")
    assert code == 0
    assert "the results are on the cluster" in out


@pytest.mark.slow
@pytest.mark.parametrize("last", ["CANCELED", "FAILED"])
def test_a_run_that_somebody_ends(last, here, server):
    server.snapshots.extend([("CANCELING", []), (last, [])])
    code, _, err = here()
    assert code == 1
    assert re.fullmatch(r"error: run [0-9a-f-]+ was terminated \(log: .*\)\n", err)


@pytest.mark.slow
def test_a_run_that_fails_as_a_whole(here, server):
    server.snapshots.append(("FAILED", []))
    code, _, err = here()
    assert code == 1
    assert re.match(r"error: run \S+ ended as FAILED: the workflow failed", err)


def test_ctrl_c_leaves_the_run_and_says_how_to_go_on(workplace, server):
    server.execute = False
    with subprocess.Popen(
        workplace.command(), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if "runs/details" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait() == 130
    (run_id,) = server.runs
    assert f"make kfp-terminate RUN={run_id} ends it" in rest
    assert server.terminated == []


@pytest.mark.slow
def test_a_token_that_expires_says_that_the_run_goes_on(here, server):
    server.snapshots.append(("RUNNING", []))
    server.faults.extend([("GET .*/runs/", None)] * 2 + [("GET .*/runs/", 401)])
    code, _, line = here()
    assert code == 1
    (run_id,) = server.runs
    assert "does not take the credentials (401: as told)" in line
    assert f"run {run_id} goes on. make kfp-follow RUN={run_id} shows it" in line


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data_source=youtube8m:2/frame"], "SET=destination=… is missing"),
        (["destination=/x"], "destination /x: no volume has it"),
        (["destination=gs://b/x", "data_source=/y"], "data_source /y: no volume has it"),
    ],
)
def test_places_that_steps_would_not_share(settings, words, here, server):
    code, _, line = here("--set", *settings)
    assert code == 1
    assert words in line
    assert not server.runs


@pytest.mark.parametrize("spoil", ["RESULTS.json", "evaluation/metrics.txt"])
def test_results_that_are_not_whole(spoil, tmp_path):
    place = tmp_path / "runs" / "7"
    (place / "evaluation").mkdir(parents=True)
    (place / "evaluation" / "metrics.txt").write_text("12345")
    results = {"artifacts": ["evaluation"], "files": {"evaluation/metrics.txt": 5}}
    (place / "RESULTS.json").write_text(json.dumps(results))
    (tmp_path / "good").mkdir()
    assert fetch_results(str(tmp_path), "7", tmp_path / "good") == results
    (place / spoil).write_text("12")
    with pytest.raises(InputError, match=spoil):
        fetch_results(str(tmp_path), "7", tmp_path)


def test_results_in_a_bucket(bucket, tmp_path):
    bucket.blob("p/runs/7/evaluation/metrics.txt").upload_from_string("12345")
    results = {"artifacts": ["evaluation"], "files": {"evaluation/metrics.txt": 5}}
    bucket.blob("p/runs/7/RESULTS.json").upload_from_string(json.dumps(results))
    assert fetch_results(f"gs://{bucket.name}/p", "7", tmp_path) == results
    assert (tmp_path / "evaluation" / "metrics.txt").read_text() == "12345"


def test_pod_settings():
    settings = pod_settings(
        ["gpus=2", "gpu_resource=amd.com/gpu", "volumes=a:/x,b:/y", "pull_secrets=s,t",
         "node_labels=pool:video", "annotations=gke-gcsfuse/volumes:true", "google_secret=key",
         "timeout_seconds=60"]
    )  # fmt: skip
    target = settings.target("kfp", IMAGE)
    assert (target.cpu_image, target.gpu_image) == (
        IMAGE.replace("{kind}", "cpu"), IMAGE.replace("{kind}", "gpu"),
    )  # fmt: skip
    assert target.volumes == (Volume("a", "/x"), Volume("b", "/y"))
    assert (target.pull_secrets, target.node_labels) == (("s", "t"), (("pool", "video"),))
    assert target.annotations == (("gke-gcsfuse/volumes", "true"),)
    assert pod_settings([]).target("kfp", IMAGE).gpu_image == IMAGE.replace("{kind}", "cpu")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["gpu=1"], "expected name=value of .*did you mean gpus"),
        (["gpus"], "expected name=value"),
        (["gpus=many"], r"gpus is 'many' \(str\), expected a whole number"),
        (["gpus=-1"], "gpus is -1, expected at least 0"),
    ],
)
def test_pod_settings_that_can_not_be(settings, words):
    with pytest.raises(InputError, match=words):
        pod_settings(settings)


def test_a_node_label_has_a_value():
    with pytest.raises(InputError, match="node label 'pool': expected key:value"):
        pod_settings(["node_labels=pool"]).target("kfp", IMAGE)


@pytest.mark.parametrize(
    ("volumes", "words"),
    [(["a"], "expected claim:/folder"), (["a:b"], "expected claim"), (["a:/x", "b:/x"], "twice")],
)
def test_volumes_that_can_not_be(volumes, words):
    with pytest.raises(InputError, match=words):
        volumes_of(volumes)
