"""The command: exit codes, what it says, and the verification of what it left."""

import json

import pytest

from components.download.__main__ import main
from tests.components.download.conftest import PARTITION, contents
from tests.components.download.server import stalls, status, wrong


def run(capsys, *arguments):
    """Exit code and output."""
    try:
        main([str(one) for one in arguments])
        code = 0
    except SystemExit as ended:
        code = ended.code
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_a_release_and_its_verification(server, shards, tmp_path, capsys):
    source = server.release(shards)
    code, said = run(capsys, source, "--destination", tmp_path)
    assert code == 0, said
    assert "5 shards, 0 are there and right" in said
    assert "5/5 shards" in said
    assert contents(tmp_path) == shards
    (manifest,) = (tmp_path / "manifests").iterdir()
    code, said = run(capsys, "--verify", manifest)
    assert code == 0
    assert "5 shards are as the manifest has them, every record is sound" in said


def test_verification_names_shard_and_record(server, shards, tmp_path, capsys):
    run(capsys, server.release(shards), "--destination", tmp_path)
    (manifest,) = (tmp_path / "manifests").iterdir()
    folder = tmp_path / PARTITION
    spoiled, absent = folder / "train" / "train01.tfrecord", folder / "train" / "train02.tfrecord"
    data = bytearray(spoiled.read_bytes())
    data[len(data) // 4 * 3] ^= 1
    spoiled.write_bytes(data)
    absent.unlink()
    code, said = run(capsys, "--verify", manifest)
    assert code == 1
    assert f"{spoiled}: record " in said
    assert "the checksum of its" in said
    assert f"{spoiled}: its MD5 is not" in said
    assert f"{absent}: no such file" in said
    assert "2 of 5 shards are not as the manifest has them" in said


def test_json_lines(server, shards, tmp_path, capsys):
    path = f"/{PARTITION}/train/train01.tfrecord"
    server.faults[path] = status(404)
    with pytest.raises(SystemExit, match="1"):
        main([server.release(shards), "--destination", str(tmp_path), "--json"])
    printed = capsys.readouterr()
    events = [json.loads(line) for line in printed.out.splitlines()]
    assert "5 shards" in printed.err
    assert sorted(e["name"] for e in events if e["event"] == "file") == sorted(
        name for _, name in shards if name != "train01.tfrecord"
    )
    (missing,) = (e for e in events if e["event"] == "missing")
    assert missing["name"] == "train01.tfrecord"
    assert "answers 404" in missing["reason"]
    *_, progress = (e for e in events if e["event"] == "progress")
    assert (progress["files"], progress["of_files"]) == (4, 5)
    assert progress["bytes"] == sum(map(len, shards.values())) - len(
        shards["train", "train01.tfrecord"]
    )


def test_it_says_how_far_it_is_when_no_byte_comes(server, shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("components.download.display.JSON_INTERVAL", 0.05)
    server.faults[f"/{PARTITION}/train/train01.tfrecord"] = [stalls(500, 0.6)]
    main([server.release(shards), "--destination", str(tmp_path), "--json",
          "--stall_seconds", "0.4"])  # fmt: skip
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    waiting = [e for e in events if e["event"] == "progress" and e["files"] == 4]
    assert len({e["bytes"] for e in waiting}) < len(waiting)


def test_bytes_that_were_in_vain_do_not_count(server, shards, tmp_path, capsys):
    server.faults[f"/{PARTITION}/train/train01.tfrecord"] = [wrong]
    _, said = run(capsys, server.release(shards), "--destination", tmp_path, "--json")
    progress = [json.loads(line) for line in said.splitlines() if "progress" in line][-1]
    assert progress["bytes"] == sum(map(len, shards.values()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected SOURCE and --destination, or --verify MANIFEST"),
        (["youtube8m:2/frame"], "expected SOURCE and --destination"),
        (["youtube8m:9/frame", "--destination", "x"], "expected youtube8m:RELEASE/LEVEL"),
        (["sample", "--verify", "x"], "--verify takes no SOURCE"),
        (["youtube8m:2/frame", "--destination", "x", "--paralel", "3"], "--parallel"),
        (["youtube8m:2/frame", "--destination", "x", "--parallel", "0"], "at least 1"),
    ],
)
def test_what_is_not_understood(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = run(capsys, *arguments)
    assert code == 1
    assert words in said
    assert said.count("\n") <= 2


def test_parts_of_a_release(server, shards, tmp_path, capsys):
    source = server.release(shards)
    run(capsys, source, "--destination", tmp_path, "--max_shards", "1")
    assert sorted(contents(tmp_path)) == [
        ("train", "train00.tfrecord"), ("validate", "validate00.tfrecord"),
    ]  # fmt: skip
    code, said = run(capsys, source, "--destination", tmp_path, "--splits", "train,walidate")
    assert code == 1
    assert "download.splits holds 'walidate', expected some of train, validate, test" in said
    code, said = run(capsys, source, "--destination", tmp_path, "--names", "train77.tfrecord")
    assert code == 1
    assert "download.names holds 'train77.tfrecord'" in said


def test_bars_on_a_terminal(server, shards, tmp_path, capsys, monkeypatch):
    """They say how many shards there are in the end; what they draw before is the library's."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, said = run(capsys, server.release(shards), "--destination", tmp_path)
    assert code == 0
    assert "5/5" in said


def test_a_vocabulary_beside_the_release(server, shards, tmp_path, capsys):
    lines = ["Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,Vertical2,Vertical3,W"]
    lines += [f"{n},5,/m/{n},Class {n},u,Games,,,d" for n in range(9)]
    server.files["/vocabulary.csv"] = "\n".join(lines).encode()
    code, said = run(capsys, server.release(shards), "--destination", tmp_path)
    assert code == 0
    assert "9 classes" in said
    assert "no vocabulary" not in said
