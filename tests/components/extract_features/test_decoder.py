"""Processes that crash, hang, lie or are no longer wanted."""

import contextlib
import json
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from components.extract_features.decoder import Decoder, decode_ahead
from components.extract_features.decoder_process import Limits
from trainer.errors import InputError

PYTHON = sys.executable
START = """
import json, os, signal, struct, sys, time
path, settings = sys.argv[3], json.loads(sys.argv[4])
out = sys.stdout.buffer
def say(kind, content):
    out.write(struct.pack(">cI", kind, len(content)) + content)
    out.flush()
track = {"container": "x", "codec": "y", "width": 1, "height": 1, "duration": 1.0,
         "frame_rate": 1.0, "audio_codec": ""}
met = {"frames": 1, "has_audio": False, "sound_seconds": 0, "broken_audio_packets": 0,
       "packets": 1, "decoded": 1, "broken": 0, "end": 1.0, "ended": True}
def frame(value=0):
    say(b"F", struct.pack("<f", value) * (299 * 299 * 3))
"""
GOOD = "say(b'T', json.dumps(track).encode()); frame(7); say(b'S', bytes(8)); "
DONE = "say(b'D', json.dumps(met).encode())"


@pytest.fixture
def decoder(tmp_path, monkeypatch):
    """Starts decoders whose process runs this script in place of the real one."""
    running = []

    def start(script, **limits):
        acts_as(script, tmp_path, monkeypatch)
        running.append(Decoder("v.mp4", Limits(**limits), False))
        return running[-1]

    yield start
    for one in running:
        one.close()


def acts_as(script, folder, monkeypatch):
    program = folder / "program"
    program.write_text(f"#!{PYTHON} -S\n{START}{textwrap.dedent(script)}\n")
    program.chmod(0o755)
    monkeypatch.setattr("components.extract_features.decoder.sys.executable", str(program))


def reason(decoder):
    with pytest.raises(InputError) as caught:
        list(decoder.frames())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def is_gone(decoder):
    """Whether a process has ended and was waited for, and its thread too."""
    assert decoder._process.returncode is not None
    assert not decoder._thread.is_alive()
    assert decoder._process.stdout.closed
    return not Path(f"/proc/{decoder._process.pid}").exists()


def test_a_process_that_says_what_it_should(decoder):
    one = decoder(GOOD + DONE)
    (frame,) = one.frames()
    assert frame.shape == (299, 299, 3)
    assert (frame == 7).all()
    np.testing.assert_array_equal(one.decoded.sound, [0, 0])
    assert one.decoded.track["codec"] == "y"
    assert one.decoded.met["frames"] == 1


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGILL"])
@pytest.mark.parametrize("before", ["", GOOD])
def test_a_process_that_crashes(name, before, decoder):
    one = decoder(
        f"{before}\nimport resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        f"os.kill(os.getpid(), signal.{name})"
    )
    assert reason(one) == f"its decoder crashed ({name})"


def test_a_process_that_takes_too_much_processor_time(decoder):
    one = decoder("os.kill(os.getpid(), signal.SIGXCPU)", processor_seconds=7)
    assert reason(one) == "its decoder took more than 7 s of processor time"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("", "its decoder failed (exit code 0)"),
        ("sys.exit(3)", "its decoder failed (exit code 3)"),
        ("raise ValueError('two\\nlines')", "its decoder failed (lines)"),
        ("os._exit(1)", "its decoder failed (exit code 1)"),
        (GOOD, "its decoder failed (exit code 0)"),
        ("out.write(b'F')", "its decoder failed (exit code 0)"),
        ("say(b'R', b'because')", "because"),
        ("say(b'R', b'be\\n\\xffcause')", "be \ufffdcause"),
    ],
)
def test_a_process_that_ends_early(script, words, decoder):
    assert reason(decoder(script)) == words


