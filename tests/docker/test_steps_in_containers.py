"""The DAG through KFP's Docker runner on the real images: results, owners, limits, interruption."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import docker
import pytest

from pipeline.training_pipeline import STEPS
from tests.conftest import ROOT
from tests.docker.conftest import USER
from tests.workplace import Workplace
from trainer.files import read_json

pytestmark = pytest.mark.docker
LIMITS = ["--memory", "statistics=2g", "train=6g"]


def metrics(run):
    return read_json(run / "evaluation" / "evaluation.json")["metrics"]


def files(run):
    """Names of all files of a run's artifacts, without what is a run's own."""
    names = {
        path.relative_to(run / name).as_posix()
        for name in ("example_statistics", "trained_model", "evaluation", "serving_model")
        for path in (run / name).rglob("*")
        if path.is_file()
    }
    return {re.sub(r"events\.out\S+", "events", name) for name in names}


def ours(engine, workplace):
    """Containers of the workplace's runs."""
    return engine.containers.list(all=True, filters={"label": f"nextvlad.runs={workplace.runs}"})


def until(words, process):
    """Read on to a line with the words."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return
    raise AssertionError("".join(seen))


def started(workplace, *arguments):
    return subprocess.Popen(
        workplace.command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_s_run_is_as_one_in_process_and_the_user_s_own(
    engine, image, open_folder, tmp_path
):
    image("cpu")
    group = Path("/var/run/docker.sock").stat().st_gid
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", f"--groups={group}",
              # The checkout may lie where only root can look.
              "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
              "env", "HOME=/tmp"]  # fmt: skip
    workplace = Workplace(open_folder, ROOT, ["--target", "docker", *LIMITS], become)
    done = workplace.run()
    assert workplace.ran(done.stdout) == (list(STEPS), [])
    run = workplace.last()
    others = [
        path for path in workplace.runs.rglob("*") if path.lstat().st_uid != USER
        or path.lstat().st_gid != USER
    ]  # fmt: skip
    assert others == []
    assert ours(engine, workplace) == []

    in_process = Workplace(tmp_path)
    in_process.run()
    assert metrics(run) == metrics(in_process.last())
    assert files(run) == files(in_process.last())
    assert (run / "report.html").is_file()

    again = workplace.run()
    assert workplace.ran(again.stdout) == (["download"], list(STEPS[1:]))
    assert metrics(workplace.last()) == metrics(run)


def test_the_sample_is_as_in_process(image):
    """`make pipeline-run` as it is, and with TARGET=docker; the first one's results are reused."""
    image("cpu")
    runs = {}
    shutil.rmtree(ROOT / "build" / "docker-runs", ignore_errors=True)
    for target, folder in (("local", "runs"), ("docker", "build/docker-runs")):
        done = subprocess.run(
            ["make", "pipeline-run", f"TARGET={target}", f"RUNS={folder}",
             *(['MEMORY=statistics=2g train=6g'] if target == "docker" else [])],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        print(done.stdout)
        runs[target] = max((ROOT / folder).glob("2*"))
    assert metrics(runs["docker"]) == metrics(runs["local"])
    assert files(runs["docker"]) == files(runs["local"])
    assert metrics(runs["docker"])["model"]["gap"] > 0.75


def test_a_killed_training_container_ends_the_run_and_the_next_one_goes_on(engine, workplace):
    many = ("--set", "epochs=40", "training.checkpoint_minutes=0.005")
    process = started(workplace, *many)
    until("epoch 3: mean loss", process)
    (container,) = ours(engine, workplace)
    container.kill("SIGKILL")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = errors.splitlines()
    assert line.startswith("error: step train failed: its container was killed")
    assert ours(engine, workplace) == []
    assert not list(workplace.last().glob("artifacts/*/train/trained_model"))
    done = workplace.run(*many)
    assert re.search(r"nextvlad: goes on at epoch \d+, step \d+", done.stdout)
    history = read_json(workplace.last() / "trained_model" / "training.json")["model"]["history"]
    assert [row["epoch"] for row in history] == list(range(1, 41))


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_its_state_and_leaves_no_container(kind, engine, workplace):
    """Checkpoints are an hour apart: only one that the signal asked for can be gone on from."""
    many = ("--set", "epochs=40", "training.checkpoint_minutes=60")
    process = started(workplace, *many)
    until("epoch 3: mean loss", process)
    process.send_signal(kind)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + kind, output + errors
    assert "Traceback" not in output + errors
    assert ours(engine, workplace) == []
    again = workplace.run(*many)
    (epoch,) = re.findall(r"nextvlad: goes on at epoch (\d+), step \d+", again.stdout)
    assert int(epoch) >= 3


def test_a_container_whose_run_was_killed_is_ended_by_the_next_run(engine, workplace, tiny_sample):
    """Which reads the data of a folder, without a network, and never writes there."""
    process = started(workplace, "--set", "epochs=500")
    until("epoch 1: mean loss", process)
    process.kill()
    process.communicate()
    (left,) = ours(engine, workplace)
    before = {path: path.stat().st_mtime_ns for path in tiny_sample.rglob("*")}
    done = workplace.run("--data", str(tiny_sample), "--set", "epochs=1")
    assert {path: path.stat().st_mtime_ns for path in tiny_sample.rglob("*")} == before
    assert f"[docker] ended container {left.name} of a run that was killed" in done.stdout
    with pytest.raises(docker.errors.NotFound):
        left.reload()


def test_bad_input_is_the_step_s_own_line(workplace, tiny_sample):
    path = tiny_sample / "validate" / "validate0000.tfrecord"
    path.write_bytes(path.read_bytes()[:-5])
    line = workplace.error("--data", str(tiny_sample))
    assert line.startswith(f"error: step download failed: {path}: record 9 (at byte ")


def test_a_step_that_needs_more_memory_than_its_limit(workplace):
    line = workplace.error("--memory", "download=20m")
    assert line.startswith("error: step download failed: it needs more memory than 20m (log: ")


def test_what_is_not_there_is_said_before_anything(workplace, tmp_path):
    for environment, words in (
        ({"DOCKER_HOST": f"unix://{tmp_path}/absent.sock"}, "no Docker engine answers at unix://"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:9"}, "no Docker engine answers at tcp://127.0.0.1:9"),
    ):
        done = subprocess.run(
            workplace.command(), cwd=ROOT, capture_output=True, text=True, check=False,
            env=os.environ | environment,
        )  # fmt: skip
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {words}")
    assert not list(workplace.runs.glob("2*"))


def test_an_image_that_is_not_there(image, tmp_path):
    image("cpu")
    code = tmp_path / "code"
    subprocess.run(["git", "clone", "-q", ROOT, code], check=True)
    (code / "trainer" / "more.py").write_text("")
    line = Workplace(tmp_path, code, ["--target", "docker"]).error()
    assert re.fullmatch(
        r"error: image nextvlad-pipeline-cpu:\w{16} is not there: make images", line
    )


def test_a_container_that_leaves_no_outputs_is_no_success(engine, image, tmp_path):
    """KFP's own function takes one that vanished for one that ended well."""
    from pipeline.targets.step_containers import StepContainers

    given = '{"outputs": {"outputFile": "' + str(tmp_path / "outputs.json") + '"}}'
    command = ["true", "--executor_input", given, "--function_to_execute", "gate"]
    code = StepContainers(tmp_path, {}, {}).run(engine, image("cpu"), command, {})
    assert code == 1


def test_a_container_that_can_not_start_is_one_line_and_is_not_left(
    engine, image, tmp_path, capsys
):
    from pipeline.targets.step_containers import StepContainers

    command = ["/absent", "--executor_input", "{}", "--function_to_execute", "gate"]
    workplace = Workplace(tmp_path)
    code = StepContainers(workplace.runs, {}, {}).run(engine, image("cpu"), command, {})
    assert code == 1
    assert "error: Docker: " in capsys.readouterr().out
    assert ours(engine, workplace) == []


def test_a_line_without_an_end_does_not_hide_the_error(engine, image, tmp_path, capsys):
    from pipeline.targets.step_containers import StepContainers

    command = ["sh", "-c", "printf half; exit 137", "--executor_input", "{}",
               "--function_to_execute", "gate"]  # fmt: skip
    code = StepContainers(tmp_path, {}, {}).run(engine, image("cpu"), command, {})
    assert code == 137
    assert capsys.readouterr().out.splitlines() == ["half", "error: its container was killed"]


def test_it_says_what_it_is_told(image, engine, tmp_path, capsys):
    from pipeline.targets.step_containers import StepContainers

    output = tmp_path / "outputs.json"
    given = '{"outputs": {"outputFile": "' + str(output) + '"}}'
    script = f"import time; print('é' * 9); time.sleep(0.2); open('{output}', 'w')"
    command = ["python3", "-c", script, "--executor_input", given, "--function_to_execute", "gate"]
    folder = {str(tmp_path): {"bind": str(tmp_path), "mode": "rw"}}
    code = StepContainers(tmp_path, {}, {}).run(
        engine, image("cpu"), command, folder, user="0:0", network_mode="none"
    )
    assert code == 0
    assert "é" * 9 in capsys.readouterr().out
