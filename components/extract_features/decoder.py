"""Videos decoded in processes of their own, some ahead of what is asked for.

A file that crashes a decoder, hangs it, or makes it take all memory costs that process, and is one
refused video; nothing is unpickled of what such a process says.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.extract_features.decoder_process import (
    DONE,
    FRAME,
    HEADER,
    MET_FIELDS,
    REFUSED,
    SOUND,
    TRACK,
    TRACK_FIELDS,
    Limits,
)
from trainer.errors import InputError
from trainer.feature_networks.frame_network import SIDE
from trainer.feature_networks.log_mel import SAMPLE_RATE

_FRAME_BYTES = SIDE * SIDE * 3 * 4
_AHEAD = 24
"""Frames of a video that are decoded before they are asked for, a megabyte each."""
_LAST_WORDS = 5.0  # seconds that a process may still take once it has closed its output
_ROOT = Path(__file__).parents[2]
_NEEDED = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV")
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What a video is besides its frames.

    Attributes:
        track: of the file, as `components.extract_features.media.Track`.
        met: what the decoder met, and `frames`, `has_audio`.
        sound: float32 [n] mono at 16 kHz; [0] without a sound track.
    """

    track: dict[str, Any]
    met: dict[str, Any]
    sound: NDArray[np.float32]


