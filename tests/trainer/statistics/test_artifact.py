import json

import numpy as np
import pytest

from trainer.config import StatisticsConfig
from trainer.errors import InputError
from trainer.statistics import read_statistics
from trainer.statistics.artifact import ARRAYS, STATISTICS, VERSION, digest_of_expectations


@pytest.fixture
def folder(tmp_path):
    facts = {"version": VERSION, "data_fingerprint": "f", "passed": True, "splits": {},
             "anomalies": []}  # fmt: skip
    (tmp_path / STATISTICS).write_text(json.dumps(facts))
    np.savez(tmp_path / ARRAYS, **{"train/labels": np.arange(3)})
    return tmp_path


def change(folder, **changes):
    facts = json.loads((folder / STATISTICS).read_text())
    (folder / STATISTICS).write_text(json.dumps(facts | changes))


def test_files_belong_to_their_data(folder):
    statistics = read_statistics(folder, "f")
    assert statistics.arrays["train/labels"].tolist() == [0, 1, 2]
    assert read_statistics(folder).facts == statistics.facts
    with pytest.raises(InputError, match="are statistics of the data f, expected other"):
        read_statistics(folder, "other")


def test_what_is_not_there(tmp_path, folder):
    with pytest.raises(InputError, match=r"absent/statistics\.json: no such file"):
        read_statistics(tmp_path / "absent")
    (folder / ARRAYS).unlink()
    with pytest.raises(InputError, match=r"statistics\.npz: no such file"):
        read_statistics(folder)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 and no more"])
def test_damaged_arrays(content, folder):
    (folder / ARRAYS).write_bytes(content)
    with pytest.raises(InputError, match=r"statistics\.npz: is damaged"):
        read_statistics(folder)


def test_another_version(folder):
    change(folder, version=1)
    with pytest.raises(InputError, match="of version 1, expected version 3; make them anew"):
        read_statistics(folder)
    (folder / STATISTICS).write_text("[]")
    with pytest.raises(InputError, match="of version None"):
        read_statistics(folder)


def test_data_that_did_not_pass_is_not_trained_on(folder):
    severe = {"severity": "error", "check": "leaked_ids", "description": "train and validate: 3"}
    change(folder, passed=False, anomalies=[severe, severe | {"severity": "warning"}])
    with pytest.raises(InputError, match=r"the data did not pass: train and validate: 3$"):
        read_statistics(folder)
    assert not read_statistics(folder, failed=True).facts["passed"]


def test_what_a_pass_is_compared_with_has_a_digest(folder, tmp_path):
    assert digest_of_expectations(StatisticsConfig()) == ""
    schema = tmp_path / "schema.yaml"
    both = StatisticsConfig(schema=str(schema), baseline=str(folder))
    found = [digest_of_expectations(both)]
    schema.write_text("version: 1")
    found.append(digest_of_expectations(both))
    schema.write_text("version: 2")
    found.append(digest_of_expectations(both))
    change(folder, source="elsewhere")
    found.append(digest_of_expectations(both))
    assert len({*found, ""}) == 5
    assert digest_of_expectations(both) == found[-1]
