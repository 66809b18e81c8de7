"""What a request can get wrong, as a status and one line."""

from __future__ import annotations


class RequestError(Exception):
    """A request that is not answered with predictions.

    Args:
        status: of the response, 4xx or 503.
        message: one line: what was found, and what was expected.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = " ".join(message.split())[:500]
