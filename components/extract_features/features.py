"""Videos in, features of their frames and sound out, in batches that run over to the next video."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.extract_features.decoder import decode_ahead
from components.extract_features.decoder_process import Limits
from trainer.errors import InputError
from trainer.feature_networks import log_mel
from trainer.feature_networks.frame_network import PIECE, FrameNetwork
from trainer.feature_networks.vggish import BATCH_SIZE

_MOST_DECODERS = 8
"""More than keep a network busy; a container may see more cores than it is given."""
Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclasses.dataclass(frozen=True)
class Networks:
    """What makes features.

    Attributes:
        rgb: of frames, see `FrameNetwork`.
        audio: of log-mel patches float32 [N,96,64], float32 [N,128].
    """

    rgb: FrameNetwork
    audio: Any


@dataclasses.dataclass(frozen=True)
class VideoFeatures:
    """Of a video of T seconds.

    Attributes:
        rgb: float32 [T,2048], as the network gives them.
        audio: float32 [T,128], likewise; of silence where there is no sound track.
        facts: of the file's track, and what its decoder met.
    """

    rgb: NDArray[np.float32]
    audio: NDArray[np.float32]
    facts: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Refused:
    """A video without features.

    Attributes:
        reason: what was found in its file.
    """

    reason: str


@dataclasses.dataclass(frozen=True)
class Pace:
    """How much at once; nothing of it changes a feature.

    Attributes:
        batch_size: frames, or patches of sound, that a network is given at once.
        decoders: processes that decode, a video each.
    """

    batch_size: int = 32
    decoders: int = 2


def decoders(workers: int = 1) -> int:
    """How many processes decode for each worker of this machine."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(_MOST_DECODERS, cores // workers))


def features_of(
    paths: Sequence[str],
    networks: Networks,
    limits: Limits,
    pace: Pace,
    on_frame: Callable[[int, NDArray[np.float32]], None] | None = None,
) -> Generator[VideoFeatures | Refused, None, None]:
    """The features of each video, in order.

    Args:
        paths: files of this machine.
        networks: to ask.
        limits: of decoding one.
        pace: how much at once.
        on_frame: is shown each frame float32 [299,299,3], with its video's place.
    """
    half_pixel = networks.rgb.half_pixel_centers
    waiting: collections.deque[_Open] = collections.deque()
    # The network in a thread of its own: the next batch is put together meanwhile.
    with (
        concurrent.futures.ThreadPoolExecutor(1) as thread,
        contextlib.closing(decode_ahead(paths, limits, half_pixel, pace.decoders)) as decoders,
    ):
        rgb = _Batches(networks.rgb, pace.batch_size, PIECE, thread)
        audio = _Batches(networks.audio, pace.batch_size, BATCH_SIZE, thread)
        for place, decoder in enumerate(decoders):
            video = _Open()
            waiting.append(video)
            try:
                for frame in decoder.frames():
                    if on_frame:
                        on_frame(place, frame)
                    rgb.add(video.rgb, frame)
                    yield from _finished(waiting)
            except InputError as error:
                video.refused = Refused(str(error))
                continue
            seconds = decoder.decoded.met["frames"]
            video.facts = decoder.decoded.track | decoder.decoded.met
            sound = decoder.decoded.sound
            # Silence is the same at every second.
            patches = log_mel.patches(sound, seconds if len(sound) else 1)
            video.seconds, video.audio.expected = seconds, len(patches)
            video.rgb.expected = seconds
            for patch in patches:
                audio.add(video.audio, patch)
            yield from _finished(waiting)
        rgb.finish()
        audio.finish()
        yield from _finished(waiting)


@dataclasses.dataclass
class _Rows:
    """Outputs of a network for one video, as they come."""

    rows: list[NDArray[np.float32]] = dataclasses.field(default_factory=list)
    expected: int = -1

    @property
    def whole(self) -> bool:
        return len(self.rows) == self.expected


@dataclasses.dataclass
class _Open:
    """A video that is not done."""

    rgb: _Rows = dataclasses.field(default_factory=_Rows)
    audio: _Rows = dataclasses.field(default_factory=_Rows)
    seconds: int = 0
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    refused: Refused | None = None

    @property
    def done(self) -> bool:
        return bool(self.refused) or (self.rgb.whole and self.audio.whole)

    def result(self) -> VideoFeatures | Refused:
        if self.refused:
            return self.refused
        audio = np.stack(self.audio.rows)
        if len(audio) < self.seconds:
            audio = np.repeat(audio, self.seconds, axis=0)
        return VideoFeatures(np.stack(self.rgb.rows), audio, self.facts)


def _finished(waiting: collections.deque[_Open]) -> Iterator[VideoFeatures | Refused]:
    while waiting and waiting[0].done:
        yield waiting.popleft().result()


class _Batches:
    """Inputs of a network, whosever they are, given to it so many at once.

    Args:
        network: that takes them, whatever their number, in pieces.
        size: inputs at once, at most.
        piece: of how many the network makes its pieces.
        thread: that it runs in.
    """

    def __init__(
        self,
        network: Network,
        size: int,
        piece: int,
        thread: concurrent.futures.ThreadPoolExecutor,
    ) -> None:
        self._network, self._size, self._piece, self._thread = network, size, piece, thread
        self._open: list[tuple[_Rows, NDArray[np.float32]]] = []
        self._running: tuple[list[_Rows], concurrent.futures.Future[Any]] | None = None

    def add(self, owner: _Rows, one: NDArray[np.float32]) -> None:
        self._open.append((owner, one))
        if self._running and self._running[1].done():
            self._take()
        # A network that has nothing to do does not wait for a whole batch, but for whole pieces.
        is_whole = not self._running and len(self._open) % self._piece == 0
        if is_whole or len(self._open) >= self._size:
            self._start()

    def finish(self) -> None:
        if self._open:
            self._start()
        self._take()

    def _start(self) -> None:
        inputs = np.stack([one for _, one in self._open])
        self._take()
        owners = [owner for owner, _ in self._open]
        self._running = owners, self._thread.submit(self._network, inputs)
        self._open.clear()

    def _take(self) -> None:
        if not self._running:
            return
        owners, future = self._running
        self._running = None
        for owner, row in zip(owners, future.result(), strict=True):
            owner.rows.append(row)
