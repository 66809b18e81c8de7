"""Fetching and proving shards against `curl --parallel` and `md5sum`, from nginx on loopback.

`python -m benchmarks.download`: small and large shards, in turn; then the memory of sixteen
transfers at once. nginx has to be there (`apt-get install nginx-light`).
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.synthetic import synthetic_manifest
from benchmarks.timing import machine, time_in_turn
from components.download.fetch import fetch
from components.download.local_store import LocalStore
from components.download.releases import planned, release_of
from components.download.servers import Limits, Servers
from trainer.config import DownloadConfig
from trainer.tfrecord import index_file

_NGINX = """user {user}; daemon off; worker_processes 1; pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; root {root}; }} }}
"""
_PARALLEL = 8


@contextlib.contextmanager
def nginx(root: Path) -> Iterator[str]:
    """The address of a server of a folder."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        sys.exit("no nginx here; apt-get install nginx-light")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "nginx.conf"
        configuration.write_text(
            _NGINX.format(user=getpass.getuser(), folder=folder, port=port, root=root)
        )
        process = subprocess.Popen([program, "-c", configuration, "-e", f"{folder}/error.log"])
        try:
            _wait_for(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    sys.exit("nginx does not answer")


def serve(root: Path, shards: int, megabytes: float) -> list[str]:
    """Put shards of about so many megabytes and their plan below a folder; their names."""
    frames = 300 if megabytes > 10 else 0
    record = 351_000 if frames else 4_720
    folder = root / "2" / "frame" / "train"
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        videos = max(1, round(megabytes * 1e6 / record))
        (shard,) = synthetic_manifest(Path(scratch), 1, videos, frames).shards
        content = shard.path.read_bytes()
        offsets = index_file(shard.path).offsets.tolist()
    plan = {}
    for number in range(shards):
        # From another record on: other bytes, another digest.
        cut = offsets[number % videos]
        name = f"train{number:04}.tfrecord"
        data = content[cut:] + content[:cut]
        (folder / name).write_bytes(data)
        plan[name] = hashlib.md5(data, usedforsecurity=False).hexdigest()
    plans = root / "2" / "download_plans"
    plans.mkdir()
    (plans / "frame_train.json").write_text(json.dumps({"files": plan}))
    (root / "SUMS").write_text("".join(f"{md5}  {name}\n" for name, md5 in plan.items()))
    return list(plan)


def with_curl(url: str, names: list[str], sums: Path, folder: Path) -> None:
    listing = folder / "list"
    listing.write_text(
        "".join(f'url = "{url}/2/frame/train/{n}"\noutput = "{folder}/{n}"\n' for n in names)
    )
    subprocess.run(
        ["curl", "--parallel", "--parallel-max", str(_PARALLEL), "--silent", "--show-error",
         "--fail", "--config", listing],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    subprocess.run(["md5sum", "--check", "--quiet", sums], check=True, cwd=folder)


def ours(url: str, folder: Path) -> None:
    config = DownloadConfig(splits="train", parallel=_PARALLEL)
    source, servers = f"{url}/2/frame", Servers(_PARALLEL, Limits())
    files = planned(release_of(source, config), config, servers)
    fetch(source, files, LocalStore(folder), servers, config)


_MEASURED = """
import re, sys
from pathlib import Path
from components.download.__main__ import main
main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def memory(url: str, folder: Path) -> float:
    """Megabytes of a process with sixteen transfers at once, at most."""
    # Its own peak: that of a child counts what its parent had when it began.
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, f"{url}/2/frame", "--destination", folder,
         "--splits", "train", "--parallel", "16"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout.splitlines()[-1]) / 1e3


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _things(url: str, names: list[str], root: Path, target: Path) -> dict[str, Callable[[], None]]:
    return {
        "curl, then md5sum": lambda: with_curl(url, names, root / "SUMS", _emptied(target)),
        "components.download": lambda: ours(url, _emptied(target)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default="/dev/shm", help="for all files; in memory")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of each size of shards")
    arguments = parser.parse_args()
    print(machine())
    for megabytes in (1.3, 100.0):
        shards = max(1, round(arguments.gigabytes * 1e3 / megabytes))
        with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
            root, target = Path(scratch) / "root", Path(scratch) / "target"
            names = serve(root, shards, megabytes)
            size = sum((root / "2/frame/train" / name).stat().st_size for name in names) / 1e6
            with nginx(root) as url:
                timed = time_in_turn(_things(url, names, root, target), arguments.rounds, warm_up=1)
                peak = memory(url, _emptied(target))
            base = timed["curl, then md5sum"].median
            print(f"\n{shards:,} shards of {megabytes:g} MB, {_PARALLEL} at once")
            for name, one in timed.items():
                print(f"{name:22} {size / one.median:7,.0f} MB/s  spread {one.spread:.1%}  "
                      f"{base / one.median:.2f} ×")  # fmt: skip
            print(f"memory with 16 at once: {peak:.0f} MB")


if __name__ == "__main__":
    main()
