"""What can not be is one line; the run itself is in tests/end_to_end."""

import pytest

from pipeline.run_videos import main
from tests.error_line import error_line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "VIDEOS is empty, expected a CSV file"),
        (["--videos", "x", "--set", "max_faild=1"], "did you mean max_failed?"),
        (["--videos", "x", "--set", "features=imagnet"], "expected one of youtube8m, imagenet"),
        (["--videos", "x", "--set", "max_failed=2"], "max_failed"),
        (["--videos", "x", "--set", "split=tset"], "expected one of all, train"),
    ],
)
def test_what_can_not_be_is_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert words in error_line(main, arguments, capsys)
    assert not list(tmp_path.iterdir())
