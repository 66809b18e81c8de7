"""A run from the command to the report, with every part but Google's machines."""

import json
import signal

import pytest

from pipeline import run as run_module
from pipeline.vertex import command
from pipeline.vertex import following as following_module
from pipeline.vertex import running as running_module
from pipeline.vertex.manage import main as manage
from tests.vertex_server import BUCKET, IMAGE, PARENT, PROJECT, REGION, entry, task
from tests.workplace import CONFIGURATION, Workplace

CREATE = rf"POST /v1/{PARENT}/pipelineJobs"
FLAGS = ["--target", "vertex", "--project", PROJECT, "--region", REGION, "--bucket",
         f"gs://{BUCKET}", "--image", IMAGE]  # fmt: skip


@pytest.fixture
def start(vertex, tmp_path, monkeypatch):
    """Calls the command; its runs are in `tmp_path / "runs"`."""
    monkeypatch.setattr(command, "connect", vertex.cloud)
    place = Workplace(tmp_path)

    def start(*arguments):
        run_module.main(["--config", str(place.configuration), "--runs", str(place.runs),
                         *FLAGS, *arguments])  # fmt: skip

    return start


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    original = running_module.Following.__init__

    def init(self, jobs, job_id, console, _poll_seconds=0.0):
        original(self, jobs, job_id, console, 0.02, 0.0)

    monkeypatch.setattr(running_module.Following, "__init__", init)


@pytest.fixture(scope="module")
def local_run(tmp_path_factory):
    """What the same DAG leaves in this process."""
    place = Workplace(tmp_path_factory.mktemp("local"))
    place.run()
    return place.last()


