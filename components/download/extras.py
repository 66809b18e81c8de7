"""The small files that belong to a data set: names of its classes, what made its features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from trainer.feature_networks.feature_extractor import (
    FEATURE_EXTRACTOR,
    FeatureExtractor,
    parse_feature_extractor,
)
from trainer.manifest import digest_of_contents
from trainer.segment_labels import parse_segment_labels
from trainer.vocabulary import Vocabulary, parse_vocabulary

VOCABULARY, SEGMENT_LABELS, ORACLE = "vocabulary.csv", "segment_label_ids.csv", "oracle.csv"
EXTRACTOR = FEATURE_EXTRACTOR
MOST_BYTES = 64 << 20
PARSERS: dict[str, Callable[[bytes, str], Any]] = {
    VOCABULARY: parse_vocabulary,
    SEGMENT_LABELS: parse_segment_labels,
    EXTRACTOR: parse_feature_extractor,
}
"""By name: what raises `InputError` for a content, named for messages, that is not such a file."""


@dataclasses.dataclass(frozen=True)
class Extra:
    """A small file that is there.

    Attributes:
        uri: where.
        content: its bytes.
    """

    uri: str
    content: bytes

    def feature_extractor(self) -> FeatureExtractor:
        return parse_feature_extractor(self.content, self.uri)

    def vocabulary(self) -> Vocabulary:
        return parse_vocabulary(self.content, self.uri)


def digest(extras: list[Extra]) -> str:
    return digest_of_contents(extra.content for extra in extras)