@pytest.mark.parametrize(
    "script",
    [
        "out.write(b'hello world, this is no message')",
        "out.write(struct.pack('>cI', b'X', 4) + b'abcd')",
        "out.write(struct.pack('>cI', b'F', 2**32 - 1))",
        "out.write(struct.pack('>cI', b'F', 4) + b'abcd')",
        "out.write(struct.pack('>cI', b'T', 2**31))",
        "say(b'T', b'no json')",
        "say(b'T', b'\\xff\\xfe')",
        "say(b'T', b'[1]')",
        "say(b'T', b'{}')",
        "say(b'T', b'[' * 200000)",
        "say(b'T', b'9' * 20000)",
        DONE,
        "frame(); " + DONE,
        "say(b'T', json.dumps(track).encode()); " + DONE,
        GOOD + "met['frames'] = 2; " + DONE,
        GOOD + "del met['end']; " + DONE,
        GOOD + "say(b'D', b'null')",
        GOOD + "say(b'S', b'abc'); " + DONE,
    ],
)
def test_a_process_that_says_what_it_never_should(script, decoder):
    assert reason(decoder(script)).startswith("its decoder says what it never should: ")


def test_more_frames_than_were_asked_for(decoder):
    one = decoder("while True: frame()", frames=3)
    assert reason(one) == "its decoder gives more frames than were asked for"


def test_more_sound_than_was_asked_for(decoder):
    one = decoder("while True: say(b'S', bytes(1 << 20))", seconds=3)
    assert reason(one) == "its decoder gives more sound than was asked for"


@pytest.mark.parametrize(
    "script",
    [
        "time.sleep(600)",
        GOOD + "time.sleep(600)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
        # A byte now and then is no answer either.
        "out.write(struct.pack('>cI', b'R', 1000))\n"
        "while True: out.write(b'x'); out.flush(); time.sleep(0.02)",
        # One that fills the pipe of its errors, which nobody reads meanwhile.
        "sys.stderr.write('x' * 1000000)",
    ],
)
def test_a_process_that_hangs(script, decoder):
    one = decoder(script, waiting_seconds=0.3)
    assert reason(one) == "its decoder took more than 0.3 s"
    one.close()
    assert is_gone(one)


def test_a_process_that_closes_its_output_and_stays(decoder, monkeypatch):
    monkeypatch.setattr("components.extract_features.decoder._LAST_WORDS", 0.2)
    one = decoder("os.close(1); time.sleep(600)")
    assert reason(one) == "its decoder does not end"
    one.close()
    assert is_gone(one)


def test_a_slow_reader_is_no_waiting(decoder):
    """The process has its answers ready; that nobody takes them is not its fault."""
    script = (
        "say(b'T', json.dumps(track).encode())\nfor k in range(60): frame(k)\nmet['frames'] = 60\n"
    )
    one = decoder(script + DONE, waiting_seconds=1.0)
    found = []
    for frame in one.frames():
        if not found:
            time.sleep(1.5)
        found.append(int(frame[0, 0, 0]))
    assert found == list(range(60))


def test_a_reader_that_does_not_read_holds_the_process_up(decoder, tmp_path):
    """No more is decoded ahead than the queue and the pipe hold."""
    count = tmp_path / "count"
    one = decoder(
        f"for k in range(200):\n    frame(k)\n    open({str(count)!r}, 'w').write(str(k))"
    )
    taken = iter(one.frames())
    next(taken)
    deadline, last = time.monotonic() + 20, ""
    while time.monotonic() < deadline:
        time.sleep(0.3)
        now = count.read_text() if count.exists() else ""
        if now and now == last:
            break
        last = now
    assert 20 <= int(last) <= 30


def test_close_ends_it_at_once_whatever_it_does(decoder):
    for script in ("time.sleep(600)", "while True: frame()", "while True: pass"):
        one = decoder(script)
        one.close()
        assert is_gone(one)
        one.close()


def test_close_in_the_middle_of_the_frames(decoder):
    one = decoder("while True: frame()", frames=10_000)
    taken = one.frames()
    next(taken)
    one.close()
    assert is_gone(one)


# Each process notes that it began and that it ended.
NOTING = """
import pathlib, atexit
notes = pathlib.Path(os.environ["TMPDIR"])
(notes / f"{time.monotonic_ns()} begin {path}").touch()
say(b'T', json.dumps(track).encode())
for k in range(3): frame(int(path))
met['frames'] = 3
time.sleep(0.1)
(notes / f"{time.monotonic_ns()} end {path}").touch()
"""


