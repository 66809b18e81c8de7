"""Runs of the DAG on tiny data, as a user starts them."""

import re
import subprocess
import sys

import yaml

from tests.conftest import ROOT, TINY_MODEL, TINY_SAMPLE

CONFIGURATION = {
    "data_source": "sample",
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 0.01,
    "overrides": {
        "sample": TINY_SAMPLE,
        "data": {"max_frames": 12},
        "model": TINY_MODEL,
        "training": {"baseline": "mean_pooling"},
        "evaluation": {"resamples": 200, "champion_videos": 2},
    },
}


class Workplace:
    """A folder with a configuration, runs, and optionally a copy of the code to edit.

    `flags` go with every command, `before` runs it, as another user.
    """

    def __init__(self, folder, code=ROOT, flags=(), before=()):
        self.folder, self.code, self.flags, self.before = folder, code, flags, before
        self.configuration = folder / "tiny.yaml"
        self.configuration.write_text(yaml.safe_dump(CONFIGURATION))
        self.runs = folder / "runs"

    def command(self, *arguments):
        return [*self.before, sys.executable, "-m", "pipeline.run", "--config",
                str(self.configuration), "--runs", str(self.runs), *self.flags,
                *arguments]  # fmt: skip

    def run(self, *arguments, expect=0):
        done = subprocess.run(
            self.command(*arguments), cwd=self.code, capture_output=True, text=True, check=False
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    def error(self, *arguments):
        """The one line that a run which can not be ends with, beside no traceback."""
        done = self.run(*arguments, expect=1)
        assert "Traceback" not in done.stdout + done.stderr
        (line,) = done.stderr.splitlines()
        return line

    def last(self):
        return sorted(path for path in self.runs.iterdir() if not path.name.startswith("."))[-1]

    def ran(self, output):
        """The steps that ran, and those whose earlier result was used."""
        ran = re.findall(r"^\[(\w+)\] took", output, re.M)
        used = re.findall(r"^\[(\w+)\] nothing that it depends on changed", output, re.M)
        return ran, used
