import re

import pytest

from trainer.errors import InputError
from trainer.segment_labels import parse_segment_labels


def test_a_heading_and_indices():
    assert parse_segment_labels(b"Index\n7\n3\r\n\n12\n", "x") == (3, 7, 12)
    assert parse_segment_labels(b"7\n3", "x") == (3, 7)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Index\n3\nfour\n", "x: line 3: found 'four', expected the index of a class"),
        (b"3\n-4\n", "x: line 2: found '-4'"),
        (b"3\n3\n", "x: line 2: class 3 stands there twice"),
        (b"Index\n", "x: names no class"),
        (b"", "x: names no class"),
        (b"<html>", "x: line 1: found '<html>'"),
        (b"9999999999\n", "x: line 1: found '9999999999'"),
        (b"\xff", "x: expected text in UTF-8"),
    ],
)
def test_what_is_none(content, words):
    with pytest.raises(InputError, match=re.escape(words)):
        parse_segment_labels(content, "x")


def test_the_real_file(real_data):
    content = (real_data / "segment_label_ids.csv").read_bytes()
    classes = parse_segment_labels(content, "x")
    assert (len(classes), classes[0] >= 0, classes[-1] < 3862) == (1000, True, True)
