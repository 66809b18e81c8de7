"""The pass on Flink and on Spark, real ones embedded in Beam's job servers: the same integers."""

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from components.statistics.beam_pass import run_pass
from components.statistics.engines import engine_options
from tests.conftest import ROOT, mean_video
from tests.trainer.statistics.test_feature_statistics import assert_equal
from trainer import records
from trainer.manifest import Manifest, Shard

pytestmark = [
    pytest.mark.slow,
    # Beam's workers hear of the engine's end by a broken connection.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
BEAM = "org.apache.beam.runners"
OPEN_TO_SPARK = ("lang", "lang.invoke", "nio", "util", "util.concurrent")
SERVERS = {
    "flink": [f"{BEAM}.flink.FlinkJobServerDriver", "--flink-master=[local]"],
    "spark": [f"{BEAM}.spark.SparkJobServerDriver", "--spark-master-url=local[2]"],
}


@pytest.fixture(scope="module", params=SERVERS)
def job_server(request, tmp_path_factory):
    """The address of a job server, with what it needs installed."""
    jars = Path(tempfile.gettempdir()) / f"nextvlad-pipeline-{request.param}"
    subprocess.run([ROOT / "requirements" / "engine.sh", request.param, jars], check=True)
    log = tmp_path_factory.mktemp(request.param) / "log"
    artifacts = tmp_path_factory.mktemp("artifacts")
    opened = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in OPEN_TO_SPARK]
    command = [
        shutil.which("java"), *opened, "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
        "-cp", f"{jars}/*", *SERVERS[request.param], "--job-port=0", "--artifact-port=0",
        "--expansion-port=0", f"--artifacts-dir={artifacts}",
    ]  # fmt: skip
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        while not (found := re.search(r"JobService started on (\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield found[1]
    finally:
        process.kill()
        process.wait()


def options_of(job_server):
    # The workers are threads of this process, so that they see its files.
    return engine_options(
        ["--runner=PortableRunner", f"--job_endpoint={job_server}", "--environment_type=LOOPBACK",
         "--parallelism=2"]
    )  # fmt: skip


def assert_as_here(manifest, job_server, tmp_path, covariance=False):
    theirs = run_pass(manifest, options_of(job_server), covariance, str(tmp_path / "theirs"))
    ours = run_pass(manifest, engine_options([]), covariance, str(tmp_path / "ours"))
    assert theirs.by_split.keys() == ours.by_split.keys()
    for split, statistics in ours.by_split.items():
        assert_equal(theirs.by_split[split], statistics)
        assert theirs.by_split[split].bytes == statistics.bytes
    assert theirs.duplicates == ours.duplicates
    assert theirs.bad == ours.bad
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "ours").read_bytes()
    return ours


def test_frame_level_with_bad_records_and_duplicates(manifest, job_server, tmp_path):
    first, second = manifest.shards[:2]
    payloads = [record.payload for record in records.read_records(first.path)]
    records.write_records(second.path, [*payloads[:4], b"garbage", *payloads[5:]])
    found = assert_as_here(manifest, job_server, tmp_path, covariance=True)
    assert found.bad.total == 1
    assert found.duplicates.within == {0: 9}


def test_video_level(job_server, tmp_path, rng):
    shards = []
    for number in range(6):
        path = tmp_path / f"train{number}.tfrecord"
        videos = (mean_video(rng, rng.integers(0, 9, 3), f"{number}-{i}") for i in range(200))
        count = records.write_records(path, map(records.encode, videos))
        shards.append(Shard("train", str(path), path.stat().st_size, "", count))
    manifest = Manifest("here", records.VIDEO, 9, tuple(shards))
    assert assert_as_here(manifest, job_server, tmp_path).by_split["train"].records == 1200


def test_real_records(real_data, job_server, tmp_path):
    paths = sorted((real_data / "video" / "validate").glob("*.tfrecord"))
    shards = [
        Shard("validate", str(path), path.stat().st_size, "",
              sum(1 for _ in records.read_records(path))) for path in paths
    ]  # fmt: skip
    manifest = Manifest("real", records.VIDEO, 3862, tuple(shards))
    found = assert_as_here(manifest, job_server, tmp_path)
    moments = found.by_split["validate"].features.moments()
    assert moments["minimum"].min() == -1.9921875
    assert moments["maximum"].max() == 2.0078125
