"""What a download needs of Cloud Storage: lists, small objects, links and resumable uploads.

Large objects do not pass here: `components.download.servers` reads them by their links, and
`components.download.upload` writes them, with one set of time-outs, retries and progress for all.
With `STORAGE_EMULATOR_HOST` set, an emulator is asked.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import google.api_core.exceptions
import google.auth
import google.auth.credentials
import google.auth.exceptions
import google.auth.transport.requests
import requests
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

from components.download.sink import CRC32C, MD5
from trainer.errors import InputError

SCHEME = "gs://"
_SECONDS = 60.0
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


@dataclasses.dataclass(frozen=True)
class StoredObject:
    """An object as Cloud Storage describes it.

    Attributes:
        uri: `gs://bucket/name`.
        bytes: its size.
        md5: hex digest; empty for one that was composed of others.
        crc32c: hex digits, big-endian.
        generation: which of the objects that bore this name.
        link: where its content is.
    """

    uri: str
    bytes: int
    md5: str
    crc32c: str
    generation: int
    link: str = ""

    @property
    def checksum(self) -> str:
        """`md5:` or `crc32c:` and hex digits: the best that is known."""
        return f"{MD5}{self.md5}" if self.md5 else f"{CRC32C}{self.crc32c}"

    def has(self, checksum: str) -> bool:
        """Whether Cloud Storage says that its content has a checksum."""
        return checksum in (f"{MD5}{self.md5}", f"{CRC32C}{self.crc32c}")

    @classmethod
    def of(cls, blob: storage.Blob) -> StoredObject:
        uri = f"{SCHEME}{blob.bucket.name}/{blob.name}"
        return cls(
            uri, int(blob.size), _hex(blob.md5_hash), _hex(blob.crc32c), int(blob.generation),
            blob.media_link or "",
        )  # fmt: skip


class UnusableObjectError(InputError):
    """It is not there, or larger than it may be; others may be usable."""


class CloudStorage:
    """Cloud Storage, as whoever this machine's credentials say.

    Without credentials it is asked as nobody: public buckets can be read so.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._links: dict[str, str] = {}

    @functools.cached_property
    def _credentials(self) -> google.auth.credentials.Credentials:
        if not os.environ.get("STORAGE_EMULATOR_HOST"):
            with contextlib.suppress(google.auth.exceptions.DefaultCredentialsError):
                found, _ = google.auth.default(scopes=[_SCOPE])
                return found
        return google.auth.credentials.AnonymousCredentials()

    @functools.cached_property
    def _client(self) -> storage.Client:
        return storage.Client(project=None, credentials=self._credentials)

    def under(self, prefix: str) -> dict[str, StoredObject]:
        """The objects whose URIs start so, by URI.

        Raises:
            InputError: no such bucket, or it can not be read.
        """
        bucket, name = parse_uri(prefix)
        with _explained(prefix):
            blobs = self._client.list_blobs(
                bucket, prefix=name, timeout=_SECONDS, retry=_retry(),
                fields="items(name,size,md5Hash,crc32c,generation,mediaLink),nextPageToken",
            )  # fmt: skip
            found = [StoredObject.of(blob) for blob in blobs]
        self._links |= {one.uri: one.link for one in found}
        return {one.uri: one for one in found}

    def stat(self, uri: str) -> StoredObject | None:
        """An object as it is now; None: there is none."""
        bucket, name = parse_uri(uri)
        with _explained(uri):
            blob = self._client.bucket(bucket).get_blob(name, timeout=_SECONDS, retry=_retry())
        if blob is None:
            return None
        found = StoredObject.of(blob)
        self._links[uri] = found.link
        return found

    def read(self, uri: str) -> bytes | None:
        """The content of a small object; None: there is none."""
        bucket, name = parse_uri(uri)
        with _explained(uri):
            blob = self._client.bucket(bucket).blob(name)
            try:
                content: bytes = blob.download_as_bytes(timeout=_SECONDS, retry=_retry())
            except google.api_core.exceptions.NotFound:
                return None
        return content

    def copy(self, uri: str, target: Path, most_bytes: int) -> None:
        """Copy an object into a file; its checksum is verified.

        Raises:
            UnusableObjectError: there is none, or it is larger.
            InputError: the bucket can not be read.
        """
        stored = self.stat(uri)
        if stored is None:
            raise UnusableObjectError(f"{uri}: no such object")
        if stored.bytes > most_bytes:
            raise UnusableObjectError(
                f"{uri}: has {stored.bytes:,} bytes, expected at most {most_bytes:,}"
            )
        bucket, name = parse_uri(uri)
        with _explained(uri):
            self._client.bucket(bucket).blob(
                name, generation=stored.generation
            ).download_to_filename(str(target), timeout=_SECONDS, retry=_retry())

    def write(self, uri: str, content: bytes) -> None:
        """Make a small object; it is whole or not there."""
        bucket, name = parse_uri(uri)
        with _explained(uri):
            self._client.bucket(bucket).blob(name).upload_from_string(
                content, "application/octet-stream", timeout=_SECONDS, retry=_retry()
            )

    def delete(self, uri: str) -> None:
        """Remove an object, if it is there."""
        bucket, name = parse_uri(uri)
        with _explained(uri), contextlib.suppress(google.api_core.exceptions.NotFound):
            self._client.bucket(bucket).blob(name).delete(timeout=_SECONDS, retry=_retry())

    def begin_upload(self, uri: str, checksum: str) -> str:
        """The address of a new resumable upload, which nobody needs credentials for.

        https://cloud.google.com/storage/docs/performing-resumable-uploads

        Args:
            uri: of the object.
            checksum: `md5:` or `crc32c:` and hex digits; Cloud Storage refuses other content.
        """
        bucket, name = parse_uri(uri)
        blob = self._client.bucket(bucket).blob(name)
        kind, _, digits = checksum.partition(":")
        encoded = base64.b64encode(bytes.fromhex(digits)).decode()
        if f"{kind}:" == MD5:
            blob.md5_hash = encoded
        else:
            blob.crc32c = encoded
        with _explained(uri):
            address: str = blob.create_resumable_upload_session(
                "application/octet-stream", timeout=_SECONDS, checksum=None, retry=_retry()
            )
        return address

    def link(self, uri: str) -> tuple[str, dict[str, str]]:
        """Where the content of an object is, and the headers to ask for it with.

        Raises:
            InputError: the credentials can not be renewed.
        """
        address = self._links.get(uri) or self._linked(uri)
        headers: dict[str, str] = {}
        with _explained(uri), self._lock:  # one thread renews the token
            request = google.auth.transport.requests.Request()
            self._credentials.before_request(request, "GET", address, headers)
        return address, headers

    def _linked(self, uri: str) -> str:
        if self.stat(uri) is None:
            raise InputError(f"{uri}: no such object")
        return self._links[uri]