class Decoder:
    """One video on its way through a process; to be closed.

    Args:
        path: of the file.
        limits: of the process.
        half_pixel_centers: how frames are resized, see `trainer.feature_networks.bilinear`.
    """

    def __init__(self, path: str, limits: Limits, half_pixel_centers: bool) -> None:
        self._limits = limits
        settings = dataclasses.asdict(limits) | {"half_pixel_centers": half_pixel_centers}
        path_of_code = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        # No credentials and the like, which people have in their environments.
        environment = {name: os.environ[name] for name in _NEEDED if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "components.extract_features.decoder_process", path,
             json.dumps(settings)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment | _ONE_THREAD | {"PYTHONPATH": path_of_code},
        )  # fmt: skip
        self._messages: queue.Queue[Any] = queue.Queue(_AHEAD)
        self._closed = threading.Event()
        self._waited = 0.0
        self._decoded: Decoded | None = None
        self._thread = threading.Thread(target=self._read_all, name="decoder", daemon=True)
        self._thread.start()

    def frames(self) -> Iterator[NDArray[np.float32]]:
        """RGB frames [299,299,3] of 0 to 255, one a second.

        Raises:
            InputError: the video has no features, and why; frames may have been given before.
        """
        while not isinstance(message := self._messages.get(), Decoded):
            if isinstance(message, InputError):
                raise message
            yield message
        self._decoded = message

    @property
    def decoded(self) -> Decoded:
        """All else, once the frames were taken."""
        assert self._decoded is not None
        return self._decoded

    def close(self) -> None:
        """End the process, whatever it does."""
        self._closed.set()
        self._process.kill()
        self._thread.join()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe
            pipe.close()

    def _read_all(self) -> None:
        with contextlib.suppress(_ClosedError):
            try:
                self._put(self._read())
            except InputError as error:
                self._put(error)
            except (ValueError, RecursionError) as error:
                # Of bytes that are no numbers, no JSON, no signal.
                self._put(InputError(f"its decoder says what it never should: {_line(error)}"))
            except (OSError, MemoryError) as error:
                # Whatever ends this thread, somebody waits for it.
                self._put(InputError(f"its decoder can not be read ({error!r})"))

    def _read(self) -> Decoded:
        track: dict[str, Any] = {}
        sound: list[bytes] = []
        frames = sound_bytes = 0
        while True:
            kind, length = HEADER.unpack(self._exactly(HEADER.size))
            content = self._exactly(self._expected(kind, length))
            if kind == FRAME:
                frames += 1
                if frames > self._limits.frames:
                    raise InputError("its decoder gives more frames than were asked for")
                self._put(np.frombuffer(content, np.float32).reshape(SIDE, SIDE, 3))
            elif kind == SOUND:
                sound.append(content)
                sound_bytes += length
                if sound_bytes > 4 * SAMPLE_RATE * self._limits.seconds:
                    raise InputError("its decoder gives more sound than was asked for")
            elif kind == TRACK:
                track = _fields(content, TRACK_FIELDS)
            elif kind == REFUSED:
                raise InputError(_line(content.decode("utf-8", "replace")))
            else:
                met = _fields(content, MET_FIELDS)
                if not track or not frames or met["frames"] != frames:
                    raise ValueError(f"{frames:,} frames came, of {met['frames']!r}")
                return Decoded(track, met, np.frombuffer(b"".join(sound), np.float32))

    def _expected(self, kind: bytes, length: int) -> int:
        most = _FRAME_BYTES if kind == FRAME else 1 << 20
        known = kind in (FRAME, SOUND, TRACK, REFUSED, DONE)
        if not known or length > most or (kind == FRAME and length != most):
            raise InputError(f"its decoder says what it never should: {kind!r}, {length:,} bytes")
        return length

    def _exactly(self, count: int) -> bytes:
        assert self._process.stdout
        pipe, parts, left = self._process.stdout.fileno(), [], count
        waiting = select.poll()
        waiting.register(pipe, select.POLLIN)
        while left:
            start = time.monotonic()
            # Only what the process takes counts, not what it waits for its reader.
            ready = waiting.poll(1000 * min(1.0, self._limits.waiting_seconds))
            self._waited += time.monotonic() - start
            if self._closed.is_set():
                raise _ClosedError
            if self._waited > self._limits.waiting_seconds:
                raise InputError(f"its decoder took more than {self._limits.waiting_seconds:,g} s")
            if not ready:
                continue
            part = os.read(pipe, min(left, 1 << 20))
            if not part:
                raise InputError(self._ending())
            parts.append(part)
            left -= len(part)
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def _ending(self) -> str:
        """How a process that said nothing more came to its end."""
        try:
            _, content = self._process.communicate(timeout=_LAST_WORDS)
        except subprocess.TimeoutExpired:
            return "its decoder does not end"
        said = content.decode("utf-8", "replace").strip().splitlines()
        code = self._process.returncode
        if code == -signal.SIGXCPU:
            return (
                f"its decoder took more than {self._limits.processor_seconds:,} s of processor time"
            )
        if code < 0:
            return f"its decoder crashed ({signal.Signals(-code).name})"
        return f"its decoder failed ({said[-1] if said else f'exit code {code}'})"

    def _put(self, message: Any) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._messages.put(message, timeout=0.1)
                return
        raise _ClosedError


def _fields(content: bytes, names: Sequence[str]) -> dict[str, Any]:
    """Of a JSON object that has these."""
    found = json.loads(content)
    if not isinstance(found, dict) or set(found) != set(names):
        raise ValueError(f"expected an object of {', '.join(names)}")
    return found


def _line(error: object) -> str:
    return " ".join(str(error).split())


class _ClosedError(Exception):
    """Nobody wants the rest."""


def decode_ahead(
    paths: Iterable[str], limits: Limits, half_pixel_centers: bool, processes: int
) -> Generator[Decoder, None, None]:
    """A decoder of each video, in order; the next ones are at work already.

    Args:
        paths: of the videos.
        limits: of each process.
        half_pixel_centers: see `Decoder`.
        processes: at work at once.
    """
    waiting: collections.deque[Decoder] = collections.deque()
    rest = iter(paths)
    try:
        while True:
            while len(waiting) < processes and (path := next(rest, None)) is not None:
                waiting.append(Decoder(path, limits, half_pixel_centers))
            if not waiting:
                return
            try:
                yield waiting[0]
            finally:
                waiting.popleft().close()
    finally:
        for decoder in waiting:
            decoder.close()
