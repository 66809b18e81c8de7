import re

import pytest

from trainer.errors import InputError
from trainer.vocabulary import COLUMNS, Vocabulary, read_vocabulary

HEADER = ",".join(COLUMNS)
ROWS = '''1,5,/m/1,"Guitar, ""electric""",,Arts & Entertainment,Hobbies & Leisure,,"two
lines"
0,9,/m/0,Game,,Games,,,x
2,1,/m/2,,,,,,
'''


def test_rows_out_of_order_quotes_line_breaks_and_empty_names(tmp_path):
    path = tmp_path / "vocabulary.csv"
    path.write_text(f"{HEADER}\n{ROWS}")
    vocabulary = read_vocabulary(path)
    assert vocabulary.names == ("Game", 'Guitar, "electric"', "class 2")
    assert vocabulary.verticals == (
        ("Games",),
        ("Arts & Entertainment", "Hobbies & Leisure"),
        ("(Unknown)",),
    )


def test_without_a_file_classes_are_called_by_their_index():
    vocabulary = Vocabulary.of_indices(3)
    assert vocabulary.names == ("class 0", "class 1", "class 2")
    assert vocabulary.verticals[2] == ("(Unknown)",)


def test_the_real_vocabulary(real_data):
    vocabulary = read_vocabulary(real_data / "vocabulary.csv")
    assert vocabulary.num_classes == 3862
    assert vocabulary.names[:3] == ("Game", "Video game", "Vehicle")
    assert sum(len(verticals) > 1 for verticals in vocabulary.verticals) == 584
    assert len({name for several in vocabulary.verticals for name in several}) == 25


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n", "has no column Index"),
        (f"{HEADER}\n5,,,,,,,,\n", "index '5' is out of range, expected 0 to 0"),
        (f"{HEADER}\nx,,,,,,,,\n", "index 'x' is out of range"),
        (f"{HEADER}\n0,,,,,,,,\n0,,,,,,,,\n", "index 0 stands there twice"),
    ],
)
def test_what_is_wrong_is_said(content, words, tmp_path):
    path = tmp_path / "vocabulary.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=re.escape(f"{path}: {words}")):
        read_vocabulary(path)


def test_an_absent_file_and_a_binary_one(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_vocabulary(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="expected a CSV file in UTF-8"):
        read_vocabulary(tmp_path / "binary.csv")