def parse_uri(uri: str) -> tuple[str, str]:
    """Bucket and name of `gs://bucket/name`.

    Raises:
        InputError: another form.
    """
    bucket, _, name = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or not bucket:
        raise InputError(f"{uri}: expected {SCHEME}BUCKET/NAME")
    return bucket, name


def _hex(encoded: str | None) -> str:
    try:
        return base64.b64decode(encoded or "").hex()
    except binascii.Error:
        return ""


def _retry() -> object:
    return DEFAULT_RETRY.with_timeout(_SECONDS)


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    """One line for what the library raises."""
    try:
        yield
    except google.api_core.exceptions.RetryError as error:
        raise InputError(f"{uri}: Cloud Storage does not answer: {_line(error.cause)}") from None
    except google.api_core.exceptions.GoogleAPICallError as error:
        code = getattr(error.code, "value", error.code)
        raise InputError(f"{uri}: Cloud Storage answers {code}: {_line(error.message)}") from None
    except google.auth.exceptions.GoogleAuthError as error:
        raise InputError(
            f"{uri}: no credentials that Cloud Storage takes (`gcloud auth application-default "
            f"login` makes some): {_line(error)}"
        ) from None
    except InputError:
        raise
    except requests.RequestException as error:
        raise InputError(f"{uri}: Cloud Storage does not answer: {_line(error)}") from None
    except ValueError as error:  # such as a name that no bucket can have
        raise InputError(f"{uri}: {_line(error)}") from None


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300]
