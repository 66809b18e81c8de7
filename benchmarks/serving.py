"""What an exported model and the server around it are worth, side by side.

    python -m benchmarks.serving                 # the author's network, ten minutes on 2 cores
    python -m benchmarks.serving --clusters 16 --hidden 64 --frames 60 --requests 400

Of one network with random weights: the direct form's `predict`, that of the form that training
takes, and the exported signature, in turn in one process. Then the server on the same export:
seconds from its start to its first good health, and 200 clients that each send one video after the
other, with one video at a time and with dynamic batching.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import machine, time_in_turn
from trainer import records
from trainer.config import ModelConfig
from trainer.export import export_model
from trainer.exported_model import ExportedModel
from trainer.files import write_json
from trainer.inference_model import inference_model
from trainer.models import build_model
from trainer.vocabulary import Vocabulary


def export(options: argparse.Namespace, folder: Path) -> dict[str, keras.Model]:
    """Write the export below `folder`; the direct form and the one that training takes."""
    keras.utils.set_random_seed(0)
    config = ModelConfig(cluster_size=options.clusters, hidden_size=options.hidden, form="direct")
    classes = options.classes
    direct = build_model(config, classes, records.FRAME, options.frames)
    automatic = build_model(
        dataclasses.replace(config, form="auto"), classes, records.FRAME, options.frames
    )
    automatic.set_weights(direct.get_weights())
    whole = build_model(config, classes, records.FRAME)
    whole.set_weights(direct.get_weights())
    vocabulary = Vocabulary(
        tuple(f"class {i}" for i in range(classes)), (("a vertical",),) * classes
    )
    export_model(
        inference_model(whole, options.frames), records.FRAME, options.frames, vocabulary, 20,
        folder / "saved_model",
    )  # fmt: skip
    write_json(
        folder / "export.json",
        {
            "level": records.FRAME, "top_k": 20, "num_classes": classes,
            "max_frames": options.frames, "data_fingerprint": "", "vocabulary_digest": "",
        },
    )  # fmt: skip
    return {"direct": direct, "auto": automatic}


def predict(options: argparse.Namespace, models: dict[str, keras.Model], folder: Path) -> None:
    """Videos a second of each, timed in turn."""
    rng = np.random.default_rng(0)
    batch, frames = options.batch, options.frames
    inputs = {
        "rgb": rng.integers(0, 256, (batch, frames, records.RGB_SIZE), dtype=np.uint8),
        "audio": rng.integers(0, 256, (batch, frames, records.AUDIO_SIZE), dtype=np.uint8),
        "num_frames": np.full(batch, frames, np.int32),
    }
    signature = ExportedModel(folder).signatures["features"]

    def exported() -> Any:
        return signature(**{key: tf.constant(value) for key, value in inputs.items()})[
            "scores"
        ].numpy()

    things = {
        f"{name} form's predict": (
            lambda model=model: model.predict(inputs, batch_size=batch, verbose=0)
        )
        for name, model in models.items()
    }
    timed = time_in_turn({**things, "exported": exported}, options.rounds)
    reference = timed["direct form's predict"]
    print(f"\nfloat32, batch {batch}, T={frames}")
    for name, one in timed.items():
        print(
            f"{name:24} {batch / one.median:8.1f} videos/s   spread {one.spread:5.1%}   "
            f"{reference.median / one.median:.2f} × direct"
        )


@contextlib.contextmanager
def server(folder: Path, *flags: str) -> Iterator[int]:
    """A server on the export, ready; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "components.serving", "--model", str(folder)]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), *flags],
        stdout=subprocess.DEVNULL, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
                break
            if process.poll() is not None:
                raise SystemExit("the server ended")
            time.sleep(0.05)
        print(f"ready {time.perf_counter() - start:.1f} s after its start")
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        print(f"stopped with exit code {process.wait(60)}")


async def client(port: int, request: bytes, count: int) -> list[tuple[float, bool]]:
    """Seconds of each of `count` requests, one after the other, and whether it was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = []
    for _ in range(count):
        start = time.perf_counter()
        writer.write(request)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(
            line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if line
        )
        await reader.readexactly(int(fields["content-length"]))
        found.append((time.perf_counter() - start, head.startswith(b"HTTP/1.1 200")))
    writer.close()
    return found


def load(port: int, body: bytes, clients: int, requests: int) -> float:
    """Videos a second that `clients` get at once; prints what they saw."""
    head = (
        "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    each = max(1, requests // clients)

    async def everyone() -> list[list[tuple[float, bool]]]:
        return await asyncio.gather(
            *(client(port, head.encode() + body, each) for _ in range(clients))
        )

    start = time.perf_counter()
    answers = [answer for one in asyncio.run(everyone()) for answer in one]
    seconds = time.perf_counter() - start
    times = sorted(one for one, _ in answers)
    errors = sum(not good for _, good in answers)
    rate = len(answers) / seconds
    print(
        f"{clients} clients, {len(answers)} requests: {errors} errors, {rate:.1f} videos/s, "
        f"p50 {statistics.median(times):.2f} s, p99 {times[int(0.99 * (len(times) - 1))]:.2f} s"
    )
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clusters", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=records.NUM_CLASSES)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    print(machine())
    print(f"G=8 K={options.clusters} H={options.hidden} C={options.classes}")
    rng = np.random.default_rng(1)
    video = records.VideoRecord(
        "load", np.zeros(0, np.int64),
        rng.integers(0, 256, (options.frames, records.RGB_SIZE), dtype=np.uint8),
        rng.integers(0, 256, (options.frames, records.AUDIO_SIZE), dtype=np.uint8),
    )  # fmt: skip
    encoded = b64encode(records.encode(video)).decode()
    body = json.dumps({"instances": [{"b64": encoded}]}).encode()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = export(options, folder)
        predict(options, models, folder)
        models.clear()
        rates = {}
        for name, flags in {
            "one at a time": ("--max-batch", "1", "--batch-milliseconds", "0"),
            "dynamic batching": (),
        }.items():
            print(f"\n{name}")
            with server(folder, *flags) as port:
                load(port, body, 1, 10)
                rates[name] = load(port, body, options.clients, options.requests)
    ratio = rates["dynamic batching"] / rates["one at a time"]
    print(f"\ndynamic batching: {ratio:.2f} × one at a time")


if __name__ == "__main__":
    main()
