import io

from pipeline.console import Console

LOG = """09:00:00.000 - INFO - Executing task \x1b[96m'train'\x1b[0m
09:00:00.000 - INFO - Streamed logs:

    [KFP Executor INFO]: --component_module_path
    [train] epoch 1: loss 3
    I0000 some library says something
09:00:01.000 - INFO - Task \x1b[96m'train'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m
"""


def run(tmp_path, text):
    terminal = io.StringIO()
    with Console(terminal, tmp_path / "log") as console:
        for start in range(0, len(text), 7):  # lines arrive in pieces
            console.write(text[start : start + 7])
    return console, terminal.getvalue(), (tmp_path / "log").read_text()


def test_people_see_lines_for_people_and_the_log_has_all(tmp_path):
    console, seen, log = run(tmp_path, LOG)
    lines = [line for line in seen.splitlines() if line]
    assert lines[0].startswith("── train ──")
    assert lines[1] == "[train] epoch 1: loss 3"
    assert lines[2].startswith("[train] took 0:0")
    assert "some library" in log
    assert "\x1b" not in log
    assert list(console.seconds) == ["train"]
    assert not console.failed


def test_a_failed_step_has_its_error_line(tmp_path):
    text = LOG.replace("I0000 some library says", "error: shard x is cut off\n    and").replace(
        "SUCCESS", "FAILURE"
    )
    console, seen, _ = run(tmp_path, text)
    assert (console.failed, console.error) == ("train", "shard x is cut off")
    assert "took" not in seen


def test_a_bug_leaves_the_tail_of_its_log(tmp_path):
    trace = "".join(f"    line {n}\n" for n in range(50))
    console, _, _ = run(tmp_path, LOG.replace("SUCCESS", "FAILURE").replace("    I0000", trace))
    assert console.failed == "train"
    assert not console.error
    assert 5 < len(console.tail) <= 25
    assert console.tail[-2].strip() == "line 49"
