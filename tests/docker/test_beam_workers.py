"""The Dataflow image's own start program, on Beam's own engine: the same numbers as in-process.

Dataflow starts the image in the same way; here Beam's job server does, through the `docker`
command.
"""

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from components.download.step import run_download
from components.statistics.beam_pass import run_pass
from components.statistics.engines import engine_options
from tests.conftest import ROOT
from trainer.manifest import read_manifest

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user"),
    # Beam's workers hear of the engine's end by a broken connection.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture
def job_server(engine, image, open_folder, tmp_path):
    """Beam's job server, whose containers see `open_folder` too."""
    (tmp_path / "docker").write_text(
        f"""#!/bin/sh
        [ "$1" != run ] || {{ shift; set -- run -v {open_folder}:{open_folder} "$@"; }}
        exec {shutil.which("docker")} "$@"
        """
    )
    (tmp_path / "docker").chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    module = "apache_beam.runners.portability.local_job_service_main"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "-p", str(port)], cwd=ROOT, stdout=log, stderr=log,
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        )  # fmt: skip
    for _ in range(300):
        assert process.poll() is None, (tmp_path / "log").read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait()
    for container in engine.containers.list(all=True, filters={"ancestor": image("dataflow")}):
        container.remove(force=True)


def test_the_pass_in_its_containers(
    image, job_server, open_folder, shared_sample, tiny_config, tmp_path
):
    shutil.copytree(shared_sample, open_folder / "sample")
    (open_folder / "temp").mkdir()
    # The workers are another user, and pytest's folders are closed to others.
    subprocess.run(["chmod", "-R", "a+rwX", open_folder], check=True)
    uri, _ = run_download(
        str(open_folder / "sample"), str(open_folder / "state"), tiny_config, "", ""
    )
    manifest = read_manifest(uri)
    options = engine_options(
        ["--runner=PortableRunner", f"--job_endpoint={job_server}", "--environment_type=DOCKER",
         f"--environment_config={image('dataflow')}", "--sdk_location=container",
         f"--temp_location={open_folder / 'temp'}"]
    )  # fmt: skip
    theirs = run_pass(manifest, options, False, str(tmp_path / "theirs"))
    ours = run_pass(manifest, engine_options([]), False, str(tmp_path / "ours"))
    assert theirs.by_split.keys() == ours.by_split.keys()
    for split, statistics in ours.by_split.items():
        assert theirs.by_split[split].to_bytes() == statistics.to_bytes()
