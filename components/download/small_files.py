"""Plans and lists: small files that one of several servers has."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import tenacity

from components.download.servers import ANSWER_ERRORS, RETRIED, Servers, in_words, number_in
from trainer.errors import InputError

_CHUNK = 1 << 18
_MALFORMED_TWICE = 2

Parsed = TypeVar("Parsed")


class _RefusedError(InputError):
    """An answer that another attempt does not change."""


def get_parsed(
    servers: Servers,
    urls: Sequence[str],
    parse: Callable[[bytes, str], Parsed],
    most: int,
    attempts: int | None = None,
) -> Parsed:
    """What a file says that one of several servers has.

    Args:
        servers: to ask.
        urls: of the file.
        parse: of its content and URL; what it raises as `InputError` may be the server's doing: it
            is asked once more.
        most: bytes that it may have.
        attempts: at most so many; None: as the servers' limits say.

    Raises:
        InputError: none has it, they can not be reached, or what they have can not be parsed.
    """
    left = list(urls)
    malformed: dict[str, int] = {}

    def once() -> Parsed:
        url = servers.best(left)
        try:
            content = get(servers, url, most)
            try:
                return parse(content, url)
            except InputError as error:
                malformed[url] = malformed.get(url, 0) + 1
                if malformed[url] < _MALFORMED_TWICE:
                    raise
                raise _RefusedError(str(error)) from None
        except _RefusedError:
            if left == [url]:
                raise
            left.remove(url)
            return once()
        except InputError:
            servers.note(url, failed=True)
            raise

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, InputError) and not isinstance(error, _RefusedError)
        ),
        stop=tenacity.stop_after_attempt(attempts or servers.limits.attempts),
        wait=tenacity.wait_random_exponential(servers.limits.first_wait, max=30),
        reraise=True,
    )
    found: Parsed = retrying(once)
    return found


def get(servers: Servers, url: str, most: int) -> bytes:
    """A small file.

    Raises:
        InputError: it can not be had, or has more than `most` bytes.
    """
    start = time.monotonic()
    content = bytearray()
    try:
        response = servers.open(url, {})
        try:
            if response.status != 200:
                refused = 400 <= response.status < 500 and response.status not in RETRIED
                raise (_RefusedError if refused else InputError)(
                    f"{url}: answers {response.status} {response.reason or ''}".rstrip()
                )
            while len(content) <= most and (part := response.read1(_CHUNK, decode_content=False)):
                content += part
            size = number_in(response.headers.get("Content-Length", ""))
        finally:
            response.close()
    except InputError:
        raise
    except ANSWER_ERRORS as error:
        seconds = time.monotonic() - start
        raise InputError(f"{url}: {in_words(error)} (after {seconds:.0f} s)") from None
    if len(content) > most:
        raise InputError(f"{url}: has more than {most >> 20} MiB")
    if size is not None and len(content) < size:
        raise InputError(f"{url}: ended after {len(content):,} of {size:,} bytes")
    return bytes(content)
