"""Names in the work folder: a file's is a digest of all that its content depends on."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

from components.download.bucket_folder import in_bucket
from components.download.cloud_storage import CloudStorage
from components.extract_features import decoder_process, features, media, sampling
from components.extract_features.decoder_process import Limits
from components.extract_features.video_list import Video
from trainer import record_format
from trainer.errors import InputError
from trainer.feature_networks import log_mel
from trainer.feature_networks.feature_extractor import NetworkId
from trainer.files import local_path
from trainer.source_digest import source_digest
from trainer.statistics import covariance


@dataclasses.dataclass(frozen=True)
class Job:
    """A video to be extracted.

    Attributes:
        uri: of it.
        key: digest of the file, the networks, the limits and the code.
    """

    uri: str
    key: str

    @property
    def file(self) -> str:
        """Name of its features."""
        return f"{self.key}.features.npz"

    @property
    def refused(self) -> str:
        """Name of the file that says why it has none."""
        return f"{self.key}.refused.npz"

    def codes(self, extractor: str) -> str:
        """Name of its codes by an extractor, of which this is the digest."""
        return f"{self.key}.codes-{extractor[:16]}.npz"


def jobs_of(videos: Sequence[Video], networks: Sequence[NetworkId], limits: Limits) -> list[Job]:
    """A job for each video."""
    how = [
        [dataclasses.asdict(one) for one in networks],
        [limits.seconds, limits.frames, limits.accept_damaged],
        _code(),
        _libraries(),
    ]
    jobs = []
    for video in videos:
        facts = [video.uri, *_stamp(video.uri), how]
        jobs.append(Job(video.uri, hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]))
    return jobs


def _code() -> str:
    """Digest of the code that features depend on: what other code made is not gone on with."""
    modules = (covariance, decoder_process, features, media, record_format, sampling)
    files = [Path(str(module.__file__)) for module in modules]
    return source_digest([*files, *Path(str(log_mel.__file__)).parent.glob("*.py")])


def _libraries() -> dict[str, str]:
    """Versions of those that features depend on."""
    names = ("av", "keras", "numpy", "tensorflow", "tensorflow-cpu")
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _stamp(uri: str) -> tuple[object, ...]:
    """What tells a change of a file."""
    if in_bucket(uri):
        stored = CloudStorage().stat(uri)
        return (stored.bytes, stored.checksum) if stored else ()
    try:
        status = local_path(uri).stat()
    except (OSError, InputError):
        return ()
    return status.st_size, status.st_mtime_ns