@pytest.fixture
def notes(tmp_path, monkeypatch):
    folder = tmp_path / "notes"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    acts_as(NOTING + DONE, tmp_path, monkeypatch)
    return folder


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_videos_come_in_order(notes):
    found, files, threads = [], open_files(), threading.active_count()
    for one in decode_ahead(map(str, range(9)), Limits(), False, 3):
        found += [int(frame[0, 0, 0]) for frame in one.frames()]
        assert is_alive_at_most(one, 3)
    assert found == [k for k in range(9) for _ in range(3)]
    assert open_files() == files
    assert threading.active_count() == threads


def is_alive_at_most(one, most):
    return sum(thread.name == "decoder" for thread in threading.enumerate()) <= most


@pytest.mark.parametrize("processes", [1, 3])
def test_no_more_than_so_many_processes_at_once(processes, notes):
    asked = []

    def paths():
        for k in range(6):
            asked.append(k)
            yield str(k)

    for given, one in enumerate(decode_ahead(paths(), Limits(), False, processes)):
        assert len(asked) <= given + processes
        list(one.frames())
    running = most = 0
    for note in sorted(notes.iterdir(), key=lambda note: int(note.name.split()[0])):
        running += 1 if " begin " in note.name else -1
        most = max(most, running)
    assert most <= processes
    assert running == 0


def decoders_of(monkeypatch):
    """All that are made from now on."""
    made = []
    real = Decoder.__init__

    def noted(self, *arguments):
        made.append(self)
        real(self, *arguments)

    monkeypatch.setattr(Decoder, "__init__", noted)
    return made


def test_a_consumer_that_stops_early_leaves_nothing_behind(notes, monkeypatch):
    made, files = decoders_of(monkeypatch), open_files()
    ahead = decode_ahead(map(str, range(9)), Limits(), False, 4)
    next(next(ahead).frames())
    ahead.close()
    assert len(made) == 4
    assert all(map(is_gone, made))
    assert open_files() == files


def test_a_consumer_that_raises_leaves_nothing_behind(notes, monkeypatch):
    made, files = decoders_of(monkeypatch), open_files()
    with (
        pytest.raises(ZeroDivisionError),
        contextlib.closing(decode_ahead(map(str, range(9)), Limits(), False, 4)) as ahead,
    ):
        for one in ahead:
            list(one.frames())
            raise ZeroDivisionError
    assert len(made) == 4
    assert all(map(is_gone, made))
    assert open_files() == files


def test_a_list_that_raises_leaves_nothing_behind(notes, monkeypatch):
    made = decoders_of(monkeypatch)

    def paths():
        yield "0"
        yield "1"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(decode_ahead(paths(), Limits(), False, 4))
    assert len(made) == 2
    assert all(map(is_gone, made))


def test_a_refused_video_does_not_hold_the_others_up(tmp_path, monkeypatch):
    script = "if path == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
    acts_as(script + GOOD + DONE, tmp_path, monkeypatch)
    found = []
    for one in decode_ahead(map(str, range(4)), Limits(), False, 2):
        try:
            found.append(len(list(one.frames())))
        except InputError as error:
            found.append(str(error))
    assert found == [1, "its decoder crashed (SIGKILL)", 1, 1]


def test_no_videos():
    assert not list(decode_ahead([], Limits(), False, 2))


def test_the_process_is_told_its_limits(decoder, tmp_path):
    told = tmp_path / "told"
    one = decoder(
        f"open({str(told)!r}, 'w').write(json.dumps(settings))\n" + GOOD + DONE, seconds=5
    )
    list(one.frames())
    settings = json.loads(told.read_text())
    assert settings.pop("half_pixel_centers") is False
    assert Limits(**settings) == Limits(seconds=5)


def test_a_decoder_knows_nothing_of_its_users_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "key.json")
    script = """
import os, sys
sys.exit("seen" if "GOOGLE_APPLICATION_CREDENTIALS" in os.environ else "not seen")
"""
    acts_as(script, tmp_path, monkeypatch)
    one = Decoder("x.mp4", Limits(), True)
    with pytest.raises(InputError, match=r"its decoder failed \(not seen\)"):
        list(one.frames())
    one.close()