def files_of(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def upload(bucket, folder, name):
    """An artifact as a step on Vertex AI leaves it in the bucket."""
    for path in files_of(folder / name):
        relative = path.relative_to(folder / name)
        bucket.blob(f"artifacts/{name}/{relative}").upload_from_filename(str(path))
    return f"gs://data/artifacts/{name}"


def last(folder):
    return max(path for path in (folder / "runs").iterdir() if not path.name.startswith("."))


@pytest.mark.slow
def test_a_run_leaves_what_a_local_run_leaves(vertex, start, bucket, local_run, tmp_path, capsys):
    names = ("examples", "example_statistics", "trained_model", "evaluation", "serving_model")
    places = {name: (upload(bucket, local_run, name), {}) for name in names}
    reason = "GAP@20 0.9 is at least 0"
    places["verdict"] = ("gs://data/artifacts/verdict", {"blessed": True, "reason": reason})
    of = {"download": "examples", "statistics": "example_statistics", "train": "trained_model",
          "evaluate": "evaluation", "gate": "verdict", "export": "serving_model"}  # fmt: skip
    done = [
        task(step, "SUCCEEDED", 60 * n, 60 * n + 30, job=n + 1, outputs={name: places[name]})
        for n, (step, name) in enumerate(of.items())
    ]
    vertex.logs = {"3": [entry("a", "[train] epoch 1: mean loss 1.2")]}
    vertex.snapshots.extend([("PENDING", []), ("RUNNING", done[:3]), ("SUCCEEDED", done)])
    start("--display-name", "the first")
    (body,) = vertex.sent(CREATE)
    assert body["displayName"] == "the first"
    values = body["runtimeConfig"]["parameterValues"]
    assert values["destination"] == "gs://data/nextvlad/data"
    assert values["checkpoint_root"] == "gs://data/nextvlad/checkpoints"
    assert values["epochs"] == CONFIGURATION["epochs"]
    out = capsys.readouterr().out
    folder = last(tmp_path)
    assert "https://console.cloud.google.com/vertex-ai/locations/us-central1/pipelines/runs/" in out
    assert "[train] epoch 1: mean loss 1.2" in out
    assert "[train] took 0:30" in out
    # 5 steps on e2 machines and one of training, 30 seconds each: see the plan above in the output.
    assert "about 0.0" in out
    assert "at list prices" in out
    gap = json.loads((local_run / "evaluation" / "evaluation.json").read_text())
    assert f"{gap['metrics']['model']['gap']:.4f}" in out
    facts = json.loads((folder / "vertex.json").read_text())
    assert facts["state"] == "SUCCEEDED"
    assert facts["job"].startswith("nextvlad-training-")
    for name in names:
        wanted = sorted(p.relative_to(local_run) for p in files_of(local_run / name))
        assert sorted(p.relative_to(folder) for p in files_of(folder / name)) == wanted
    assert reason in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_run_that_is_followed_later_has_its_results(
    vertex, bucket, local_run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(command, "connect", vertex.cloud)
    names = ("examples", "example_statistics", "trained_model", "evaluation", "serving_model")
    outputs = {name: (upload(bucket, local_run, name), {}) for name in names}
    outputs["verdict"] = ("gs://v", {"blessed": True, "reason": "well"})
    vertex.snapshots.append(("SUCCEEDED", [task("gate", "SUCCEEDED", 0, 5, outputs=outputs)]))
    name = f"{PARENT}/pipelineJobs/run-1"
    parameters = json.loads((local_run / "parameters.json").read_text())
    vertex.resources[name] = {"name": name, "createTime": "2026-11-01T00:00:00Z",
                              "runtimeConfig": {"parameterValues": parameters}}  # fmt: skip
    manage(["follow", "--run", "run-1", "--project", PROJECT, "--region", REGION,
            "--runs", str(tmp_path / "runs")])  # fmt: skip
    assert "report.html" in capsys.readouterr().out
    assert (last(tmp_path) / "report.html").is_file()
    assert (last(tmp_path) / "serving_model" / "export.json").is_file()


def test_a_plan_starts_nothing(vertex, start, capsys):
    start("--dry-run", "--vertex", "spot=true", "--hours", "train=2", "statistics=1")
    out = capsys.readouterr().out
    assert "n1-standard-8 + 1 × NVIDIA_TESLA_T4 spot" in out
    assert "expected     " in out and "never above  " in out  # noqa: PT018
    assert not vertex.requests


def test_a_project_that_is_not_ready_starts_nothing(vertex, start, capsys, tmp_path):
    vertex.answers[r"GET /storage/storage/v1/b/data"] = (404, {})
    with pytest.raises(SystemExit):
        start()
    error = capsys.readouterr().err
    assert error.startswith("error: project my-project-1 is not ready: bucket data; see")
    assert not vertex.sent(CREATE)
    assert not (tmp_path / "runs").exists()


def test_a_failing_step(vertex, start, capsys, tmp_path):
    vertex.logs = {"1": [entry("a", "error: data_source gs://x: nothing is there")]}
    vertex.snapshots.append(("FAILED", [task("download", "FAILED", 0, 5, job=1, error="exit 1")]))
    with pytest.raises(SystemExit):
        start()
    error = capsys.readouterr().err.splitlines()
    log = last(tmp_path) / "pipeline.log"
    assert error == [
        f"error: step download failed: data_source gs://x: nothing is there (log: {log})"
    ]
    assert json.loads((last(tmp_path) / "vertex.json").read_text())["state"] == "FAILED"


def test_a_run_that_somebody_cancels(vertex, start, capsys):
    vertex.snapshots.append(("CANCELLED", [task("train", "CANCELLED", 0, 5)]))
    with pytest.raises(SystemExit):
        start()
    assert "was cancelled (log: " in capsys.readouterr().err


@pytest.mark.slow
def test_a_refused_model_has_no_serving_model(vertex, start, bucket, local_run, tmp_path, capsys):
    names = ("examples", "example_statistics", "trained_model", "evaluation")
    outputs = {name: (upload(bucket, local_run, name), {}) for name in names}
    outputs["verdict"] = ("gs://v", {"blessed": False, "reason": "GAP@20 0.1 is below 0.5"})
    vertex.snapshots.append(
        ("SUCCEEDED", [task("gate", "SUCCEEDED", 0, 5, outputs=outputs),
                       task("export", "NOT_TRIGGERED")])
    )  # fmt: skip
    start()
    assert "export skipped, because GAP@20 0.1 is below 0.5" in capsys.readouterr().out
    assert not (last(tmp_path) / "serving_model").exists()


def test_results_that_are_gone(vertex, start, bucket, capsys):
    outputs = {"examples": ("gs://data/artifacts/examples", {})}
    vertex.snapshots.append(("SUCCEEDED", [task("download", "SUCCEEDED", 0, 5, outputs=outputs)]))
    with pytest.raises(SystemExit):
        start()
    assert "artifact examples gs://data/artifacts/examples: nothing is there" in (
        capsys.readouterr().err
    )


def test_credentials_that_expire_say_what_goes_on(vertex, start, capsys):
    train = [task("train", "RUNNING", 0)]
    vertex.snapshots.append(("RUNNING", train))
    vertex.faults.extend([(r"GET .*/pipelineJobs/.*", "pass")])
    looks = []
    original = vertex._fault

    def fault(request):
        if request.startswith("GET") and "/pipelineJobs/" in request:
            looks.append(request)
            return 401 if len(looks) > 2 else None
        return None

    vertex._fault = fault
    with pytest.raises(SystemExit):
        start()
    vertex._fault = original
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not take the credentials: gcloud auth application-default login" in line
    assert "goes on, step train for about 1.07 USD an hour. make vertex-follow PROJECT=" in line


def test_ctrl_c_says_what_goes_on_and_what_it_costs(vertex, start, capsys, monkeypatch):
    vertex.snapshots.append(("RUNNING", [task("train", "RUNNING", 0)]))
    looks = []

    def sleep(_):
        looks.append(1)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(following_module.time, "sleep", sleep)
    with pytest.raises(SystemExit) as ended:
        start()
    assert ended.value.code == 130
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("interrupted: run nextvlad-training-")
    assert "goes on, step train for about 1.07 USD an hour" in line
    assert f"make vertex-cancel PROJECT={PROJECT} REGION={REGION} RUN=nextvlad-training-" in line
    assert not vertex.sent(r"POST .*:cancel")


def test_sigterm_is_as_ctrl_c(start):
    start("--dry-run")
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--project", ""], "TARGET=vertex: PROJECT is missing, expected a value such as my-pro"),
        (["--bucket", "My Bucket"], "BUCKET is 'My Bucket', expected such as my-bucket"),
        (["--vertex", "gpu=1"], "VERTEX setting 'gpu=1': expected name=value of machine,"),
        (["--data", "/data/yt8m"], "data_source /data/yt8m: no machine of Vertex AI has this"),
        (["--display-name", "x" * 129], "has 129 characters, expected at most 128"),
        (["--prices", "/nowhere.yaml"], "prices /nowhere.yaml: "),
        (["--hours", "training=3"], "HOURS 'training=3': expected step=hours with one of downlo"),
        (["--image", "x-{kind}:latest"], "expected a name with {kind} for cpu or gpu and a tag"),
        (["--target", "vertx"], "did you mean vertex?"),
        (["--target", "local"], "for TARGET=vertex alone: PROJECT, REGION, BUCKET"),
    ],
)
def test_what_can_not_be_is_one_line(vertex, start, capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        start(*arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert ended.value.code == 1
    assert not vertex.requests


def test_no_credentials(start, monkeypatch, capsys, tmp_path):
    from pipeline.vertex.cloud import Cloud

    monkeypatch.setattr(command, "connect", Cloud)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(SystemExit):
        start()
    assert capsys.readouterr().err == (
        "error: no Google Cloud credentials are there: gcloud auth application-default login\n"
    )
