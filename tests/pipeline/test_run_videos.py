"""What can not be is one line; the run itself is in tests/end_to_end."""

import pytest

from pipeline.run_videos import main


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
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not list(tmp_path.iterdir())
